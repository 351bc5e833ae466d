"""The model files of a server: the miniature's own, or generated ones of full size."""

from pathlib import Path

import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.host.miniature import load_miniature
from dynamicid_pack.mini.networks import CONTEXT_DIM, UNET
from dynamicid_pack.tests.core.classifiers import classifier_file
from safetensors.torch import save_file

from . import faceid, full_size
from .graphs import EXPRESSION_MODEL, MINIATURE
from .server import link


def put_full_size(models: Path) -> None:
    """Link the generated files, made where they are missing, into a folder of model folders."""
    put_expression_model(models)
    generated = full_size.generated_files()
    for folder, file in (
        ("checkpoints", generated.checkpoint),
        ("dynamicid", generated.adapter),
        ("dynamicid", generated.faceid),
        ("dynamicid", generated.imr),
        ("dynamicid", full_size.keypoint_encoder_of(generated.imr)),
        ("clip_vision", generated.clip_vision),
        ("controlnet", generated.controlnet),
        ("loras", generated.lora),
    ):
        link(file, models / folder / file.name)


def put_expression_model(models: Path) -> None:
    """Write a small expression model, which tells gray values apart, to where Load DynamicID looks for it."""
    classifier_file(models / "dynamicid" / folders.EXPRESSION / EXPRESSION_MODEL)


def put_miniature(models: Path) -> None:
    """Write the miniature's adapter, its IMR, a LoRA for it and its expression model into a folder of model folders.

    The adapter lies there as FaceID Plus v2, too, under the names that its publisher gives those for SD1.5 and SDXL.

    Its base model comes from Load DynamicID Mini; the checkpoint is there only for tests that must not reach it.
    """
    for folder in ("checkpoints", "dynamicid", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    put_expression_model(models)
    whole = load_miniature().dynamicid.checkpoint
    adapter = models / "dynamicid" / MINIATURE.adapter
    save_checkpoint(Checkpoint(whole.adapter, whole.face_encoder, None, None), adapter)
    save_checkpoint(Checkpoint(None, None, whole.imr, whole.keypoint_encoder), models / "dynamicid" / MINIATURE.imr)
    assert whole.adapter is not None and whole.face_encoder is not None
    halves = {"image_proj": whole.face_encoder, "ip_adapter": whole.adapter.weights}
    for base in ("sd15", "sdxl"):
        torch.save(halves, models / "dynamicid" / faceid.name_of(full_size.FACEID, base))
    # three times as strong: trained weights are larger than those that the other LoRA is generated for
    lora = {
        name: 3 * tensor if "lora_up" in name else tensor for name, tensor in full_size.lora(UNET, CONTEXT_DIM).items()
    }
    save_file({name: tensor.contiguous() for name, tensor in lora.items()}, models / "loras" / MINIATURE.lora)
    link(adapter, models / "checkpoints" / "elsewhere.safetensors")


def encoder_fingerprint(adapter: Path) -> str:
    """Return what identities made for this adapter carry in their metadata."""
    loaded = load_checkpoint(adapter).adapter
    assert loaded is not None and loaded.encoder_fingerprint
    return loaded.encoder_fingerprint
