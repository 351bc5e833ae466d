"""The first half of a run: the graphs that are still to be drawn are queued, and what the server saved is kept."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any, Protocol

from .cells import build_graph, read_template
from .client import ServerError
from .config import Config
from .fingerprints import file_fingerprint
from .store import Store, graph_digest, job_name, jobs
from .template import Graph

Job = tuple[str, str, str, Graph]
"""Table, cell, name and graph."""


class Host(Protocol):
    """What is asked of a ComfyUI server; see `client.Client`."""

    def get(self, path: str) -> Any: ...
    def run(self, graph: Mapping[str, Any], timeout: float = ...) -> list[dict[str, str]]: ...
    def fetch(self, saved: Mapping[str, str]) -> bytes: ...
    def upload(self, name: str, data: bytes) -> str: ...


def draw(config: Config, hosts: Sequence[Host], store: Store, timeout: float, say: Callable[[str], None]) -> int:
    """Draw every picture that is not there yet, or was drawn by another graph or other files.

    Args:
        config: as `store.adopted` gives it.
        hosts: servers with the same nodes and models; they draw side by side, each one graph at a time.
        timeout: seconds that a graph may take.

    Returns how many graphs were queued.

    Raises:
        ValueError: a cell or a sample does not fit its template; nothing has been drawn then.
        ServerError: the server refuses or fails a graph, or a graph saves no picture. What was drawn is kept.
        OSError: the server can't be reached, or a file can't be read.
    """
    files = {path.name: file_fingerprint(path) for path in config.files}
    asked = [_graphs(config, host) for host in hosts]  # each server has its own names for references
    due = [
        number
        for number, (table, cell, name, graph) in enumerate(asked[0])
        if (known := store.record(table, cell, name)) is None or known.digest != graph_digest(graph, files)
    ]
    for number in due:
        store.drop(*asked[0][number][:3])
    store.keep_config(config)  # only now does nothing lie there that was drawn by another
    say(f"{len(asked[0])} graphs, {len(asked[0]) - len(due)} of them drawn already")
    rest = iter(enumerate(due, 1))
    turn, failed = Lock(), Event()

    def work(host: Host, graphs: Sequence[Job]) -> None:
        while not failed.is_set():
            with turn:
                count, number = next(rest, (0, 0))
                if not count:
                    return
                table, cell, name, graph = graphs[number]
                say(f"{count} of {len(due)}: {table}, {cell}, {name}")
            try:
                saved = host.run(graph, timeout)
                if not saved:
                    where = f"{table}, {cell}, {name}"
                    raise ServerError(f"the graph of {where} saved no picture: it needs a Save Image node")
                pictures = [host.fetch(picture) for picture in saved]
                store.keep(table, cell, name, asked[0][number][3], files, pictures)
            except BaseException:
                failed.set()  # the others finish what they are at
                raise

    with ThreadPoolExecutor(len(hosts)) as pool:
        for worker in [pool.submit(work, *pair) for pair in zip(hosts, asked, strict=True)]:
            worker.result()
    return len(due)


def _graphs(config: Config, host: Host) -> list[Job]:
    """All that the configuration asks for."""
    nodes = host.get("/object_info")
    references: dict[Path, str] = {}
    asked = []
    for table in config.tables:
        template = read_template(table.template, nodes)
        for path in (path for sample in table.samples for person in sample.people for path in person.pictures):
            if path not in references:
                references[path] = host.upload(f"dynamicid-{path.name}", path.read_bytes())
        for cell, sample, seed in jobs(table):
            graph = build_graph(template, nodes, table, cell, sample, seed, references)
            asked.append((table.name, cell.name, job_name(sample, seed), graph))
    return asked
