"""The stages on a local Ray cluster."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from dynamicid_pack.dynamicid_core.data import on_ray
from dynamicid_pack.dynamicid_core.data.build import build
from dynamicid_pack.dynamicid_core.data.on_ray import hands_on_ray
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import contents, counted, job


@pytest.mark.full
def test_two_workers_write_the_same_bytes_and_tell_of_errors(finished: Built, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    done: list[str] = []
    with hands_on_ray(job(finished.source), workers=2) as work:
        assert not ray.is_initialized(), "Ray was started before there was work"
        build(job(finished.source), tmp_path / "set", counted(work, done))
        assert ray.cluster_resources()["CPU"] == 2
        assert contents(tmp_path / "set") == contents(finished.out)
        assert sorted(done) == ["examine"] * 3 + ["settle"] * 3
    assert not ray.is_initialized()

    broken = job(finished.source, adapter=str(tmp_path / "nothing.bin"), clip_vision=str(tmp_path))
    with hands_on_ray(broken, workers=1) as work, pytest.raises(FileNotFoundError, match=r"nothing\.bin"):
        build(broken, tmp_path / "other", work)


def test_a_lost_worker_is_told_and_what_to_do() -> None:
    exceptions = pytest.importorskip("ray").exceptions

    def get(done: object) -> bytes:
        raise exceptions.WorkerCrashedError

    with pytest.raises(ChildProcessError, match=r"worker of Ray was lost.*Run it again"):
        on_ray._outcome(SimpleNamespace(get=get, exceptions=exceptions), None)


def test_a_build_with_nothing_to_do_starts_no_cluster(finished: Built) -> None:
    ray = pytest.importorskip("ray")
    with hands_on_ray(job(finished.source), workers=1) as work:
        assert not build(job(finished.source), finished.out, work).fresh
        assert not ray.is_initialized()
