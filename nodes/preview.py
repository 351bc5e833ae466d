"""Pictures that show who stands where."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..dynamicid_core.box import Box
from ..dynamicid_core.identity.assignment import FaceAssignment
from ..dynamicid_core.identity.faces import Face
from ..dynamicid_core.image_inputs import Image as Picture
from ..dynamicid_core.imr.motion import FacialMotion
from ..dynamicid_core.saa.scene import Placement

# Longer side of previews and of masks made from boxes, in pixels; regional prompts scale masks to the latent.
CANVAS = 512

_COLOURS = ((235, 87, 87), (86, 156, 214), (111, 207, 151), (242, 201, 76), (187, 107, 217), (242, 153, 74))
_PAPER = (38, 38, 44)
_INK = (245, 245, 245)


def colour(number: int) -> tuple[int, int, int]:
    """The colour (8-bit RGB) of person 0, 1, ... in all previews."""
    return _COLOURS[number % len(_COLOURS)]


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a preview of a picture with this aspect."""
    scale = CANVAS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def overlay(base: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Lay coloured maps, one per person, over a picture.

    Args:
        base: (H, W, 3) in [0, 1].
        maps: (H, W) in [0, 1] each.
    """
    picture = base.clone()
    for number, share in enumerate(maps):
        tint = torch.tensor(colour(number)) / 255
        picture = torch.lerp(picture, tint.expand_as(picture), 0.65 * share.clamp(0, 1).unsqueeze(-1))
    return picture


def scene_preview(
    scene: Sequence[Placement], width: int = CANVAS, height: int = CANVAS, backdrop: Tensor | None = None
) -> Tensor:
    """The regions of a scene, outlined, with the people's names and faces: (1, H, W, 3) in [0, 1].

    Args:
        backdrop: (H, W, 3) in [0, 1], any size: the picture by which the regions were laid out.
    """
    if backdrop is None:
        paper = torch.tensor(_PAPER).div(255).expand(height, width, 3)
    else:
        paper = F.interpolate(backdrop.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
    masks = [placement.region.rasterize(height, width) for placement in scene]
    sheet = overlay(paper, masks)
    for number, (placement, mask) in enumerate(zip(scene, masks, strict=True)):
        sheet[outline(mask)] = torch.tensor(colour(number)) / 255
        if placement.identity.thumbnail is not None:
            _paste(sheet, placement.identity.thumbnail, mask)
    labels = [
        (placement.identity.name or f"person {number + 1}", mask)
        for number, (placement, mask) in enumerate(zip(scene, masks, strict=True))
    ]
    return labelled(sheet, labels)


def outline(mask: Tensor, width: int = 2) -> Tensor:
    """Where a mask (H, W) ends: (H, W) bool, `width` pixels wide, inside it; the picture's edge ends it too."""
    inside = (mask > 0.5).float()[None, None]
    deep = -F.max_pool2d(F.pad(-inside, (width,) * 4), 2 * width + 1, stride=1)
    return (inside - deep > 0)[0, 0]


def _paste(sheet: Tensor, thumbnail: Tensor, mask: Tensor) -> None:
    """Put a face (h, w, 3) uint8 into the upper left corner of where a mask lies; nothing where there is no room."""
    rows, cols = torch.nonzero(mask > 0.5, as_tuple=True)
    if not len(rows):
        return
    top, left = int(rows.min()) + 6, int(cols.min()) + 6
    room = min(sheet.shape[0] // 5, int(rows.max()) - top - 6, int(cols.max()) - left - 6)
    if room < 16:
        return
    face = F.interpolate(thumbnail.movedim(-1, 0)[None].float() / 255, (room, room), mode="area")
    sheet[top : top + room, left : left + room] = face[0].movedim(0, -1)


def faces_preview(images: Tensor, faces: Sequence[Face | None]) -> Tensor:
    """Pictures (n, H, W, C) in [0, 1] with a frame about the face that was used of each: (n, H, W, 3)."""
    shown = []
    for image, face in zip(images, faces, strict=True):
        colours = image[..., :3].expand(-1, -1, 3).clamp(0, 1).cpu()
        picture = Image.fromarray((colours.numpy() * 255).round().astype(np.uint8))
        if face is not None and face.box is not None:
            width = max(1, min(picture.size) // 100)
            ImageDraw.Draw(picture).rectangle(face.box, outline=colour(2), width=width)
        shown.append(torch.from_numpy(np.asarray(picture).astype(np.float32) / 255))
    return torch.stack(shown)


def who_preview(
    pictures: Sequence[Picture], found: Sequence[tuple[Sequence[Box], FaceAssignment]], names: Sequence[str]
) -> Tensor:
    """Each picture with its faces' boxes, whose each is, and how like them: (n, H, W, 3) in [0, 1]."""
    shown = []
    for picture, (boxes, who) in zip(pictures, found, strict=True):
        image = Image.fromarray(picture)
        draw, width = ImageDraw.Draw(image), max(1, min(image.size) // 150)
        font = ImageFont.load_default(max(10, image.height // 24))
        for face, box in enumerate(boxes):
            person = who.face_of.index(face) if face in who.face_of else None
            ink = (160, 160, 166) if person is None else colour(person)
            draw.rectangle(box, outline=ink, width=width)
            label = "nobody" if person is None else f"{names[person]} {who.match(person):.2f}"
            draw.text((box[0], box[1]), label, fill=ink, font=font, anchor="lb", stroke_width=2, stroke_fill=_PAPER)
        shown.append(torch.from_numpy(np.asarray(image).astype(np.float32) / 255))
    return torch.stack(shown)


def motion_preview(motions: Sequence[tuple[FacialMotion, FacialMotion]]) -> Tensor:
    """Each source's landmarks (grey) and the wanted ones, with the prompts: (n, H, W, 3); one empty sheet for none."""
    sheets = []
    for number, (source, wanted) in enumerate(motions):
        sheet = Image.new("RGB", (CANVAS, CANVAS), _PAPER)
        draw = ImageDraw.Draw(sheet)
        for motion, ink in ((source, (140, 140, 146)), (wanted, colour(number))):
            for x, y in motion.landmarks if motion.landmarks is not None else ():
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=ink)
        font = ImageFont.load_default(16)
        draw.text((8, 8), f"from: {source.prompt}", fill=(140, 140, 146), font=font)
        draw.text((8, 30), f"to: {wanted.prompt}", fill=colour(number), font=font)
        sheets.append(torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255))
    return torch.stack(sheets) if sheets else torch.zeros(1, CANVAS, CANVAS, 3)


def labelled(picture: Tensor, labels: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Write each label at the centre of its map: (1, H, W, 3).

    Args:
        picture: (H, W, 3) in [0, 1].
        labels: text and (H, W) map in [0, 1]; a map that is zero everywhere gets no label.
    """
    image = Image.fromarray((picture.numpy() * 255).round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(12, image.height // 24))
    for text, mask in labels:
        rows, cols = torch.nonzero(mask > 0.5 * mask.max(), as_tuple=True)
        if mask.max() > 0:
            centre = (float(cols.float().mean()), float(rows.float().mean()))
            draw.text(centre, text, fill=_INK, font=font, anchor="mm", stroke_width=2, stroke_fill=_PAPER)
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255).unsqueeze(0)
