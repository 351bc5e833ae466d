"""What the conditioning of a whole image says of a square of it, in the form in which ComfyUI carries conditioning.

An entry is [text (n, tokens, dim), {...}]. Of its options, `mask` is (n, H, W) over the image; `area` is (h, w, y, x)
in latent cells or ("percentage", h, w, y, x); `control` is a ControlNet or an adapter with a hint of the image, and
others before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..box import Box
from ..saa.regions import Region

CELL = 8  # pixels a side of a latent's cell
_GRID = 256  # cells a side, on which what entries cover is compared
_COVERS = 0.5  # of a face, from which on an entry speaks of it
_NOTHING = 0.005  # of the square, below which an entry does not reach into it
_WHOLE = 0.99  # of the image, from which on an entry speaks of all of it
_AS_SMALL = 1.1  # times the smallest: entries that speak of the same place
_NOT_CUT = {"gligen": "GLIGEN", "concat_latent_image": "an inpainting model's picture", "concat_mask": ""}
"""Options that can't be cut -> what they are called; "" for a part of another."""
_PLACE = ("mask", "mask_strength", "set_area_to_bounds", "area")

Entry = list[Any]


@dataclass(frozen=True)
class CutConditioning:
    """Conditioning for a square, and the names of what could not be cut and is left out."""

    entries: list[Entry]
    left_out: set[str] = field(default_factory=set)


def cut_conditioning(
    conditioning: Sequence[Entry], window: Box, face: Box, height: int, width: int, frame: int = 0
) -> CutConditioning:
    """Return what a whole image's conditioning says of a square of it.

    An entry whose mask or area covers the face goes alone, and without its place: of several, those of the smallest.
    Where there is none, entries for the whole image stay and the others are cut to the square, without those that do
    not reach into it. Hints of ControlNets are cut in either case.

    Args:
        window, face: the square and the face in it, in fractions of the image.
        height, width: of the image in pixels.
        frame: the image's number in a batch, for masks that have one for each.
    """
    left_out: set[str] = set()
    entries = [[text, _cuttable(options, left_out)] for text, options in conditioning]
    places = [_place(options, height, width, frame) for _, options in entries]
    shares = [1.0 if place is None else float(place.mean()) for place in places]
    own = [
        i for i, place in enumerate(places)
        if place is not None and shares[i] < _WHOLE and float(place[_cells(face)].mean()) > _COVERS
    ]  # fmt: skip
    if own:
        smallest = min(shares[i] for i in own)
        chosen = [[entries[i][0], _placeless(entries[i][1])] for i in own if shares[i] <= _AS_SMALL * smallest]
    else:
        within = [
            [text, _within(options, place, window, height, width, frame)]
            for (text, options), place in zip(entries, places, strict=True)
        ]
        chosen = [[text, options] for text, options in within if options is not None]
        # nothing speaks of this square: what is said elsewhere is better than nothing
        chosen = chosen or [[text, _placeless(options)] for text, options in entries]
    cropped = [[text, _with_cut_control(options, window, height, width, left_out)] for text, options in chosen]
    return CutConditioning(cropped, left_out)


def _cells(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a box in fractions on the grid, at least one of each."""
    x0, y0, x1, y1 = (int(edge * _GRID) for edge in box.clamped())
    x0, y0 = min(x0, _GRID - 1), min(y0, _GRID - 1)
    return slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))


def _cuttable(options: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """Return the options without those that can't be cut, whose names are added to `left_out`."""
    kept = dict(options)
    for key, name in _NOT_CUT.items():
        if kept.pop(key, None) is not None and name:
            left_out.add(name)
    if "area" in kept and _area(kept["area"], 1, 1) is None:
        left_out.add("an area of a film")
        del kept["area"]
    return kept


def _placeless(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _PLACE}


def _area(area: Sequence[Any], height: int, width: int) -> Box | None:
    """Return an area in fractions of an image; None for one of another form."""
    fractions = area[0] == "percentage"
    numbers = area[1:] if fractions else area
    if len(numbers) != 4:
        return None
    h, w, y, x = (float(number) for number in numbers)
    box = Box.from_xywh(x, y, w, h)
    return box if fractions else box.scaled(CELL / width, CELL / height)


def _mask(options: dict[str, Any], frame: int) -> Tensor | None:
    """Return an entry's mask of one image: (H, W) float32 on the CPU."""
    mask: Tensor | None = options.get("mask")
    if mask is None:
        return None
    mask = mask.reshape(-1, *mask.shape[-2:])
    return mask[min(frame, len(mask) - 1)].to("cpu", torch.float32)


def _place(options: dict[str, Any], height: int, width: int, frame: int) -> Tensor | None:
    """Return where an entry speaks, (_GRID, _GRID) in [0, 1]; None everywhere."""
    place: Tensor | None = None
    if (mask := _mask(options, frame)) is not None:
        place = functional.interpolate(mask[None, None], (_GRID, _GRID), mode="area")[0, 0]
    if "area" in options and (area := _area(options["area"], height, width)) is not None:
        cells = Region(box=area.clamped()).rasterize(_GRID, _GRID)
        place = cells if place is None else place * cells
    return place


def _within(
    options: dict[str, Any], place: Tensor | None, window: Box, height: int, width: int, frame: int
) -> dict[str, Any] | None:
    """Return an entry's options with its place cut to the window; None where it does not reach into it."""
    if place is None:
        return options
    if float(place[_cells(window)].mean()) < _NOTHING:
        return None
    kept = dict(options)
    if (mask := _mask(options, frame)) is not None:
        kept["mask"] = resample(mask[None, None], window, _GRID)[0]  # (1, h, w)
    if "area" in options and (area := _area(options["area"], height, width)) is not None:
        inside = area.moved(-window.x0, -window.y0).scaled(1 / window.width, 1 / window.height).clamped()
        if inside.area >= _WHOLE:
            del kept["area"]
        else:
            kept["area"] = ("percentage", inside.height, inside.width, inside.y0, inside.x0)
    return kept


def _with_cut_control(
    options: dict[str, Any], window: Box, height: int, width: int, left_out: set[str]
) -> dict[str, Any]:
    """Return the options with the hints of all ControlNets cut."""
    if options.get("control") is None:
        return options
    control = _cut_control(options["control"], window, height, width, left_out)
    kept = {key: value for key, value in options.items() if key not in ("control", "control_apply_to_uncond")}
    return kept if control is None else {**options, "control": control}


def _cut_control(control: Any, window: Box, height: int, width: int, left_out: set[str]) -> Any:
    """Return a copy of a ControlNet and those before it with their hints cut; one without a hint is left out."""
    before = getattr(control, "previous_controlnet", None)
    before = None if before is None else _cut_control(before, window, height, width, left_out)
    hint = getattr(control, "cond_hint_original", None)
    if not isinstance(hint, Tensor) or hint.ndim != 4:
        left_out.add("a ControlNet whose hint is not a picture")
        return before
    copy = control.copy()
    copy.cond_hint_original = _cut_hint(hint, window, height, width)
    extra = getattr(copy, "extra_concat_orig", None)
    if extra:
        copy.extra_concat_orig = [_cut_hint(one, window, height, width) if one.ndim == 4 else one for one in extra]
    copy.set_previous_controlnet(before)
    return copy


def _cut_hint(hint: Tensor, window: Box, height: int, width: int) -> Tensor:
    """Return the window of a hint (n, C, h, w), which the host would crop to the image's aspect about its center."""
    h, w = hint.shape[-2:]
    part_x, part_y = min(1.0, width / height * h / w), min(1.0, height / width * w / h)
    shown = window.scaled(part_x, part_y).moved((1 - part_x) / 2, (1 - part_y) / 2)
    return resample(hint, shown, max(1, round(max(shown.width * w, shown.height * h))))


def resample(images: Tensor, window: Box, size: int) -> Tensor:
    """Return a window of images (n, C, H, W), in fractions of them, by bilinear interpolation: (n, C, size, size)."""
    steps = (torch.arange(size) + 0.5) / size
    x, y = window.x0 + steps * window.width, window.y0 + steps * window.height
    rows, columns = torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).expand(len(images), -1, -1, -1)  # (n, size, size, xy)
    sampled = functional.grid_sample(
        images.to(torch.float32), grid.to(images.device), padding_mode="border", align_corners=False
    )
    return sampled.to(images.dtype)
