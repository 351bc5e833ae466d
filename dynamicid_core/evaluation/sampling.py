"""The first half of a run: the graphs that are still to be drawn are queued, and what the server saved is kept."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from .cells import build_graph, read_template
from .client import ServerError
from .config import Config
from .fingerprints import file_fingerprint
from .store import Store, graph_digest, job_name, jobs
from .template import Graph


class Host(Protocol):
    """What is asked of a ComfyUI server; see `client.Client`."""

    def get(self, path: str) -> Any: ...
    def run(self, graph: Mapping[str, Any], timeout: float = ...) -> list[dict[str, str]]: ...
    def fetch(self, saved: Mapping[str, str]) -> bytes: ...
    def upload(self, name: str, data: bytes) -> str: ...


def draw(config: Config, host: Host, store: Store, timeout: float, say: Callable[[str], None]) -> int:
    """Draw every picture that is not there yet, or was drawn by another graph or other files.

    Args:
        config: as `store.adopted` gives it.
        timeout: seconds that a graph may take.

    Returns how many graphs were queued.

    Raises:
        ValueError: a cell or a sample does not fit its template; nothing has been drawn then.
        ServerError: the server refuses or fails a graph, or a graph saves no picture. What was drawn is kept.
        OSError: the server can't be reached, or a file can't be read.
    """
    files = {path.name: file_fingerprint(path) for path in config.files}
    asked = _graphs(config, host)
    due = []
    for table, cell, name, graph in asked:
        known = store.record(table, cell, name)
        if known is None or known.digest != graph_digest(graph, files):
            due.append((table, cell, name, graph))
            store.drop(table, cell, name)
    store.keep_config(config)  # only now does nothing lie there that was drawn by another
    say(f"{len(asked)} graphs, {len(asked) - len(due)} of them drawn already")
    for number, (table, cell, name, graph) in enumerate(due, 1):
        say(f"{number} of {len(due)}: {table}, {cell}, {name}")
        saved = host.run(graph, timeout)
        if not saved:
            raise ServerError(f"the graph of {table}, {cell}, {name} saved no picture: it needs a Save Image node")
        store.keep(table, cell, name, graph, files, [host.fetch(picture) for picture in saved])
    return len(due)


def _graphs(config: Config, host: Host) -> list[tuple[str, str, str, Graph]]:
    """Table, cell, name and graph of all that the configuration asks for."""
    nodes = host.get("/object_info")
    references: dict[Path, str] = {}
    asked = []
    for table in config.tables:
        template = read_template(table.template, nodes)
        for person in (person for sample in table.samples for person in sample.people):
            path = person.reference
            if path is not None and path not in references:
                references[path] = host.upload(f"dynamicid-{path.name}", path.read_bytes())
        for cell, sample, seed in jobs(table):
            graph = build_graph(template, nodes, table, cell, sample, seed, references)
            asked.append((table.name, cell.name, job_name(sample, seed), graph))
    return asked
