"""Where the stages' tasks are done: in this process, or by Ray's workers in others or on other machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .optional import require
from .settings import BuildJob
from .worker import Worker

_PACKAGE = Path(__file__).resolve().parents[1]  # dynamicid_core, which is sent to the workers
_OBJECT_STORE = 256 * 2**20  # bytes of a local cluster's object store: a task's result is some 20 MB


@dataclass(frozen=True)
class Task:
    """A piece of work: the name that the result is stored under, and what to do, as `Worker.run` takes it."""

    name: str
    content: str


Executor = Callable[[str, Iterator[Task]], Iterator[tuple[str, bytes]]]
"""From a stage's name and its tasks to each task's name and result, in any order."""


def local_executor(job: BuildJob) -> Executor:
    """Return an executor that does one task after the other in this process."""
    worker = Worker(job)

    def execute(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
        for task in tasks:
            yield task.name, worker.run(stage, task.content)

    return execute


@contextmanager
def ray_executor(job: BuildJob, address: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """Give an executor of `workers` Ray actors of one CPU each; by default as many as the cluster has CPUs.

    Ray is started with the first task, so that a build with nothing to do needs none.

    Args:
        address: a cluster's, such as "auto" or "ray://head:10001"; None starts one on this machine, and ends it. The
            source and the models must lie at the same paths on all machines; OUT is written by this one alone.

    Raises ModuleNotFoundError without Ray. The executor raises what a task raises, and ChildProcessError when a worker
    was lost.
    """
    ray = require("ray", "scale")
    pool: Any = None

    def execute(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
        nonlocal pool
        for task in tasks:
            if pool is None:
                local = {"num_cpus": workers, "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
                code = {"py_modules": [str(_PACKAGE)]}
                ray.init(address or "local", runtime_env=code, log_to_driver=False, **({} if address else local))
                count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
                actor = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(_actor_class())
                pool = ray.util.ActorPool([actor.remote(job.model_dump_json()) for _ in range(count)])
            if not pool.has_free():
                yield _next_result(pool, ray.exceptions)
            pool.submit(lambda actor, task: actor.run.remote(stage, task.name, task.content), task)
        while pool is not None and pool.has_next():
            yield _next_result(pool, ray.exceptions)

    try:
        yield execute
    finally:
        ray.shutdown()  # nothing, where it was not started


def _next_result(pool: Any, exceptions: Any) -> tuple[str, bytes]:
    try:
        result: tuple[str, bytes] = pool.get_next_unordered()
        return result
    except exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except exceptions.RayError as error:
        raise ChildProcessError(f"a worker of Ray was lost: {error}. Run it again: what is done is kept.") from error


def _actor_class() -> type:
    """Return a class that is sent by value: workers know the package as dynamicid_core, whatever its name is here."""

    class RemoteWorker:
        def __init__(self, job: str) -> None:
            module = importlib.import_module("dynamicid_core.data.worker")
            self.worker = module.Worker(module.BuildJob.model_validate_json(job))

        def run(self, stage: str, name: str, task: str) -> tuple[str, bytes]:
            return name, self.worker.run(stage, task)

    return RemoteWorker
