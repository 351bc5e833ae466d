"""Place Identity: one person's place."""

from collections.abc import Sequence

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.box import Box
from ..dynamicid_core.host.layout import CANVAS, canvas_size
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.saa.regions import Region
from ..dynamicid_core.saa.scene import Placement
from .door import checked
from .notify import warn
from .preview import scene_preview
from .sockets import REGION_ALIASES, IdentitySocket, PlacementsSocket, number, span_inputs, weight_input


class PlaceIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDPlace",
            display_name="Place Identity",
            category="DynamicID/regions",
            description="Gives a person a box or a mask, a weight and a span of sampling. Chain several through "
            "placements, or connect each to Apply DynamicID.",
            search_aliases=REGION_ALIASES,
            inputs=[
                IdentitySocket.Input("identity", tooltip="The person to place."),
                number("x", 0.0, "Left edge of the box as a fraction of the picture's width."),
                number("y", 0.0, "Top edge of the box as a fraction of the picture's height."),
                number("width", 0.5, "Width of the box as a fraction of the picture's width; 0: absent."),
                number("height", 1.0, "Height of the box as a fraction of the picture's height; 0: absent."),
                weight_input("Strength of this person. 0: they hold their region but add nothing."),
                *span_inputs("this person starts", "this person stops"),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where this person stands, in place of the box; any size, soft edges allowed. "
                    "An all-black mask leaves the person out. A batch of masks moves the person: one for each frame "
                    "of the batch that is sampled, the last one stays.",
                ),
                PlacementsSocket.Input("placements", optional=True, tooltip="People placed before."),
            ],
            outputs=[
                PlacementsSocket.Output(display_name="placements", tooltip="Those placed before, and this person."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="This person's region, for Conditioning (Set Mask); a batch if it moves.",
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="All regions so far with the people's names; if any moves, some moments.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        identity: Identity | None,
        x: float,
        y: float,
        width: float,
        height: float,
        weight: float,
        start_at: float,
        end_at: float,
        mask: Tensor | None = None,
        placements: Sequence[Placement] = (),
    ) -> io.NodeOutput:
        region = Region(box=Box.from_xywh(x, y, width, height)) if mask is None else Region(mask=mask)
        # None: Encode Identity skipped this person
        person = () if identity is None else (Placement(identity, region, weight, start_at, end_at),)
        grid = (CANVAS, CANVAS) if region.mask is None else region.mask.shape[-2:]
        masks = torch.stack([region.at(frame).rasterize(*grid) for frame in range(region.frames)])
        return placements_output(cls, (*placements, *person), masks)


def placements_output(
    node: type[io.ComfyNode], scene: tuple[Placement, ...], masks: Tensor, backdrop: Tensor | None = None
) -> io.NodeOutput:
    """Return a scene, its masks (n, H, W) and a preview; a warning names people who can't appear."""
    absent = [placement.identity.name or "a person" for placement in scene if placement.is_absent]
    if absent:
        warn(node, f"{', '.join(absent)} will be absent: the region or the span of sampling is empty.")
    preview = scene_preview(scene, *canvas_size(masks.shape[2], masks.shape[1]), backdrop)
    return io.NodeOutput(scene, masks, preview, ui=ui.PreviewImage(preview, cls=node))
