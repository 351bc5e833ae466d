"""Place Identity and Auto Layout: who stands where."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.sd import CLIP
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.box import Box
from ..dynamicid_core.host.boxes import descriptions, regions_from_boxes
from ..dynamicid_core.host.edit import edit_motion
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.assignment import RULES, detect_and_assign
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.image_inputs import as_pixels
from ..dynamicid_core.imr.motion import described_motion, source_motion
from ..dynamicid_core.saa.regions import Region, columns, grown, regions_about
from ..dynamicid_core.saa.scene import Placement
from .notify import warn
from .preview import CANVAS, canvas_size, scene_preview
from .sockets import MAX_PEOPLE, DynamicIDSocket, IdentitySocket, PlacementsSocket, span_inputs, weight_input

FACES = "faces in a picture"
_DYNAMICID = "From Load DynamicID: its face pack finds the faces, its imr gives people the expressions at boxes."
_ALIASES = ["region", "regional", "area", "mask", "box", "two people", "multi id", "layout"]


class PlaceIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def fraction(name: str, default: float, tooltip: str) -> io.Float.Input:
            return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)

        return io.Schema(
            node_id="DynamicIDPlace",
            display_name="Place Identity",
            category="DynamicID/regions",
            description="Gives a person a box or a mask, a weight and a part of sampling. Chain several through "
            "placements, or connect each to Apply DynamicID.",
            search_aliases=_ALIASES,
            inputs=[
                IdentitySocket.Input("identity", tooltip="Who."),
                fraction("x", 0.0, "Left edge of the box as a fraction of the picture's width."),
                fraction("y", 0.0, "Top edge of the box as a fraction of the picture's height."),
                fraction("width", 0.5, "Width of the box as a fraction of the picture's width; 0: absent."),
                fraction("height", 1.0, "Height of the box as a fraction of the picture's height; 0: absent."),
                weight_input("Strength of this person. 0: they hold their region but add nothing."),
                *span_inputs("this person will"),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where this person stands, in place of the box; any size, soft edges allowed. "
                    "An all-black mask leaves the person out.",
                ),
                PlacementsSocket.Input("placements", optional=True, tooltip="People placed before."),
            ],
            outputs=[
                PlacementsSocket.Output(display_name="placements"),
                io.Mask.Output(display_name="mask", tooltip="This person's region, for Conditioning (Set Mask)."),
                io.Image.Output(display_name="preview"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
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
        # None: Encode Identity was told to skip this person
        person = () if identity is None else (Placement(identity, region, weight, start_at, end_at),)
        scene = (*placements, *person)
        size = (CANVAS, CANVAS) if region.mask is None else (region.mask.shape[1], region.mask.shape[0])
        own = region.rasterize(size[1], size[0])
        return _placed(cls, scene, own.unsqueeze(0), size)


class AutoLayout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.Autogrow.TemplatePrefix(
            IdentitySocket.Input("person", tooltip="A person; another socket appears for the next one."),
            prefix="person_",
            min=1,
            max=MAX_PEOPLE,
        )
        boxes = [
            io.MultiType.Input(
                "boxes",
                [io.Custom("BOUNDING_BOX"), io.Custom("ARRAY")],
                tooltip="A box per person, in the same order, from Create Bounding Boxes or another box node.",
            ),
            io.Int.Input(
                "picture_width",
                default=512,
                min=1,
                max=16384,
                tooltip="Width in pixels of the picture that the boxes were drawn for.",
            ),
            io.Int.Input(
                "picture_height",
                default=512,
                min=1,
                max=16384,
                tooltip="Height in pixels of the picture that the boxes were drawn for.",
            ),
            io.Clip.Input(
                "clip",
                optional=True,
                tooltip="The checkpoint's text encoder: with it and dynamicid, what is written at a box (happy, sad, "
                "...) becomes that person's expression.",
            ),
            DynamicIDSocket.Input("dynamicid", optional=True, tooltip=_DYNAMICID),
        ]
        faces = [
            io.Image.Input("picture", tooltip="A pose picture, a sketch or a first pass that shows everybody's face."),
            DynamicIDSocket.Input("dynamicid", tooltip=_DYNAMICID),
            io.Combo.Input(
                "order",
                options=list(RULES),
                tooltip="Who gets which face: from the left, the largest first, or whoever resembles it most.",
            ),
            io.Float.Input(
                "reach",
                default=0.5,
                min=0.0,
                max=4.0,
                step=0.05,
                tooltip="How far a person's region reaches beyond the face on each side, in faces: hair and neck.",
            ),
        ]
        masks = [io.Mask.Input("masks", tooltip="A batch of masks, one per person, in the same order.")]
        return io.Schema(
            node_id="DynamicIDLayout",
            display_name="Auto Layout",
            category="DynamicID/regions",
            description="Gives each person a place: equal columns, drawn boxes, masks, or where a picture shows faces.",
            search_aliases=_ALIASES,
            inputs=[
                io.Autogrow.Input("people", template=template),
                io.DynamicCombo.Input(
                    "layout",
                    options=[
                        io.DynamicCombo.Option("columns", []),
                        io.DynamicCombo.Option("boxes", boxes),
                        io.DynamicCombo.Option("masks", masks),
                        io.DynamicCombo.Option(FACES, faces),
                    ],
                    tooltip="columns: equal strips from left to right; boxes: drawn on the host's canvas; "
                    "masks: a mask per person; faces in a picture: where a picture shows them.",
                ),
                io.Float.Input(
                    "margin",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Grow every box on each side by this part of its size; where boxes then overlap, people "
                    "share. Masks stay as they are.",
                ),
            ],
            outputs=[
                PlacementsSocket.Output(display_name="placements"),
                io.Mask.Output(display_name="masks", tooltip="One mask per person, for Conditioning (Set Mask)."),
                io.Image.Output(display_name="preview"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, people: Mapping[str, Identity | None], layout: Mapping[str, Any], margin: float = 0.0
    ) -> io.NodeOutput:
        if not people:
            raise ValueError("Auto Layout needs at least one person: connect Load Identity to its first socket.")
        size = (CANVAS, CANVAS)
        regions: Sequence[Region]
        wishes: Sequence[str] = ()
        backdrop: Tensor | None = None
        if layout["layout"] == "columns":
            regions = columns(len(people))
        elif layout["layout"] == "boxes":
            width, height = layout["picture_width"], layout["picture_height"]
            regions = regions_from_boxes(layout["boxes"], width, height)
            wishes = descriptions(layout["boxes"])
            size = canvas_size(width, height)
        elif layout["layout"] == FACES:
            backdrop = layout["picture"][0, ..., :3].expand(-1, -1, 3).cpu()
            picture = as_pixels(layout["picture"][:1])[0]
            height, width = picture.shape[:2]
            faces, spare = detect_and_assign(list(people.values()), picture, layout["order"], layout["dynamicid"].faces)
            boxes = [None if face is None else face.box.to_fractions(width, height) for face in faces]
            regions = regions_about(boxes, layout["reach"])
            if spare:
                warn(cls, f"{spare} of the picture's faces are nobody's: there are {len(people)} people.")
            size = canvas_size(width, height)
        else:
            masks = layout["masks"]
            regions = [Region(mask=mask) for mask in (masks if masks.ndim == 3 else masks[None])]
            size = (masks.shape[-1], masks.shape[-2])
        if len(regions) != len(people):
            raise ValueError(
                f"Auto Layout got {len(people)} people but {len(regions)} {layout['layout']}. "
                "Give each person one, in the same order."
            )
        regions = [grown(region, margin) for region in regions]
        shown = [*people.values()]
        if any(wishes):
            shown = _as_described(cls, shown, wishes, layout.get("clip"), layout.get("dynamicid"))
        scene = tuple(
            Placement(person, region)
            for person, region in zip(shown, regions, strict=True)
            if person is not None  # whom Encode Identity was told to skip: their place stays free
        )
        masks = torch.stack([region.rasterize(size[1], size[0]) for region in regions])
        return _placed(cls, scene, masks, size, backdrop)


def _as_described(
    cls: type[io.ComfyNode],
    people: Sequence[Identity | None],
    wishes: Sequence[str],
    clip: CLIP | None,
    dynamicid: DynamicID | None,
) -> list[Identity | None]:
    """The people, each with the expression that is written at their box."""
    if clip is None or dynamicid is None:
        written = ", ".join(filter(None, wishes))
        warn(cls, f"the boxes ask for expressions ({written}): connect clip and dynamicid too, or nobody changes.")
        return [*people]
    return [
        edit_motion(person, dynamicid, clip, source_motion(person.face), described_motion(person.face, wish))
        if person is not None and wish
        else person
        for person, wish in zip(people, wishes, strict=True)
    ]


def _placed(
    cls: type[io.ComfyNode],
    scene: tuple[Placement, ...],
    masks: Tensor,
    size: tuple[int, int],
    backdrop: Tensor | None = None,
) -> io.NodeOutput:
    absent = [placement.identity.name or "a person" for placement in scene if placement.is_absent]
    if absent:
        warn(cls, f"{', '.join(absent)} will be absent: the region or the part of sampling is empty.")
    preview = scene_preview(scene, *canvas_size(*size), backdrop)
    return io.NodeOutput(scene, masks, preview, ui=ui.PreviewImage(preview, cls=cls))
