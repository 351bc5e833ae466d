"""Auto Layout: a place for each person at once."""

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..dynamicid_core.host.layout import BOXES, COLUMNS, FACES, MASKS, lay_out
from ..dynamicid_core.identity.assignment import RULES
from ..dynamicid_core.identity.identity import Identity
from .door import checked
from .notify import warn
from .page import warn_of_lost_people
from .place import placements_output
from .sockets import REGION_ALIASES, DynamicIDSocket, IdentitySocket, PlacementsSocket, choice, number, people_input


def _picture_side(name: str, side: str) -> io.Int.Input:
    tooltip = f"{side} in pixels of the picture that the boxes were drawn for."
    return io.Int.Input(name, default=512, min=1, max=16384, tooltip=tooltip, optional=True)


def _options() -> list[io.DynamicCombo.Option]:
    """Return the layouts with the inputs that each needs."""
    dynamicid = "From Load DynamicID: its face pack finds the faces, its imr gives people the expressions at boxes."
    box = "A box for each person, in the same order, from Create Bounding Boxes or another box node."
    rule = "Who gets which face: from the left, the largest first, or whoever is most similar."
    boxes = [
        io.MultiType.Input("boxes", [io.Custom("BOUNDING_BOX"), io.Custom("ARRAY")], tooltip=box),
        _picture_side("picture_width", "Width"),
        _picture_side("picture_height", "Height"),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="The checkpoint's text encoder: with it and dynamicid, what is written at a box (happy, "
            "sad 0.5, ...) becomes that person's expression.",
        ),
        DynamicIDSocket.Input("dynamicid", optional=True, tooltip=dynamicid),
    ]
    faces = [
        io.Image.Input("picture", tooltip="A pose picture, a sketch or a first pass that shows everybody's face."),
        DynamicIDSocket.Input("dynamicid", tooltip=dynamicid),
        choice("order", RULES, rule),
        number(
            "reach",
            0.5,
            "How far a person's region extends beyond the face on each side, in faces: room for hair and neck.",
            high=4.0,
            step=0.05,
        ),
    ]
    masks = [io.Mask.Input("masks", tooltip="A batch of masks, one for each person, in the same order.")]
    inputs = {COLUMNS: [], BOXES: boxes, MASKS: masks, FACES: faces}
    return [io.DynamicCombo.Option(layout, needed) for layout, needed in inputs.items()]


class AutoLayout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDLayout",
            display_name="Auto Layout",
            category="DynamicID/regions",
            description="Gives each person a place: equal columns, drawn boxes, masks, or where a picture shows faces.",
            search_aliases=REGION_ALIASES,
            inputs=[
                people_input(
                    IdentitySocket.Input(
                        "person", tooltip="A person; another socket appears for the next one.", optional=True
                    )
                ),
                io.DynamicCombo.Input(
                    "layout",
                    options=_options(),
                    tooltip="columns: equal strips from left to right; boxes: drawn on the host's canvas; "
                    "masks: a mask for each person; faces in a picture: where a picture shows them.",
                ),
                number(
                    "margin",
                    0.0,
                    "Grows every box on each side by this fraction of its size. Where boxes then overlap, people "
                    "share. Masks stay as they are.",
                ),
            ],
            outputs=[
                PlacementsSocket.Output(display_name="placements", tooltip="Everybody placed, for Apply DynamicID."),
                io.Mask.Output(display_name="masks", tooltip="A mask for each person, for Conditioning (Set Mask)."),
                io.Image.Output(display_name="preview", tooltip="The regions with the people's names."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(
        cls, people: Mapping[str, Identity | None], layout: Mapping[str, Any], margin: float = 0.0
    ) -> io.NodeOutput:
        laid_out = lay_out([*people.values()], layout, margin)
        for warning in laid_out.warnings:
            warn(cls, warning)
        output = placements_output(cls, laid_out.scene, laid_out.masks, laid_out.backdrop)
        warn_of_lost_people(cls)
        return output
