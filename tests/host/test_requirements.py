"""Installing the pack into a ComfyUI changes no package that is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from dynamicid_pack.tests.support import ROOT


def names(requirements: Path) -> set[str]:
    """The packages that a requirements file lists."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines()]
    return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in lines if line}


def test_it_needs_nothing_that_the_host_does_not_bring() -> None:
    ours = names(ROOT / "requirements.txt")
    assert ours and ours <= names(Path(os.environ["COMFYUI_PATH"]) / "requirements.txt")
    assert not ours & {"torch", "torchvision", "torchaudio", "numpy", "opencv-python", "onnxruntime"}


def test_pip_would_change_nothing() -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "--no-input"]
    done = subprocess.run([*command, "-r", ROOT / "requirements.txt"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["install"] == []
