"""What the docs say of a step's cost."""

import re

import pytest
from dynamicid_pack.dynamicid_core.training.cost import cost
from dynamicid_pack.tests.support import ROOT


@pytest.mark.train
@pytest.mark.full
@pytest.mark.parametrize("base", ["SD1.5", "SDXL", "Flux.1"])
def test_the_page_on_training_says_what_is_counted(base: str) -> None:
    costs = cost(base)
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    steps = costs["an image there and back, by what becomes of activations"]
    for step in steps.values():
        said = f"{step['operations'] / 1e12:.2f} T | {step['kept_bytes'] / 1e9:.1f} GB"
        assert said in page, said
    frozen = costs["an image there, frozen"]
    assert " + ".join(f"{operations / 1e12:.2f} T" for operations in frozen.values()) in page
    for name in ("base model", "SAA", "face encoder", "IMR", "keypoint encoder", "autoencoder", "image encoder"):
        assert re.search(rf"{round(costs['parameters'][name] / 1e6)} M", page), name
