"""What a kill leaves of a run's folder: its configuration and what it copied are whole, or not there."""

import shutil
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation.config import (
    Benchmark,
    EvaluationConfig,
    JudgeConfig,
    SampleSpec,
    TargetPerson,
    Variant,
)
from dynamicid_pack.dynamicid_core.evaluation.run_folder import RunFolder, snapshot
from dynamicid_pack.dynamicid_core.files import sha256_of_file


class Killed(BaseException):
    """Stands in for the end of a process: nothing catches it."""


@pytest.fixture
def config(tmp_path: Path) -> EvaluationConfig:
    template, face = tmp_path / "template.json", tmp_path / "face.png"
    template.write_text("{}" * 1000)
    face.write_bytes(b"picture" * 1000)
    sample = SampleSpec(name="room", prompt="a person", seeds=(1,), people=(TargetPerson(reference=face),))
    benchmark = Benchmark(name="one", template=template, samples=(sample,), variants=(Variant(name="full"),))
    return EvaluationConfig(judge=JudgeConfig(kind="miniature"), benchmarks=(benchmark,), gallery=(face,))


def test_a_copy_that_a_kill_cut_short_is_made_again(
    tmp_path: Path, config: EvaluationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", cut)
        with pytest.raises(Killed):
            snapshot(config, tmp_path / "run")
    copied = snapshot(config, tmp_path / "run")
    for copy in (copied.benchmarks[0].template, *copied.gallery):
        assert sha256_of_file(copy)[:16] == copy.stem


def test_the_configuration_before_survives_a_kill(
    tmp_path: Path, config: EvaluationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, content: str | bytes, *_: object) -> None:
        with path.open("wb") as file:
            file.write(content[:10] if isinstance(content, bytes) else content[:10].encode())
        raise Killed

    folder = RunFolder(tmp_path)
    folder.keep_config(config)
    before = (tmp_path / "config.json").read_bytes()
    with monkeypatch.context() as patched:
        for name in ("write_bytes", "write_text"):
            patched.setattr(Path, name, cut)
        with pytest.raises(Killed):
            folder.keep_config(config.model_copy(update={"gallery": ()}))
    assert (tmp_path / "config.json").read_bytes() == before
