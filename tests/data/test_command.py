"""The command, as it is typed."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from dynamicid_pack.dynamicid_core.data import command
from dynamicid_pack.dynamicid_core.data.optional import needed
from dynamicid_pack.dynamicid_core.data.settings import Settings, fingerprint
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import FACE_PACK, SETTINGS, contents

OPTIONS = [
    "--face-pack", str(FACE_PACK), "--bgr", "--provider", "CPU", "--expression-from", "name", "--size", "128",
    "--least-face", "40", "--least-sharpness", "95", "--least-alike", "0.75", "--apart", "0.25", "--per-shard", "8",
]  # fmt: skip


def _run(*arguments: object) -> int:
    return command.main(["build", *map(str, arguments)])


def test_it_builds_tells_and_does_nothing_again(
    finished: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(finished.source, tmp_path / "set", *OPTIONS) == 0
    told = capsys.readouterr().out
    assert "15 pictures of 3 people in 3 shards; left out: 2 unreadable, 2 not a picture, 1 too many pixels" in told
    assert contents(tmp_path / "set") == contents(finished.out)
    assert _run(finished.source, tmp_path / "set", *OPTIONS) == 0
    assert "(nothing changed)" in capsys.readouterr().out
    assert _run(finished.source, tmp_path / "set", *OPTIONS, "--margin", "0.8") == 1
    assert "margin was 0.6 and is 0.8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--adapter", "SAA.bin"], "Tokens need both --adapter and --clip-vision"),
        (["--expression-model", "none.onnx"], "none.onnx: expected a file"),
        (["--per-person", "0"], "Expected per person of at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    finished: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert _run(finished.source, tmp_path / "set", *OPTIONS, *arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_every_setting_has_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["build", "--help"])
    told = capsys.readouterr().out
    for name in Settings.__dataclass_fields__.keys() - {"names", "embeds_rgb", "version"}:
        assert f"--{name.replace('_', '-')} " in told, name
    assert {"--expression-from", "--bgr", "--ray", "--rebuild"} <= set(re.findall(r"--[a-z-]+", told))


@pytest.mark.parametrize(
    ("module", "extra"), [("imagehash", "training"), ("webdataset", "training"), ("pyarrow", "training")]
)
def test_a_missing_package_names_the_extra_before_any_work(
    finished: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    module: str, extra: str,
) -> None:  # fmt: skip
    _hide(monkeypatch, module)
    assert _run(finished.source, tmp_path / "set", *OPTIONS) == 1
    err = capsys.readouterr().err
    assert f"{module} is not installed" in err and f".[{extra}]" in err
    assert not (tmp_path / "set" / ".work" / "seen").exists()


def test_ray_missing_names_its_own_extra(
    finished: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _hide(monkeypatch, "ray")
    assert _run(finished.source, tmp_path / "set", *OPTIONS, "--ray") == 1
    assert ".[scale]" in capsys.readouterr().err


def _hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    def import_module(name: str) -> ModuleType:
        if name.split(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named {hidden!r}", name=hidden)
        return importlib.import_module(name)

    monkeypatch.setitem(needed.__globals__, "import_module", import_module)


def test_a_fingerprint_follows_the_content_also_of_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SETTINGS.digest != Settings().digest == Settings().digest
    monkeypatch.setitem(fingerprint.__globals__, "_WHOLE", 1000)
    monkeypatch.setitem(fingerprint.__globals__, "_SAMPLE", 100)
    file = tmp_path / "a.onnx"
    seen = set()
    for size, at in ((500, 0), (5000, 0), (5000, 2450), (5000, 4999)):
        content = bytearray(size)
        content[at] = 1
        file.write_bytes(content)
        seen |= {fingerprint(file), fingerprint(tmp_path, "*.onnx")}
    file.rename(tmp_path / "b.onnx")
    seen.add(fingerprint(tmp_path, "*.onnx"))
    assert len(seen) == 9
    with pytest.raises(ValueError, match="expected a file, or a folder"):
        fingerprint(tmp_path, "*.bin")
