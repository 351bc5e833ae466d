"""From pictures in folders to one file of all parts: data, anchoring, tokens, reconfiguration."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.data.__main__ import main as build
from dynamicid_pack.dynamicid_core.training.__main__ import main as train
from dynamicid_pack.dynamicid_core.training.shards import Shards
from dynamicid_pack.mini.world.world import Gallery
from dynamicid_pack.tests.support import ROOT

from .conftest import new_process

SEEN = ["--face-pack", str(ROOT / "mini" / "weights" / "face-pack"), "--bgr", "--size", "128", "--min-face", "40"]


@pytest.mark.timeout(600)
def test_the_commands_lead_from_pictures_to_weights(
    tmp_path: Path, base_folder: Path, recipe: Callable[..., Path]
) -> None:
    views = 3
    gallery = Gallery(seed=5, views=views)
    for person in range(2):
        folder = tmp_path / "people" / f"person {person}"
        folder.mkdir(parents=True)
        for view in range(views):
            sample = gallery.sample(person * views + view)
            cv2.imwrite(str(folder / f"{view}.png"), cv2.cvtColor(sample.picture().image, cv2.COLOR_RGB2BGR))
            (folder / f"{view}.txt").write_text(sample.caption)
    source, anchoring, people = (str(tmp_path / name) for name in ("people", "anchoring", "shards"))

    assert build(["build", source, anchoring, *SEEN]) == 0
    shards = Shards(Path(anchoring))
    assert len(shards) >= 2 * views - 1 and shards.text(0).startswith("in a ")
    assert shards.caption(0) == (tmp_path / "people" / str(shards.json(0)["source"])).with_suffix(".txt").read_text()

    config = recipe("anchored", data=anchoring, size=128, steps=2)
    assert train(["anchor", "--config", str(config)]) == 0
    new_process()
    adapter = str(tmp_path / "anchored" / "anchoring.safetensors")
    vision = str(base_folder / "image_encoder")
    assert build(["build", source, people, *SEEN, "--adapter", adapter, "--clip-vision", vision]) == 0
    editing = {key: value for key, value in json.loads(config.read_text()).items() if key in ("base", "size", "steps")}
    editing |= {
        "data": people, "output": "edited", "adapter": adapter, "targets": 2, "dim": 64, "dim_head": 32,
        "keypoint_dims": [4, 4, 4, 4, 4, 8], "keypoint_depths": [1, 1, 1, 1, 1, 1], "keypoint_output": 8,
    }  # fmt: skip
    (tmp_path / "editing.json").write_text(json.dumps(editing))
    assert train(["reconfigure", "--config", str(tmp_path / "editing.json")]) == 0
    whole = load_checkpoint(tmp_path / "edited" / "reconfiguration.safetensors")
    assert whole.adapter is not None and whole.imr is not None and whole.keypoint_encoder is not None
