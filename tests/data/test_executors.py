"""The stages on a local Ray cluster."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from dynamicid_pack.dynamicid_core.data import executors
from dynamicid_pack.dynamicid_core.data.executors import ray_executor
from dynamicid_pack.dynamicid_core.data.pipeline import build
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import contents, counted, job

pytestmark = pytest.mark.train  # a build runs the miniature's networks for seconds


@pytest.mark.full
def test_two_workers_write_the_same_bytes_and_tell_of_errors(finished: Built, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    done: list[str] = []
    with ray_executor(job(finished.source), workers=2) as execute:
        assert not ray.is_initialized(), "Ray was started before there was work"
        build(job(finished.source), tmp_path / "set", counted(execute, done))
        assert ray.cluster_resources()["CPU"] == 2
        assert contents(tmp_path / "set") == contents(finished.out)
        assert sorted(done) == ["analyze"] * 3 + ["select"] * 3
    assert not ray.is_initialized()

    broken = job(finished.source, adapter=tmp_path / "nothing.bin", clip_vision=tmp_path)
    with ray_executor(broken, workers=1) as execute, pytest.raises(FileNotFoundError, match=r"nothing\.bin"):
        build(broken, tmp_path / "other", execute)


def test_a_lost_worker_is_told_and_what_to_do() -> None:
    exceptions = pytest.importorskip("ray").exceptions

    def get_next_unordered() -> bytes:
        raise exceptions.WorkerCrashedError

    with pytest.raises(ChildProcessError, match=r"worker of Ray was lost.*Run it again"):
        executors._next_result(SimpleNamespace(get_next_unordered=get_next_unordered), exceptions)


def test_a_build_with_nothing_to_do_starts_no_cluster(finished: Built) -> None:
    ray = pytest.importorskip("ray")
    with ray_executor(job(finished.source), workers=1) as execute:
        assert not build(job(finished.source), finished.out, execute).fresh
        assert not ray.is_initialized()
