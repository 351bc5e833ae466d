"""Both stages on a tiny SDXL: its configuration differs in the base model's folder alone."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.training.__main__ import main
from dynamicid_pack.dynamicid_core.training.base_model import load_base_model
from dynamicid_pack.dynamicid_core.training.denoise import predict_noise
from dynamicid_pack.dynamicid_core.training.saa import SAA

from .conftest import POOLED, WIDTH, WIDTH_2

GATE = SimpleNamespace(gate=True, gate_threshold=0.3)


@torch.no_grad()
def test_text_is_both_encoders_and_the_seconds_pooled(xl_folder: Path) -> None:
    base = load_base_model(xl_folder)
    text = base.text(["a", "b, c"])
    ids = base.tokenizers[0](["a"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    first, second = (encoder(ids, output_hidden_states=True) for encoder in base.text_encoders)
    assert text.states.shape == (2, 77, WIDTH + WIDTH_2) and base.token_dim == WIDTH + WIDTH_2
    expected = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    assert torch.allclose(text.states[0], expected[0], atol=1e-6)
    assert text.pooled.shape == (2, POOLED) and base.pooled_dim == POOLED
    assert torch.allclose(text.pooled[0], second.text_embeds[0], atol=1e-6)


@torch.no_grad()
def test_the_beginning_is_the_frozen_unets_bit_for_bit(xl_folder: Path) -> None:
    base, frozen = load_base_model(xl_folder), UNet2DConditionModel.from_pretrained(xl_folder / "unet").eval()
    torch.manual_seed(1)
    noisy, times, text = torch.randn(2, 4, 8, 12), torch.tensor([3, 700]), base.text(["a", "b, c"])
    SAA.of(base.network, 2).install(base.network)
    sizes = torch.tensor([[64.0, 96, 0, 0, 64, 96]] * 2)
    added = {"text_embeds": text.pooled, "time_ids": sizes}
    expected = frozen(noisy, times, text.states, added_cond_kwargs=added).sample
    assert torch.equal(predict_noise(base, noisy, times, text, None, GATE), expected)  # type: ignore[arg-type]
    other = frozen(noisy, times, text.states, added_cond_kwargs=added | {"time_ids": sizes * 2}).sample
    assert not torch.allclose(other, expected), "sizes are read"


def test_both_stages_train(recipe: Callable[..., Path], tmp_path: Path, xl_folder: Path) -> None:
    assert main(["anchor", "--config", str(recipe("anchored", base=str(xl_folder), steps=2))]) == 0
    anchored = tmp_path / "anchored" / "anchoring.safetensors"
    adapter = load_checkpoint(anchored).adapter
    assert adapter is not None and adapter.text_dim == adapter.token_dim == WIDTH + WIDTH_2
    assert any(bool(adapter.weights[f"1.{name}_lora.up.weight"].any()) for name in ("to_q", "to_v"))
    shared = json.loads((tmp_path / "anchored.json").read_text())
    kept = {key: shared[key] for key in ("base", "size", "learning_rate", "save_every", "sample_every")}
    edit = kept | {
        "data": str(wide_tokens(Path(shared["data"]), tmp_path / "wide")), "output": "edit", "steps": 2,
        "adapter": str(anchored), "targets": 2, "dim": 64, "latents": 2, "dim_head": 32, "keypoint_output": 8,
        "keypoint_dims": [4, 4, 4, 4, 4, 8], "keypoint_depths": [1, 1, 1, 1, 1, 1],
    }  # fmt: skip
    (tmp_path / "edit.json").write_text(json.dumps(edit))
    assert main(["reconfigure", "--config", str(tmp_path / "edit.json")]) == 0
    whole = load_checkpoint(tmp_path / "edit" / "reconfiguration.safetensors")
    assert whole.imr is not None and whole.adapter is not None


def wide_tokens(shards: Path, folder: Path) -> Path:
    """The shards with identity tokens of this base's channels."""
    folder.mkdir()
    for shard in shards.glob("*.tar"):
        with tarfile.open(shard) as source, tarfile.open(folder / shard.name, "w") as target:
            for member in source:
                content = source.extractfile(member)
                assert content is not None
                data = content.read()
                if member.name.endswith(".tokens.npy"):
                    tokens = np.load(io.BytesIO(data))
                    wide = io.BytesIO()
                    np.save(wide, np.concatenate([tokens, tokens[:, :WIDTH_2]], axis=1))
                    data = wide.getvalue()
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("missing", ["text_encoder_2", "tokenizer_2"])
def test_half_an_sdxl_is_told(missing: str, xl_folder: Path, tmp_path: Path) -> None:
    for part in xl_folder.iterdir():
        if part.name != missing:
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(ValueError, match="one model, SD1.5 or SDXL" if missing == "text_encoder_2" else "tokenizer_2"):
        load_base_model(tmp_path)
