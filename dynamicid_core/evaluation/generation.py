"""The first half of a run: queues the graphs whose images are missing, and keeps what the server saved."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any, Protocol

from ..files import sha256_of_file
from .client import ServerError, saved_images, shown_texts
from .config import EvaluationConfig
from .grow import grow
from .run_folder import Job, RunFolder, graph_digest
from .template import Graph
from .variants import build_graph, read_template


class Host(Protocol):
    """What is asked of a ComfyUI server; see `client.Client`."""

    def get(self, path: str) -> Any: ...
    def outputs(self, graph: Mapping[str, Any], timeout: float = ...) -> Mapping[str, Mapping[str, Any]]: ...
    def fetch(self, image: Mapping[str, str]) -> bytes: ...
    def upload(self, name: str, data: bytes) -> str: ...


def generate(
    config: EvaluationConfig, hosts: Sequence[Host], folder: RunFolder, timeout: float, log: Callable[[str], None]
) -> int:
    """Generate every image that is not there yet, or that another graph or other files generated.

    Args:
        config: from `run_folder.snapshot`.
        hosts: servers with the same nodes and models; they work side by side, each on one graph at a time.
        timeout: seconds that a graph may take.

    Returns how many graphs were queued.

    Raises:
        ValueError: a variant or a sample does not fit its template; nothing has been generated then.
        ServerError: the server refuses or fails a graph, or a graph saves no image. What was generated is kept.
        OSError: the server can't be reached, or a file can't be read.
    """
    files = {path.name: sha256_of_file(path) for path in config.files}
    graphs = [_graphs(config, host) for host in hosts]  # each server has its own names for references
    first = graphs[0]
    due = [
        job
        for job, graph in first.items()
        if (record := folder.record(job)) is None or record.digest != graph_digest(graph, files)
    ]
    for job in due:
        folder.drop(job)
    folder.keep_config(config)  # only now is nothing left that another configuration generated
    log(f"{len(first)} graphs, {len(first) - len(due)} of them drawn already")
    remaining = iter(enumerate(due, 1))
    turn, failed = Lock(), Event()

    def work(host: Host, graphs: Mapping[Job, Graph]) -> None:
        while not failed.is_set():
            with turn:
                number, job = next(remaining, (0, None))
                if job is None:
                    return
                log(f"{number} of {len(due)}: {job}")
            try:
                outputs = host.outputs(graphs[job], timeout)
                saved = saved_images(outputs)
                if not saved:
                    raise ServerError(f"the graph of {job} saved no picture: it needs a Save Image node")
                folder.keep(job, first[job], files, [host.fetch(image) for image in saved], shown_texts(outputs))
            except BaseException:
                failed.set()  # the others finish their graphs
                raise

    with ThreadPoolExecutor(len(hosts)) as pool:
        for worker in [pool.submit(work, *pair) for pair in zip(hosts, graphs, strict=True)]:
            worker.result()
    return len(due)


def _graphs(config: EvaluationConfig, host: Host) -> dict[Job, Graph]:
    """Return the graphs of all jobs, seed by seed, so that a benchmark's rows grow alike."""
    nodes = host.get("/object_info")
    images: list[Path] = list(dict.fromkeys(path for person in config.people for path in person.images))
    references = {path: host.upload(f"dynamicid-{path.name}", path.read_bytes()) for path in images}
    graphs = {}
    for benchmark in config.benchmarks:
        template, wired = read_template(benchmark.template, nodes), benchmark
        for sample in benchmark.samples:
            grown = template
            if benchmark.grow:
                grown, people = grow(template, len(sample.people))
                wired = benchmark.model_copy(update={"inputs": benchmark.inputs.model_copy(update={"people": people})})
            for seed in sample.seeds:
                for variant in benchmark.variants:
                    job = Job.of(benchmark, variant, sample, seed)
                    graphs[job] = build_graph(grown, nodes, wired, variant, sample, seed, references)
    return graphs
