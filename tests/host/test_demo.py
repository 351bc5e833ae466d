"""The demo on a real server, and what the client says when a server doesn't do as it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation.client import Client, ServerError, server
from dynamicid_pack.tests.support import ROOT
from PIL import Image

from .server import PACK, Server, link

pytestmark = pytest.mark.timeout(600)


@pytest.mark.smoke
@pytest.mark.full
def test_the_demo_ends_with_its_pictures_as_json(tmp_path: Path) -> None:
    (tmp_path / "custom_nodes").mkdir()
    link(PACK, tmp_path / "custom_nodes" / "dynamicid")
    host = [sys.executable, str(Path(os.environ["COMFYUI_PATH"]) / "main.py"), "--cpu", "--disable-api-nodes"]
    host += ["--base-directory", str(tmp_path), "--database-url", f"sqlite:///{(tmp_path / 'comfyui.db').as_posix()}"]
    demo = [sys.executable, "-m", "dynamicid_core.evaluation.demo", "--json", "--output", str(tmp_path / "output")]
    done = subprocess.run([*demo, "--", *host], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    names = {Path(path).name.split("_0")[0] for path in said["pictures"]}
    shown = ("one_person", "two_people", "three_people", "with", "without", "who_claims_what", "who_is_who")
    assert names == {f"DynamicID_mini_{name}" for name in shown}
    for path in said["pictures"]:
        assert Image.open(path).height == 128
    assert said["seconds"] > 0 and said["adapter"] == "trained"
    assert len(said["similarity"]) == 2 and all(-1 <= value <= 1 for value in said["similarity"])


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no such model'); sys.exit(3)"]
    with pytest.raises(ServerError, match="no such model"), server(command, tmp_path / "log"):
        pass


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "NoSuchNode"),
        (
            {
                "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../../out"}},
            },
            "SaveImage: .*outside",
        ),
    ],
)
def test_a_graph_that_fails_is_told(graph: dict, message: str, server: Server) -> None:
    with pytest.raises(ServerError, match=message):
        Client(server.url).run(graph, 60)
