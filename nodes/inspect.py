"""Activation Map: where each person is drawn, and how strongly."""

from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.host.activation import activation_maps, applied_scene
from ..dynamicid_core.saa.scene import names_of
from .door import checked
from .preview import labeled, overlay
from .sockets import choice, number

AVERAGE = "average"

# Where SD1.5 has cross-attention, as the host names it, in the order in which an image passes through; SDXL has it at
# some of these and at three more.
_LAYERS = (
    *(f"input {index}" for index in (1, 2, 4, 5, 7, 8)),
    "middle 0",
    *(f"output {index}" for index in (*range(3, 12), 0, 1, 2)),
)

# The side of a latent's cell in pixels.
_LATENT_SCALE = 8


class ActivationMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        at = "Point of sampling to look at: 0 is the first step, 1 the finished picture."
        layer = "One cross-attention layer, or the average of all."
        image = "The finished picture, to lay the maps over; without it they lie on black."
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
                number("at", 0.5, at),
                choice("layer", [AVERAGE, *_LAYERS], layer),
                io.Image.Input("image", optional=True, tooltip=image),
            ],
            outputs=[
                io.Image.Output(display_name="overlay", tooltip="One picture per person, each in their own color."),
                io.Mask.Output(display_name="maps", tooltip="One map per person: 0 left alone, 1 fully theirs."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: ModelPatcher,
        positive: list[Any],
        latent: dict[str, Any],
        at: float,
        layer: str = AVERAGE,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        name, _, index = layer.partition(" ")
        maps = activation_maps(model, positive, latent, at, None if layer == AVERAGE else (name, int(index)))
        if image is not None:
            base = image[0]
        else:
            base = torch.zeros(maps.shape[-2] * _LATENT_SCALE, maps.shape[-1] * _LATENT_SCALE, 3)
        maps = F.interpolate(maps[None], size=base.shape[:2], mode="bilinear", align_corners=False)[0].clamp(0, 1)
        overlays = []
        for person, label in enumerate(names_of(applied_scene(model).scene)):
            others_blank = torch.zeros_like(maps)  # each person keeps their color
            others_blank[person] = maps[person]
            overlays.append(labeled(overlay(base, [*others_blank]), [(label, maps[person])]))
        sheets = torch.cat(overlays)
        return io.NodeOutput(sheets, maps, ui=ui.PreviewImage(sheets, cls=cls))
