"""The stages' work spread over Ray's workers: the same hands, in other processes or on other machines."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .optional import needed
from .settings import Job
from .work import Task, Work

_PACKAGE = Path(__file__).resolve().parents[1]  # dynamicid_core, which is sent to the workers
_OBJECTS = 256 * 2**20  # bytes of a local cluster's object store: a piece of work is some 20 MB


@contextmanager
def hands_on_ray(job: Job, address: str | None = None, workers: int | None = None) -> Iterator[Work]:
    """Work done by `workers` actors of one CPU each, as many as the cluster has CPUs unless said.

    Args:
        address: a cluster's, such as "auto" or "ray://head:10001"; None starts one on this machine, and ends it. The
            source and the models must lie at the same paths on all machines; OUT is written by this one alone.

    Raises ModuleNotFoundError without Ray; a worker's error as it is.
    """
    ray = needed("ray", "scale")
    ours = not ray.is_initialized()
    if ours:
        here: dict[str, Any] = {"num_cpus": workers, "object_store_memory": _OBJECTS, "include_dashboard": False}
        ray.init(
            address=address or "local", runtime_env={"py_modules": [str(_PACKAGE)]}, log_to_driver=False,
            **({} if address else here),
        )  # fmt: skip
    try:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(_actor_class())
        hands = [actor.remote(job.to_json()) for _ in range(count)]

        def work(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
            idle, busy = list(hands), {}
            while True:
                while idle and (task := next(tasks, None)):
                    hand = idle.pop()
                    busy[hand.work.remote(stage, task.content)] = (hand, task.name)
                if not busy:
                    return
                done = ray.wait(list(busy), num_returns=1)[0][0]
                hand, name = busy.pop(done)
                idle.append(hand)
                try:
                    content = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.as_instanceof_cause() from None
                yield name, content

        yield work
    finally:
        if ours:
            ray.shutdown()


def _actor_class() -> type:
    """Made here, so that it is sent as it is: workers know the package as dynamicid_core, whatever its name is here."""

    class RemoteHand:
        def __init__(self, job: str) -> None:
            self.hand = importlib.import_module("dynamicid_core.data.hand").Hand.from_json(job)

        def work(self, stage: str, task: str) -> bytes:
            content: bytes = self.hand.work(stage, task)
            return content

    return RemoteHand
