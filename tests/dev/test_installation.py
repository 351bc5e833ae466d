"""What Load DynamicID says to install, typed in real environments: it works, and what was there stays as it was.

Each environment takes up to 1.1 GB on disk while its test runs, and half a minute to a minute where pip has the
packages in its cache; onnxruntime-gpu alone is 200 MB to download.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.tests.dev.loaded import ROOT, making

pytestmark = [pytest.mark.train, pytest.mark.full, pytest.mark.timeout(1200)]

THERE: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "onnxruntime-gpu": ("onnxruntime-gpu",),
    "headless OpenCV": ("opencv-python-headless",),
    "another pack's insightface": ("--no-deps", "insightface<2.1", "opencv-contrib-python-headless", "numpy"),
    "NumPy and protobuf of before": ("numpy<2", "protobuf<5", "onnxruntime-gpu<1.23"),
}
"""Case -> what pip put there before."""

COMMAND = """
import json
from dynamicid_core.identity.installation import install_command
print(json.dumps(install_command()))
"""
VERSIONS = """
import importlib.metadata, json
print(json.dumps({one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()}))
"""
FACES = """
import importlib.metadata, json, sys
import cv2, numpy, onnxruntime
from insightface.app import FaceAnalysis
from dynamicid_core.identity.installation import is_installed
analysis = FaceAnalysis("pack", sys.argv[1], providers=["CPUExecutionProvider"])
analysis.prepare(-1, det_size=(512, 512))  # the portrait's face is too large for 640
image = cv2.imread(sys.argv[2])
owners = importlib.metadata.packages_distributions()
print(json.dumps([is_installed(), len(analysis.get(image)), {name: owners[name] for name in ("cv2", "onnxruntime")}]))
"""


class Scratch:
    """A virtual environment of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._env = making.Environment(folder)
        making.make_venv(sys.executable, self._env)

    def install(self, *requirements: str) -> None:
        making.pip_install(self._env, *requirements)

    def answer(self, code: str, *arguments: str) -> Any:
        """Return the JSON that is the last line which code prints; it can import the pack's core."""
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self._env.python), "-c", code, *arguments]
        printed = subprocess.run(command, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, check=True).stdout
        return json.loads(printed.splitlines()[-1])

    def shell(self, command: str, folder: Path) -> None:
        """Have the system's shell run a command where `python` is this environment's."""
        path = os.pathsep.join([str(self._env.python.parent), os.environ["PATH"]])
        subprocess.run(command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, check=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    yield Scratch(tmp_path / "environment")
    shutil.rmtree(tmp_path / "environment")  # pytest keeps the folders of three runs


@pytest.mark.parametrize("there", THERE.values(), ids=THERE)
def test_the_command_works_and_what_was_there_stays_as_it_was(
    there: tuple[str, ...], scratch: Scratch, tmp_path: Path
) -> None:
    if there:
        scratch.install(*there)
    before = scratch.answer(VERSIONS)
    scratch.shell(scratch.answer(COMMAND), tmp_path)
    after = scratch.answer(VERSIONS)
    assert {name: after.get(name) for name in before} == before and "insightface" in after
    shutil.copytree(ROOT / "mini" / "weights" / "face-pack", tmp_path / "models" / "pack")
    portrait = _portrait(tmp_path / "portrait.png")
    is_installed, faces, owners = scratch.answer(FACES, str(tmp_path), str(portrait))
    assert is_installed and faces == 1
    assert all(len(set(names)) == 1 for names in owners.values()), f"two bring one module: {owners}"


def _portrait(path: Path) -> Path:
    """Save a drawn person's portrait, whom the miniature's face pack knows."""
    from dynamicid_pack.mini.world.world import World
    from PIL import Image

    Image.fromarray(World(seed=21, held_out_people=True).sample(0, 1).picture().image).save(path)
    return path
