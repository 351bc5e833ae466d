"""Model files of full size with generated weights, made once per machine, and the golden data's UNet.

Weights are drawn by the golden data's rule (`tests/golden`), so that every machine has the same ones.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..support import generated_weights
from . import faceid, shapes

VERSION = "1"
"""Part of the folder's name: raised when anything here changes what the files hold."""

UNET_SEED, SAA_SEED = 20271, 20272  # the golden data's
TEXT_SEED, VAE_SEED, CONTROLNET_SEED, LORA_SEED, FACE_ENCODER_SEED = 20281, 20282, 20283, 20284, 20285
VISION_SEED, IMR_SEED, KEYPOINT_SEED = 20286, 20287, 20288
RANK, TOKENS, WIDTH = 128, 4, 768
LORA_RANK = 4
FACEID = "FaceID Plus v2"


def cache_folder() -> Path:
    """Where this project keeps what is made once per machine: DYNAMICID_DEV_HOME, or the platform's cache folder."""
    if chosen := os.environ.get("DYNAMICID_DEV_HOME"):
        return Path(chosen)
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return caches / "dynamicid-dev"


@dataclass(frozen=True)
class GeneratedFiles:
    """Safetensors files in float16, each in the layout in which users have it."""

    checkpoint: Path
    """SD1.5: UNet, CLIP-L, VAE; single file, ldm names."""
    adapter: Path
    """DynamicID: `proj_module.*`, `SAA_module.*` in the release's shapes."""
    controlnet: Path
    """An SD1.5 ControlNet, cldm names; its zero convolutions are not zero, so it has an effect."""
    lora: Path
    """An ordinary SD1.5 LoRA, kohya names, on every cross-attention's to_k and one text layer."""
    imr: Path
    """IMR alone, in the release's shapes; its keypoint encoder lies beside it, named as the release does."""
    clip_vision: Path
    """CLIP ViT-H, transformers' names."""
    faceid: Path
    """IP-Adapter FaceID Plus v2 for SD1.5, under its publisher's name."""


def generated_files() -> GeneratedFiles:
    """The files, each made where it is missing (about a minute for all on two cores, 5 GB on disk)."""
    folder = cache_folder() / f"generated-{VERSION}"
    files = GeneratedFiles(
        checkpoint=folder / "generated_sd15.safetensors",
        adapter=folder / "generated_dynamicid.safetensors",
        controlnet=folder / "generated_controlnet.safetensors",
        lora=folder / "generated_lora.safetensors",
        imr=folder / "generated_IMR.safetensors",
        clip_vision=folder / "generated_vit_h.safetensors",
        faceid=folder / faceid.name_of(FACEID),
    )
    _make(files.checkpoint, _checkpoint)
    _make(files.adapter, adapter_state)
    _make(files.controlnet, lambda: generated_weights(shapes.controlnet(shapes.SD15), CONTROLNET_SEED))
    _make(files.lora, lambda: lora(shapes.SD15, WIDTH))
    _make(files.imr, lambda: generated_weights(shapes.imr(), IMR_SEED))
    _make(keypoint_encoder_of(files.imr), lambda: generated_weights(shapes.keypoint_encoder(), KEYPOINT_SEED))
    _make(files.clip_vision, lambda: generated_weights(shapes.clip_vision(), VISION_SEED))
    _make_by(files.faceid, lambda path: torch.save(faceid_halves(shapes.SD15), path))
    return files


def faceid_halves(config: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """A FaceID Plus v2 for a UNet of this config in the real ones' shapes, float16."""
    return faceid.state(FACEID, config, faceid.REAL, torch.float16)


def keypoint_encoder_of(imr: Path) -> Path:
    """The second file of the two."""
    return imr.with_name(imr.name.replace("IMR", "key_point_encoder"))


def golden_unet_state() -> dict[str, torch.Tensor]:
    """The golden data's full-size UNet in diffusers' names, float32 (3.4 GB)."""
    return generated_weights(shapes.diffusers_unet(shapes.SD15), UNET_SEED)


def unet_patcher(state: dict[str, torch.Tensor]) -> Any:
    """The host's ModelPatcher around a float32 copy of these weights, as its own loader makes it."""
    import comfy.sd

    # the loader takes entries out of the dict it is given
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(state), model_options={"dtype": torch.float32})
    assert patcher is not None, "the host does not know this UNet"
    return patcher


def adapter_state() -> dict[str, torch.Tensor]:
    """An adapter in the release's shapes, float32: the golden data's SAA weights and a face encoder."""
    saa = {name.removeprefix("SAA_module."): shape for name, shape in shapes.saa(shapes.SD15, RANK).items()}
    drawn = {f"SAA_module.{name}": tensor for name, tensor in generated_weights(saa, SAA_SEED).items()}
    encoder = shapes.face_encoder(WIDTH, tokens=TOKENS, embedding=512, hidden=1024, clip_dim=1280)
    return drawn | generated_weights(encoder, FACE_ENCODER_SEED)


def _checkpoint() -> dict[str, torch.Tensor]:
    names = shapes.unet_names(shapes.SD15)
    unet = golden_unet_state()
    state = {}
    for name in list(unet):  # converted one by one, so that the two copies of the UNet never stand side by side
        state[f"model.diffusion_model.{names[name]}"] = unet.pop(name).half()
    text = generated_weights(shapes.text_encoder(), TEXT_SEED)
    vae = generated_weights(shapes.vae(), VAE_SEED)
    state |= {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}
    return state | {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}


def lora(config: dict[str, Any], width: int) -> dict[str, torch.Tensor]:
    """An ordinary LoRA for a UNet and a text encoder `width` wide: kohya names, every to_k and one text layer."""
    wanted = {
        f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": shape
        for name, shape in shapes.diffusers_unet(config).items()
        if name.endswith("attn2.to_k.weight")
    }
    wanted["lora_te_text_model_encoder_layers_0_self_attn_q_proj"] = (width, width)
    drawn: shapes.Shapes = {}
    for name, (out, into) in wanted.items():
        drawn |= {f"{name}.lora_down.weight": (LORA_RANK, into), f"{name}.lora_up.weight": (out, LORA_RANK)}
    state = generated_weights(drawn, LORA_SEED)
    return state | {f"{name}.alpha": torch.tensor(float(LORA_RANK)) for name in wanted}


def _make(path: Path, weights: Callable[[], dict[str, torch.Tensor]]) -> None:
    """Write the weights in float16 where the file is missing."""
    _make_by(path, lambda part: save_file({name: t.half().contiguous() for name, t in weights().items()}, part))


def _make_by(path: Path, write: Callable[[Path], None]) -> None:
    """Write the file where it is missing; under its final name it is always whole."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
