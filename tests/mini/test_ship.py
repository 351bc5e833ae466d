"""What ships: weights a byte each, files that load, a model card of what was measured."""

import cv2
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.training.trainer import Trainer
from dynamicid_pack.mini.__main__ import main
from dynamicid_pack.mini.quantize import LARGE, dequantize, quantize
from dynamicid_pack.mini.train import pictures, ship
from dynamicid_pack.mini.train.autoencoder import Autoencoder
from dynamicid_pack.mini.train.expression_network import ExpressionNet, write_classifier
from dynamicid_pack.mini.train.face_networks import write_pack
from dynamicid_pack.mini.train.stage import TrainContext
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .test_face_pack import seasoned, small

pytestmark = pytest.mark.train  # short trainings, shipped


def test_kept_weights_come_back_nearly_as_they_were():
    torch.manual_seed(0)
    state = {
        "kernel": torch.randn(64, 32, 3, 3) * torch.logspace(-3, 1, 64).reshape(-1, 1, 1, 1),
        "matrix": torch.randn(128, 64),
        "bias": torch.randn(64),
        "small": torch.randn(3, 5),
        "ids": torch.arange(70_000),
    }
    state["matrix"][5] = 0
    kept = quantize(state)
    assert kept["kernel"].dtype == kept["matrix"].dtype == torch.int8 and kept["bias"].dtype == torch.float16
    restored = dequantize(kept)
    assert restored.keys() == state.keys()
    assert torch.equal(restored["ids"], state["ids"]) and not restored["matrix"][5].any()
    for name in ("kernel", "matrix"):
        assert restored[name].shape == state[name].shape and restored[name].dtype == torch.float32
        rows, back = state[name].flatten(1), restored[name].flatten(1)
        # half a step of a row's 127, and what half precision loses of its scale
        assert ((rows - back).abs() <= rows.abs().amax(1, keepdim=True) * (0.5 / 127 + 1e-3) + 1e-6).all()


def test_kept_weights_take_a_quarter():
    state = Autoencoder().state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in quantize(state).values())
    assert size < 0.27 * sum(tensor.numel() * 4 for tensor in state.values())
    assert any(tensor.numel() >= LARGE for tensor in state.values())


def test_shipping_before_training_says_what_is_missing(tmp_path, capsys):
    assert main(["ship", "--checkpoints", str(tmp_path), "--to", str(tmp_path / "out")]) == 1
    assert "train it first" in capsys.readouterr().err


@pytest.mark.full
def test_everything_ships_and_is_measured(tmp_path, host, monkeypatch):
    pytest.importorskip("insightface")
    from .test_stages import BASE, quiet

    monkeypatch.setattr(pictures, "SHARD", 8)
    context = TrainContext(tmp_path / "trained")
    for make in (*BASE.values(), small):
        Trainer(make(context), log=quiet).run()
    out = tmp_path / "shipped"
    ship.ship(context, out)
    for name in ship.NETWORKS:
        stored, kept = context.stored(name), ship.as_shipped(out, name)
        assert kept.keys() == stored.keys()
        assert load_file(out / f"{name}.safetensors").keys() >= kept.keys()
    measured = ship.measure(context, out, quick=True)
    assert {"judge", "judge, on round trips", "unet", "face-pack", "expression"} <= measured.keys()
    text = ship.card(context, out, measured)
    assert "| unet |" in text and "12,634,244" in text and "## face-pack, on round trips" in text
    again = ship.restored(TrainContext(tmp_path / "empty"), out, tmp_path / "restored")
    ship.ship(again, tmp_path / "again")
    for file in (out / ship.PACK).iterdir():
        assert (tmp_path / "again" / ship.PACK / file.name).read_bytes() == file.read_bytes()
    assert Trainer(BASE["unet"](again), log=quiet).step == Trainer(BASE["unet"](context), log=quiet).step


def test_what_shipped_can_be_trained_from(tmp_path):
    write_pack(seasoned(), tmp_path / ship.PACK)
    write_classifier(ExpressionNet(), tmp_path / ship.CLASSIFIER_FILE)
    state = {"layer.weight": torch.randn(80, 64), "layer.bias": torch.randn(80)}
    for name in ship.NETWORKS:
        save_file(quantize(state), tmp_path / f"{name}.safetensors")
    assert main(["restore", "--checkpoints", str(tmp_path / "checkpoints"), "--from", str(tmp_path)]) == 0
    weights = TrainContext(tmp_path / "checkpoints").stored("unet")
    assert weights.keys() == state.keys()
    assert torch.allclose(weights["layer.weight"], state["layer.weight"], atol=0.05)
    ship.ship(TrainContext(tmp_path / "checkpoints"), tmp_path / "again")
    for file in (tmp_path / ship.PACK).iterdir():
        assert (tmp_path / "again" / ship.PACK / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "again" / ship.CLASSIFIER_FILE).read_bytes() == (tmp_path / ship.CLASSIFIER_FILE).read_bytes()


def test_a_trained_dynamicid_is_kept_with_curves_and_samples_of_its_trainings(tmp_path):
    training = tmp_path / "anchoring"
    training.mkdir()
    save_file({"layer.weight": torch.randn(80, 64)}, training / "anchoring.safetensors")
    losses = "".join(f"{step},{1 / step}\n" for step in range(1, 301))
    (training / "losses.csv").write_text(f"step,loss\n{losses}")
    for step, grey in ((100, 10), (200, 200)):
        cv2.imwrite(str(training / f"samples-{step:06}.png"), np.full((16, 16, 3), grey, np.uint8))
    weights = tmp_path / "mini" / "weights"
    weights.mkdir(parents=True)
    asked = ["keep", str(training / "anchoring.safetensors"), "--to", str(weights), "--trainings", str(training)]
    assert main(asked) == 0
    assert load_file(weights / "dynamicid.safetensors")["layer.weight"].dtype == torch.int8
    assert np.asarray(Image.open(tmp_path / "mini" / "pictures" / "anchoring-curves.webp")).std() > 5
    assert np.asarray(Image.open(tmp_path / "mini" / "pictures" / "anchoring-samples.webp")).mean() > 190


def test_a_dynamicid_of_another_base_stands_beside_the_unets_and_says_so(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    metadata = {"format": "dynamicid-1", "base": "flux", "identity_blocks": "double"}
    save_file({"layer.weight": torch.randn(80, 64)}, tmp_path / "anchoring.safetensors", metadata)
    assert main(["keep", str(tmp_path / "anchoring.safetensors"), "--to", str(weights)]) == 0
    assert [path.name for path in weights.iterdir()] == ["dynamicid-flux.safetensors"]
    with safe_open(weights / "dynamicid-flux.safetensors", "pt") as file:
        assert file.metadata() == {**metadata, "format": ship.FORMAT}
