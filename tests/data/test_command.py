"""The command, as it is typed."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from dynamicid_pack.dynamicid_core.data.__main__ import _parser, main
from dynamicid_pack.dynamicid_core.data.optional import require
from dynamicid_pack.dynamicid_core.data.settings import RENAMED, BuildSettings, fingerprint
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import FACE_PACK, SETTINGS, contents

pytestmark = pytest.mark.train  # a build runs the miniature's networks for seconds

OLD_FLAGS = ("least_face", "least_sharpness", "least_alike", "apart", "least_pictures", "most_pixels")
OPTIONS = [
    "--face-pack", str(FACE_PACK), "--bgr", "--provider", "CPU", "--expression-from", "name", "--size", "128",
    "--min-face", "40", "--min-sharpness", "95", "--min-similarity", "0.75", "--merge-distance", "0.25",
    "--per-shard", "8",
]  # fmt: skip


def _run(*arguments: object) -> int:
    return main(["build", *map(str, arguments)])


def test_it_builds_tells_and_does_nothing_again(
    finished: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(finished.source, tmp_path / "set", *OPTIONS) == 0
    summary = capsys.readouterr().out
    assert "15 pictures of 3 people in 3 shards; left out: 2 unreadable, 2 not a picture, 1 too many pixels" in summary
    assert contents(tmp_path / "set") == contents(finished.out)
    assert _run(finished.source, tmp_path / "set", *OPTIONS) == 0
    assert "(nothing changed)" in capsys.readouterr().out
    assert _run(finished.source, tmp_path / "set", *OPTIONS, "--margin", "0.8") == 1
    assert "margin was 0.6 and is 0.8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter", "SAA.bin"], "Tokens need both --adapter and --clip-vision"),
        (["--expression-model", "none.onnx"], "none.onnx: expected a file"),
        (["--per-person", "0"], "per_person: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    finished: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert _run(finished.source, tmp_path / "set", *OPTIONS, *arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_every_setting_has_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    names = BuildSettings.model_fields.keys() - {"embeds_rgb", "version"}
    assert {f"--{name.replace('_', '-')}" for name in names} | {"--bgr", "--ray", "--rebuild"} <= flags


def test_the_flags_of_earlier_versions_mean_the_new_ones() -> None:
    fixed = ["build", "source", "out", "--face-pack", "pack"]
    assert RENAMED.keys() == {*OLD_FLAGS, "names"}
    for name in OLD_FLAGS:
        arguments = _parser().parse_args([*fixed, f"--{name.replace('_', '-')}", "7"])
        assert getattr(arguments, RENAMED[name]) == 7, name


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
    assert not (tmp_path / "set" / ".work" / "analyses").exists()


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

    monkeypatch.setitem(require.__globals__, "import_module", import_module)


def test_a_fingerprint_follows_the_content_and_a_folders_names(tmp_path: Path) -> None:
    assert SETTINGS.digest != BuildSettings().digest == BuildSettings().digest
    file = tmp_path / "a.onnx"
    fingerprints = set()
    for size, at in ((500, 0), (5000, 0), (5000, 2450), (5000, 4999)):
        content = bytearray(size)
        content[at] = 1
        file.write_bytes(content)
        fingerprints |= {fingerprint(file), fingerprint(tmp_path, "*.onnx")}
    file.rename(tmp_path / "b.onnx")
    fingerprints.add(fingerprint(tmp_path, "*.onnx"))
    assert len(fingerprints) == 9
    with pytest.raises(ValueError, match="expected a file, or a folder"):
        fingerprint(tmp_path, "*.bin")
