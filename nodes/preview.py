"""Drawing: images that show who stands where, which face was used, and how landmarks move."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..dynamicid_core.host.layout import CANVAS
from ..dynamicid_core.host.redraw import Redrawn
from ..dynamicid_core.identity.comparison import Comparison
from ..dynamicid_core.identity.faces import Detection, Face
from ..dynamicid_core.image_inputs import Image as Pixels
from ..dynamicid_core.imr.motion import FacialMotion
from ..dynamicid_core.saa.scene import Placement, names_of

_COLORS = ((235, 87, 87), (86, 156, 214), (111, 207, 151), (242, 201, 76), (187, 107, 217), (242, 153, 74))
_PAPER, _INK = (38, 38, 44), (245, 245, 245)
MOMENTS = 4
_GRAY, _LIGHT_GRAY = (140, 140, 146), (160, 160, 166)


def color(number: int) -> tuple[int, int, int]:
    """Return the color (8-bit RGB) of person 0, 1, ... in all previews."""
    return _COLORS[number % len(_COLORS)]


def overlay(base: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Lay colored maps, one per person, over an image.

    Args:
        base: (H, W, 3) in [0, 1].
        maps: (H, W) in [0, 1] each.
    """
    image = base.clone()
    for number, share in enumerate(maps):
        tint = torch.tensor(color(number)) / 255
        image = torch.lerp(image, tint.expand_as(image), 0.65 * share.clamp(0, 1).unsqueeze(-1))
    return image


def scene_preview(
    scene: Sequence[Placement], width: int = CANVAS, height: int = CANVAS, backdrop: Tensor | None = None
) -> Tensor:
    """Draw the regions of a scene, outlined, with the people's names and faces: (n, H, W, 3) in [0, 1].

    Regions that move are drawn at up to MOMENTS frames, the first and the last among them.

    Args:
        backdrop: (H, W, 3) in [0, 1], any size: the image by which the regions were laid out.
    """
    if backdrop is None:
        paper = torch.tensor(_PAPER).div(255).expand(height, width, 3)
    else:
        paper = F.interpolate(backdrop.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
    frames = max((placement.region.frames for placement in scene), default=1)
    moments = np.linspace(0, frames - 1, min(frames, MOMENTS)).round().astype(int).tolist()
    return torch.cat([_moment(scene, frame, paper) for frame in moments])


def _moment(scene: Sequence[Placement], frame: int, paper: Tensor) -> Tensor:
    """Draw the regions of a scene in one frame onto a paper (H, W, 3): (1, H, W, 3)."""
    masks = [placement.region.at(frame).rasterize(*paper.shape[:2]) for placement in scene]
    sheet = overlay(paper, masks)
    for number, (placement, mask) in enumerate(zip(scene, masks, strict=True)):
        sheet[outline(mask)] = torch.tensor(color(number)) / 255
        if placement.identity.thumbnail is not None:
            _paste(sheet, placement.identity.thumbnail, mask)
    return labeled(sheet, [*zip(names_of(scene), masks, strict=True)])


def outline(mask: Tensor, width: int = 2) -> Tensor:
    """Return the inner edge (H, W) bool of a mask (H, W), `width` pixels wide; the image's edge ends a mask too."""
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


def faces_preview(images: Tensor, faces: Sequence[Face | None], insets: Sequence[Pixels | None]) -> Tensor:
    """Draw a frame about the face that was used of each image (n, H, W, 3) in [0, 1]: (n, H, W, 3).

    Args:
        insets: square images that are shown in a corner, a third of the image's shorter side.
    """
    sheets = []
    for image, face, inset in zip(images, faces, insets, strict=True):
        sheet = _to_pillow(image)
        if inset is not None:
            side = max(1, min(sheet.size) // 3)
            sheet.paste(Image.fromarray(inset).resize((side, side)), (sheet.width - side, sheet.height - side))
        if face is not None and face.box is not None:
            ImageDraw.Draw(sheet).rectangle(face.box, outline=color(2), width=max(1, min(sheet.size) // 100))
        sheets.append(sheet)
    return _to_tensor(sheets)


def comparison_preview(images: Sequence[Pixels], comparisons: Sequence[Comparison], names: Sequence[str]) -> Tensor:
    """Draw each image with its faces' boxes, whose each is, and how similar: (n, H, W, 3) in [0, 1]."""
    sheets = []
    for image, comparison in zip(images, comparisons, strict=True):
        assignment = comparison.assignment
        labels = {
            face: (person, f"{names[person]} {assignment.match(person):.2f}")
            for person, face in enumerate(assignment.face_of)
            if face is not None
        }
        sheets.append(_with_faces(Image.fromarray(image), comparison.faces, labels))
    return _to_tensor(sheets)


def redraw_preview(images: Tensor, results: Sequence[Redrawn]) -> Tensor:
    """Draw each image (n, H, W, 3) before and after, with whose each face is and how similar, in [0, 1].

    Tall images stand side by side, wide ones one above the other.
    """
    sheets = []
    for image, result in zip(images, results, strict=True):
        people = [(one.face, person, one) for person, one in enumerate(result.people) if one.face is not None]
        halves = []
        for shown, likeness in ((image, "before"), (result.image, "after")):
            labels = {
                face: (person, one.name if (value := getattr(one, likeness)) is None else f"{one.name} {value:.2f}")
                for face, person, one in people
            }
            halves.append(_with_faces(_to_pillow(shown), result.faces, labels))
        wide = halves[0].width > halves[0].height
        sheets.append(Image.fromarray(np.concatenate([np.asarray(half) for half in halves], axis=0 if wide else 1)))
    return _to_tensor(sheets)


def _with_faces(sheet: Image.Image, faces: Sequence[Detection], labels: Mapping[int, tuple[int, str]]) -> Image.Image:
    """Draw the faces' boxes onto an image, and return it.

    Args:
        labels: by the face's number, its person's and what is written; other faces are nobody's.
    """
    draw, width = ImageDraw.Draw(sheet), max(1, min(sheet.size) // 150)
    font = ImageFont.load_default(max(10, sheet.height // 24))
    for number, face in enumerate(faces):
        person, label = labels.get(number, (None, "nobody"))
        ink = _LIGHT_GRAY if person is None else color(person)
        draw.rectangle(face.box, outline=ink, width=width)
        draw.text(face.box[:2], label, fill=ink, font=font, anchor="lb", stroke_width=2, stroke_fill=_PAPER)
    return sheet


def motion_preview(source: FacialMotion, targets: Sequence[FacialMotion], side: int = CANVAS) -> Tensor:
    """Draw the source's landmarks (gray) and each target's, with the prompts: (n, side, side, 3) in [0, 1]."""
    sheets = []
    for number, target in enumerate(targets):
        sheet = Image.new("RGB", (CANVAS, CANVAS), _PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
        for motion, ink in ((source, _GRAY), (target, color(number))):
            for x, y in motion.landmarks if motion.landmarks is not None else ():
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=ink)
        draw.text((8, 8), f"from: {source.prompt}", fill=_GRAY, font=font)
        draw.text((8, 30), f"to: {target.prompt}", fill=color(number), font=font)
        sheets.append(sheet if side == CANVAS else sheet.resize((side, side)))
    return _to_tensor(sheets)


def labeled(image: Tensor, labels: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Write each label at the center of its map: (1, H, W, 3).

    Args:
        image: (H, W, 3) in [0, 1].
        labels: text and (H, W) map in [0, 1]; a map that is zero everywhere gets no label.
    """
    sheet = _to_pillow(image)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(12, sheet.height // 24))
    for text, mask in labels:
        rows, cols = torch.nonzero(mask > 0.5 * mask.max(), as_tuple=True)
        if mask.max() > 0:
            center = (float(cols.float().mean()), float(rows.float().mean()))
            draw.text(center, text, fill=_INK, font=font, anchor="mm", stroke_width=2, stroke_fill=_PAPER)
    return _to_tensor([sheet])


def _to_pillow(image: Tensor) -> Image.Image:
    """Return an image (H, W, 3) in [0, 1] as Pillow's."""
    return Image.fromarray((image.numpy() * 255).round().astype(np.uint8))


def _to_tensor(sheets: Sequence[Image.Image]) -> Tensor:
    """Return Pillow's images of one size as (n, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(sheet) for sheet in sheets]).astype(np.float32) / 255)
