"""Auto Layout: a region for each person, from columns, boxes, masks or the faces of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..identity.assignment import MOST_SIMILAR, detect_and_assign, embedded_otherwise
from ..identity.identity import Identity
from ..image_inputs import as_pixels
from ..imr.motion import source_motion
from ..imr.motion_text import described_motion
from ..saa.regions import Region, columns, grown, regions_about
from ..saa.scene import Placement
from .boxes import descriptions, regions_from_boxes
from .edit import edit_motion

# Longer side of masks made from boxes, in pixels; regional prompts scale masks to the latent.
CANVAS = 512

COLUMNS, BOXES, MASKS, FACES = LAYOUTS = ("columns", "boxes", "masks", "faces in a picture")


@dataclass(frozen=True, eq=False)
class Layout:
    """People with their places.

    Attributes:
        scene: without those whom Encode Identity skipped; their region stays free.
        masks: (people, H, W), one for each person, also for those who were skipped.
        backdrop: (H, W, 3) in [0, 1], the image whose faces gave the places.
        warnings: for the user.
    """

    scene: tuple[Placement, ...]
    masks: Tensor = field(repr=False)
    backdrop: Tensor | None = field(default=None, repr=False)
    warnings: Sequence[str] = ()


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a canvas with the aspect of an image."""
    scale = CANVAS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def lay_out(people: Sequence[Identity | None], layout: Mapping[str, Any], margin: float = 0.0) -> Layout:
    """Give each person a region.

    Args:
        people: None is someone whom Encode Identity skipped.
        layout: the node's inputs under `layout`, whose `layout` is one of LAYOUTS.
        margin: part of its size by which every box grows on each side.

    Raises:
        ValueError: nobody is there, regions are fewer or more than people, or an input is malformed.
    """
    if not people:
        raise ValueError("Auto Layout needs at least one person: connect Load Identity to its first socket.")
    method = layout["layout"]
    regions: Sequence[Region]
    size, backdrop, warnings = (CANVAS, CANVAS), None, []
    if method == COLUMNS:
        regions = columns(len(people))
    elif method == BOXES:
        width, height = layout["picture_width"], layout["picture_height"]
        regions, size = regions_from_boxes(layout["boxes"], width, height), canvas_size(width, height)
    elif method == FACES:
        backdrop = layout["picture"][0]
        image = as_pixels(layout["picture"][:1])[0]
        height, width = image.shape[:2]
        if layout["order"] == MOST_SIMILAR:
            note = embedded_otherwise(people, layout["dynamicid"].adapter.encoding)
            warnings += [note] if note else []
        faces, unassigned = detect_and_assign(people, image, layout["order"], layout["dynamicid"].faces)
        boxes = [None if face is None else face.box.to_fractions(width, height) for face in faces]
        regions, size = regions_about(boxes, layout["reach"]), canvas_size(width, height)
        if unassigned:
            warnings.append(f"{unassigned} of the picture's faces belong to nobody: there are {len(people)} people.")
    else:
        masks = layout["masks"]
        regions = [Region(mask=mask) for mask in (masks if masks.ndim == 3 else masks[None])]
        size = (masks.shape[-1], masks.shape[-2])
    if len(regions) != len(people):
        raise ValueError(
            f"Auto Layout got {len(people)} people but {len(regions)} {method}. "
            "Give each person one, in the same order."
        )
    regions = [grown(region, margin) for region in regions]
    wishes = descriptions(layout["boxes"]) if method == BOXES else ()
    if any(wishes) and (layout.get("clip") is None or layout.get("dynamicid") is None):
        listed = ", ".join(filter(None, wishes))
        warnings.append(f"the boxes ask for expressions ({listed}): connect clip and dynamicid too, or nobody changes.")
    elif any(wishes):
        people = [
            edit_motion(
                person,
                layout["dynamicid"],
                layout["clip"],
                source_motion(person.face),
                described_motion(person.face, wish),
            )
            if person is not None and wish
            else person
            for person, wish in zip(people, wishes, strict=True)
        ]
    placed = zip(people, regions, strict=True)
    return Layout(
        tuple(Placement(person, region) for person, region in placed if person is not None),
        torch.stack([region.rasterize(size[1], size[0]) for region in regions]),
        backdrop,
        warnings,
    )
