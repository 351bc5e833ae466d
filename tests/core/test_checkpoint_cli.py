"""The command `python -m dynamicid_core.checkpoint`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.checkpoint_cli import main
from dynamicid_pack.dynamicid_core.state_dict import fingerprint
from dynamicid_pack.tests.support import ROOT

from .weights import ENCODER, IMR, KEYPOINTS, PARTS, RANK, SAA, holds


@pytest.fixture
def release(tmp_path: Path) -> list[str]:
    torch.save({"proj_module": ENCODER, "SAA_module": SAA}, tmp_path / "SAA.bin")
    torch.save(IMR, tmp_path / "IMR.bin")
    torch.save(KEYPOINTS, tmp_path / "key_point_encoder.bin")
    return [str(tmp_path / name) for name in ("SAA.bin", "IMR.bin", "key_point_encoder.bin")]


def test_convert_and_inspect(tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.safetensors"
    assert main(["convert", *release, str(out)]) == 0
    assert holds(load_checkpoint(out), PARTS)
    converted = capsys.readouterr().out
    assert main(["inspect", str(out)]) == 0
    output = capsys.readouterr().out
    assert converted == f"{output}written to {out}\n"

    head, *lines = (line.split() for line in output.splitlines())
    assert head[:2] == ["part", "tensors"]
    assert [line[0] for line in lines] == list(PARTS)
    assert [line[-1] for line in lines] == [fingerprint(weights)[:12] for weights in PARTS.values()]
    # tensors, values, size (2 words), dtype, tokens, rank, depth
    assert lines[0][1] == str(len(SAA))
    assert lines[0][5:9] == ["float32", "2", str(RANK), "4"]
    assert lines[1][5:9] == ["float32", "2", "-", "1"]
    assert lines[2][5:9] == ["float32", "-", "-", "2"]
    assert "6x6 to 5" in output


def test_convert_to_half_precision(tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out, again = tmp_path / "half.safetensors", tmp_path / "again.safetensors"
    assert main(["convert", "--half", *release, str(out)]) == 0
    half = {
        part: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        for part, weights in PARTS.items()
    }
    assert holds(load_checkpoint(out), half)
    assert {line.split()[5] for line in capsys.readouterr().out.splitlines()[1 : 1 + len(PARTS)]} == {"float16"}
    assert main(["convert", str(out), str(again)]) == 0
    assert holds(load_checkpoint(again), half)


def test_inspect_a_part_alone(release: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for path, parts in zip(release, (["SAA_module", "proj_module"], ["imr"], ["keypoint_encoder"]), strict=True):
        assert main(["inspect", path]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == parts


def test_inspect_an_adapter_without_its_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"SAA_module": SAA}, tmp_path / "SAA.bin")
    assert main(["inspect", str(tmp_path / "SAA.bin")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[6] == "-"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "{folder}/none"], "there is no such file"),
        (["inspect", "{folder}"], "this is a folder"),
        (["convert", "{folder}/SAA.bin", "{folder}/IMR.bin"], "IMR.bin: expected the file to write, last"),
        (["convert", "{folder}/IMR.bin", "{folder}/there.safetensors"], "there is such a file already"),
        (["convert", "{folder}/IMR.bin", "{folder}/IMR.bin", "{folder}/new.safetensors"], "holds imr, which came from"),
        (["convert", "{folder}/IMR.bin", "{folder}/none/new.safetensors"], "there is no folder"),
        (
            ["convert", "--overwrite", "{folder}/there.safetensors", "{folder}/IMR.bin", "{folder}/there.safetensors"],
            "expected a file other than those that are read",
        ),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "there.safetensors").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwrite_when_told_to(tmp_path: Path, release: list[str]) -> None:
    out = tmp_path / "there.safetensors"
    out.touch()
    assert main(["convert", "--overwrite", release[1], str(out)]) == 0
    assert holds(load_checkpoint(out), {"imr": IMR})


@pytest.mark.train  # another Python imports torch
def test_runs_from_the_packs_folder_without_the_host(tmp_path: Path, release: list[str]) -> None:
    (tmp_path / "comfy.py").write_text("raise SystemExit('the host was imported')")
    done = subprocess.run(
        [sys.executable, "-m", "dynamicid_core.checkpoint", "inspect", release[1]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("imr")
