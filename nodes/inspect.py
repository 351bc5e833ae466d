"""Activation Map: who claims which pixels."""

from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.host.activation import activation_maps, applied_scene
from .preview import labelled, overlay

AVERAGE = "average"

# SD1.5's cross-attentions, as the host names them, in the order in which a picture passes through them.
_LAYERS = (
    *(f"input {number}" for number in (1, 2, 4, 5, 7, 8)),
    "middle 0",
    *(f"output {number}" for number in range(3, 12)),
)

# The latent's cells are this many pixels wide.
_LATENT_SCALE = 8


class ActivationMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDActivationMap",
            display_name="Activation Map",
            category="DynamicID/inspect",
            description="Shows where each person is drawn: noises the latent to one point of sampling and calls the "
            "model once. Costs nothing while sampling.",
            search_aliases=["attention map", "heatmap", "debug", "same face"],
            inputs=[
                io.Model.Input("model", tooltip="The model of Apply DynamicID."),
                io.Conditioning.Input("positive", tooltip="The prompt of the picture."),
                io.Latent.Input("latent", tooltip="The finished latent of the KSampler."),
                io.Float.Input(
                    "at",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Point of sampling to look at: 0 is the first step, 1 the finished picture.",
                ),
                io.Combo.Input(
                    "layer",
                    options=[AVERAGE, *_LAYERS],
                    default=AVERAGE,
                    tooltip="One cross-attention layer, or the average of all.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The finished picture, to lay the maps over; black without."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="overlay", tooltip="One picture per person."),
                io.Mask.Output(display_name="maps", tooltip="One map per person: 0 left alone, 1 fully theirs."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list[Any],
        latent: dict[str, Any],
        at: float,
        layer: str = AVERAGE,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        name, _, number = layer.partition(" ")
        block = None if layer == AVERAGE else (name, int(number))
        maps = activation_maps(model, positive, latent, at, block)
        if image is not None:
            picture = image[0, ..., :3].cpu()
        else:
            picture = torch.zeros(maps.shape[-2] * _LATENT_SCALE, maps.shape[-1] * _LATENT_SCALE, 3)
        maps = F.interpolate(maps[None], size=picture.shape[:2], mode="bilinear", align_corners=False)[0].clamp(0, 1)
        scene = applied_scene(model).scene
        overlays = torch.cat(
            [
                labelled(overlay(picture, _only(maps, person)), [(_label(scene, person), maps[person])])
                for person in range(len(maps))
            ]
        )
        return io.NodeOutput(overlays, maps, ui=ui.PreviewImage(overlays, cls=cls))


def _only(maps: Tensor, person: int) -> list[Tensor]:
    """All maps, those of the others blank, so that each person keeps their colour."""
    return [share if number == person else torch.zeros_like(share) for number, share in enumerate(maps)]


def _label(scene: Any, person: int) -> str:
    return scene[person].identity.name or f"person {person + 1}"
