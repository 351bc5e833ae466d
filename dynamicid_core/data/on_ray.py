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

    Ray is started with the first task, so that a build with nothing to do needs none.

    Args:
        address: a cluster's, such as "auto" or "ray://head:10001"; None starts one on this machine, and ends it. The
            source and the models must lie at the same paths on all machines; OUT is written by this one alone.

    Raises ModuleNotFoundError without Ray. The work raises what it raises elsewhere, and ChildProcessError when a
    worker was lost.
    """
    ray = needed("ray", "scale")
    hands: list[Any] = []
    started = False

    def work(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
        nonlocal started
        task = next(tasks, None)
        if task is None:
            return
        if not hands:
            started = _start(ray, address, workers)
            count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            actor = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(_actor_class())
            hands.extend(actor.remote(job.to_json()) for _ in range(count))
        idle = list(hands)
        busy: dict[Any, tuple[Any, str]] = {}
        while task or busy:
            while task and idle:
                hand = idle.pop()
                busy[hand.work.remote(stage, task.content)] = (hand, task.name)
                task = next(tasks, None)
            done = ray.wait(list(busy), num_returns=1)[0][0]
            hand, name = busy.pop(done)
            idle.append(hand)
            yield name, _outcome(ray, done)

    try:
        yield work
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, address: str | None, workers: int | None) -> bool:
    """Connects to a cluster or starts one; whether it did, and not the caller before."""
    if ray.is_initialized():
        return False
    here = {"num_cpus": workers, "object_store_memory": _OBJECTS, "include_dashboard": False}
    code = {"py_modules": [str(_PACKAGE)]}
    ray.init(address=address or "local", runtime_env=code, log_to_driver=False, **({} if address else here))
    return True


def _outcome(ray: Any, done: Any) -> bytes:
    try:
        content: bytes = ray.get(done)
        return content
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except ray.exceptions.RayError as error:
        raise ChildProcessError(f"a worker of Ray was lost: {error}. Run it again: what is done is kept.") from error


def _actor_class() -> type:
    """Made here, so that it is sent as it is: workers know the package as dynamicid_core, whatever its name is here."""

    class RemoteHand:
        def __init__(self, job: str) -> None:
            self.hand = importlib.import_module("dynamicid_core.data.hand").Hand.from_json(job)

        def work(self, stage: str, task: str) -> bytes:
            content: bytes = self.hand.work(stage, task)
            return content

    return RemoteHand
