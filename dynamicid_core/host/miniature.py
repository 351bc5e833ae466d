"""The shipped miniature as the host's own objects, and the DynamicID that fits it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_management as memory
import comfy.supported_models
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import BASE
from torch import Tensor

from ...mini.networks import CONTEXT_DIM, FLUX, FLUX_SHIFT, TEXT, UNET, with_all_rows
from ...mini.quantize import dequantize
from ..checkpoint import load_checkpoint
from ..expression_classifier import ExpressionClassifier
from ..identity.analyzer import load_analyzer
from ..tensor_file import read_tensors
from .lora import IN_GROUPS
from .models import DynamicID, load_dynamicid

FORMAT = "dynamicid-mini-1"  # of the miniature's DynamicID, quantized
WEIGHTS = Path(__file__).resolve().parents[2] / "mini" / "weights"
BASES = {"UNet": ("unet", "dynamicid"), "Flux": ("flux", "dynamicid-flux")}
"""Base models that the miniature may draw with: the files, without suffix, of each and of the DynamicID for it."""

DEFAULT_BASE = "UNet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Miniature:
    """The outputs of Load DynamicID Mini; 128x128 pixels are 16x16 latent cells, as in SD1.5."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    dynamicid: DynamicID


def bases(folder: Path = WEIGHTS) -> list[str]:
    """Return those of BASES whose weights are there."""
    return [name for name, (network, _) in BASES.items() if (folder / f"{network}.safetensors").is_file()]


def load_miniature(folder: Path = WEIGHTS, adapter: Path | None = None, base: str = DEFAULT_BASE) -> Miniature:
    """Load what `python -m mini ship` and `keep` wrote.

    Args:
        adapter: a DynamicID that was trained for the miniature, in place of the one that came with it.
        base: of BASES, what it draws with.

    Raises:
        FileNotFoundError: a file of the pack is missing.
        ValueError: a file is damaged, or the adapter file holds no adapter.
    """
    network, own = BASES[base]
    if base != DEFAULT_BASE and base not in bases(folder):
        raise FileNotFoundError(
            f"expected {folder / network}.safetensors, the miniature's {base}, which this version of the pack does not "
            f"ship. Choose {DEFAULT_BASE} as base, or train it: python -m mini train --stage {network}, then python -m "
            "mini ship (docs/training.md)."
        )
    if base != DEFAULT_BASE and not adapter and not (folder / f"{own}.safetensors").exists():
        own = BASES[DEFAULT_BASE][1]
        logger.warning(
            f"The pack ships no DynamicID for the miniature's {base}: dynamicid is the UNet's, which Apply DynamicID "
            "refuses there. Choose one that you trained for it as adapter."
        )
    text, vision = _weights(folder, "text"), _weights(folder, "vision")
    classifier = folder / "expression.onnx"
    vae = VAE(sd=_weights(folder, "autoencoder"))
    model = _patcher(_config(base), _weights(folder, network))
    dynamicid = replace(
        load_dynamicid(adapter) if adapter else _dynamicid(folder / f"{own}.safetensors"),
        load_vision=partial(_vision, folder / "vision.json", vision),
        load_faces=partial(load_analyzer, folder / "face-pack", embeds_rgb=False),
        load_expression=partial(ExpressionClassifier, classifier, "CPU") if classifier.is_file() else None,
        embeds_rgb=False,
        # mini/RESULTS.md: a layout phase costs faces, and the LoRA, which has seen one person in each picture, counts.
        layout_steps=0,
        lora_in_groups=IN_GROUPS,
        size=128,
    )
    return Miniature(model, _clip(with_all_rows(text)), vae, dynamicid)


def _weights(folder: Path, name: str) -> dict[str, Tensor]:
    return dequantize(read_tensors(folder / f"{name}.safetensors")[0])


def _config(base: str) -> BASE:
    """Return the host's settings of a base model."""
    if base == "UNet":
        config: BASE = comfy.supported_models.SD15(dict(UNET))
        config.unet_config.update(UNET)  # the class sets eight heads, whatever it is given
        return config
    config = comfy.supported_models.FluxSchnell(dict(FLUX))  # the Flux without distilled guidance
    config.sampling_settings["shift"] = FLUX_SHIFT
    config.latent_format = comfy.latent_formats.SD15()  # of the autoencoder that both bases share
    return config


def _patcher(config: BASE, weights: dict[str, Tensor]) -> ModelPatcher:
    """Build the model as the host's loader does, without its detection, which knows only the real models' sizes."""
    device, parked, kinds = memory.get_torch_device(), memory.unet_offload_device(), config.supported_inference_dtypes
    count = sum(tensor.numel() for tensor in weights.values())
    dtype = memory.unet_dtype(model_params=count, supported_dtypes=kinds)
    config.set_inference_dtype(dtype, memory.unet_manual_cast(dtype, device, kinds))
    model = config.get_model(weights, "")
    patcher = ModelPatcher(model, load_device=device, offload_device=parked)
    model.to(parked)
    names = model.diffusion_model.state_dict()
    # What Flux's norms of queries and keys are scaled by has had another name in older hosts.
    old = {name: name.removesuffix("weight") + "scale" for name in weights if name not in names}
    model.load_model_weights({old.get(name, name): tensor for name, tensor in weights.items()}, "")
    return patcher


def _clip(weights: dict[str, Tensor]) -> CLIP:
    # As for SD1.5, the pooled text is the encoder's own, without CLIP's projection.
    network = partial(SDClipModel, textmodel_json_config=dict(TEXT), return_projected_pooled=False)
    target = SimpleNamespace(
        params={},
        clip=partial(SD1ClipModel, clip_model=network),
        tokenizer=partial(SD1Tokenizer, tokenizer=partial(SDTokenizer, embedding_size=CONTEXT_DIM)),
    )
    return CLIP(target, parameters=sum(tensor.numel() for tensor in weights.values()), state_dict=[weights])


def _vision(config: Path, weights: dict[str, Tensor]) -> ClipVisionModel:
    model = ClipVisionModel(str(config))  # older hosts take only a file
    model.load_sd(weights)
    return model


def _dynamicid(path: Path) -> DynamicID:
    checkpoint = load_checkpoint(path, file_format=FORMAT, decode=dequantize)
    assert checkpoint.adapter is not None
    return DynamicID(checkpoint.adapter, checkpoint)
