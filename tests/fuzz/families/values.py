"""Images, masks, boxes and numbers that other nodes hand over: the doors are our nodes, as the host calls them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import ApplyAdvanced
from dynamicid_pack.nodes.edit import EditFacialMotion
from dynamicid_pack.nodes.encode import EncodeIdentity
from dynamicid_pack.nodes.inspect import ActivationMap
from dynamicid_pack.nodes.layout import AutoLayout
from dynamicid_pack.nodes.place import PlaceIdentity
from torch import Tensor

from ..judge import Case, Family
from .text import odd_text

_DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool, torch.int8, torch.int32,
    torch.int64, torch.complex64,
)  # fmt: skip
_NUMBERS = (0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-45, 2**31, -(2**63), 10**400, 10**5000)
ODDITIES: tuple[Any, ...] = (None, [], {}, (), "", b"1", 1j, object(), np.ones((2, 2)), {"samples": 1}, [[1]], range(3))


@cache
def _miniature() -> Miniature:
    return load_miniature()


def _person() -> Identity:
    return Identity(torch.ones(4, 128), torch.zeros(4, 128))


def _tensor(rng: Random, rank: int) -> Tensor:
    """Return a small tensor of some shape, type, content and layout, mostly of this rank."""
    rank = rank if rng.random() < 0.7 else rng.randrange(6)
    shape = [rng.choice((1, 1, 2, 3, 4, 5, 8, 17, 64, 0)) for _ in range(rank)]
    if rank == 4:
        shape[0] = min(shape[0], 17)  # faces are searched in each image, .3 s for one that shows none
        if rng.random() < 0.8:
            shape[0], shape[-1] = min(shape[0], 2), rng.choice((1, 2, 3, 4))
    dtype = rng.choice(_DTYPES)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    values = values * rng.choice((1.0, 1.0, 1.0, 255.0, 1e6, 0.0)) - rng.choice((0.0, 0.0, 0.5))
    tensor = (values * 255 if rng.random() < 0.5 else values).to(dtype) if not dtype.is_complex else values.to(dtype)
    if tensor.is_floating_point() and tensor.numel() and rng.random() < 0.2:
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice((math.nan, math.inf, -math.inf))
    layout = rng.randrange(12)
    return tensor.to_sparse() if layout == 0 and rank else tensor.to("meta") if layout == 1 else tensor


def _draw_image(rng: Random, folder: Path) -> Case:
    image = rng.choice(ODDITIES) if rng.random() < 0.15 else _tensor(rng, 4)
    node = rng.choice(("activation",) * 9 + ("encode", "faces", "driving"))
    return Case(f"{node}: {_words(image)}", (node, image))


def _take_image(node: str, image: Any) -> None:
    m = _miniature()
    if node == "encode":
        _, shown = EncodeIdentity.execute(image, m.dynamicid, no_face="skip").args
    elif node == "faces":
        faces = {"layout": "faces in a picture", "picture": image, "dynamicid": m.dynamicid}
        _, _, shown = AutoLayout.execute({"person_0": _person()}, faces).args
    elif node == "driving":
        _, shown = EditFacialMotion.execute(_person(), m.dynamicid, m.clip, driving_image=image).args
    else:
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
        shown, _ = ActivationMap.execute(_patched(), [[torch.zeros(1, 7, 128), {}]], latent, image=image).args
    assert shown.dtype == torch.float32 and shown.shape[-1] == 3 and shown.min() >= 0 and shown.max() <= 1


@cache
def _patched() -> Any:
    m = _miniature()
    (model,) = ApplyAdvanced.execute(m.model, m.dynamicid, {"person_0": _person()}).args
    return model


def _draw_mask(rng: Random, folder: Path) -> Case:
    mask = rng.choice(ODDITIES) if rng.random() < 0.15 else _tensor(rng, rng.choice((2, 3)))
    node = rng.choice(("place", "layout"))
    return Case(f"{node}: {_words(mask)}", (node, mask))


def _take_mask(node: str, mask: Any) -> None:
    if node == "place":
        scene, masks, preview = PlaceIdentity.execute(_person(), mask=mask).args
    else:
        count = len(mask) if isinstance(mask, Tensor) and mask.ndim == 3 else 1
        people = {f"person_{number}": _person() for number in range(max(1, count))}
        scene, masks, preview = AutoLayout.execute(people, {"layout": "masks", "masks": mask}).args
    assert all(isinstance(placed, Placement) for placed in scene)
    assert masks.isfinite().all() and masks.min() >= 0 and masks.max() <= 1 and preview.isfinite().all()


def _number(rng: Random) -> Any:
    """Return a number as text, in a tensor or as it is, or what is none."""
    number = rng.choice(_NUMBERS) if rng.random() < 0.7 else rng.uniform(-100, 700)
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(ODDITIES)
    if kind == 1:
        return odd_text(rng)
    if kind == 2 and isinstance(number, float):
        return rng.choice((str(number), torch.tensor(number), np.float16(number), torch.full((2,), number)))
    return number


def _draw_boxes(rng: Random, folder: Path) -> Case:
    def box() -> Any:
        kind = rng.randrange(10)
        if kind == 0:
            return rng.choice(ODDITIES)
        if kind < 4:
            return {"bbox": [_number(rng) for _ in range(rng.choice((4, 4, 4, 3, 5, 0)))], "desc": _number(rng)}
        made = {side: _number(rng) for side in ("x", "y", "width", "height")}
        if rng.random() < 0.5:
            made = {side: rng.uniform(0, 256) for side in made} | rng.choice(({}, {"x": _number(rng)}))
        if rng.random() < 0.2:
            made.pop(rng.choice([*made]))
        if rng.random() < 0.4:
            made["metadata"] = rng.choice((*ODDITIES, {"desc": odd_text(rng)}, {"desc": 3}, "text"))
        return made

    boxes = [box() for _ in range(rng.choice((1, 1, 2, 0, 30)))]
    given = rng.choice((boxes, boxes, [boxes], [boxes, boxes], boxes[0] if boxes else {}, rng.choice(ODDITIES)))
    return Case(_words(given), (given, _number(rng) if rng.random() < 0.2 else 512, len(boxes)))


def _take_boxes(boxes: Any, width: Any, count: int) -> None:
    layout = {"layout": "boxes", "boxes": boxes, "picture_width": width, "picture_height": 512}
    people = {f"person_{number}": _person() for number in range(max(1, count))}
    scene, masks, _ = AutoLayout.execute(people, layout).args
    assert len(scene) == len(masks) == max(1, count)
    for placed in scene:
        assert placed.region.box is not None and all(0 <= edge <= 1 for edge in placed.region.box), placed.region.box


_WIDGETS = {
    "apply": ("weight", "start_at", "end_at", "lora_strength", "layout_scale", "layout_steps", "gate_threshold"),
    "place": ("x", "y", "width", "height", "weight", "start_at", "end_at"),
    "edit": ("yaw", "pitch", "strength", "driving_strength"),
}


def _draw_numbers(rng: Random, folder: Path) -> Case:
    node = rng.choice([*_WIDGETS])
    values = {name: _number(rng) for name in rng.sample(_WIDGETS[node], rng.choice((1, 1, 2, 3)))}
    return Case(f"{node}: {', '.join(f'{name}={_words(value)}' for name, value in values.items())}", (node, values))


def _take_numbers(node: str, values: dict[str, Any]) -> None:
    m = _miniature()
    if node == "apply":
        ApplyAdvanced.execute(m.model, m.dynamicid, {"person_0": _person()}, **values)
    elif node == "place":
        (placed,) = PlaceIdentity.execute(_person(), **values).args[0]
        numbers = [placed.weight, placed.start_at, placed.end_at, *placed.region.box]
        assert all(math.isfinite(number) for number in numbers), numbers
    else:
        people, shown = EditFacialMotion.execute(_person(), m.dynamicid, m.clip, **values).args
        assert people[0].tokens.isfinite().all() and shown.isfinite().all()


def _words(value: Any) -> str:
    """Return what a value is, for people."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.layout} {value.device}"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a large whole number"
    if isinstance(value, dict):
        return str({key: _words(one) for key, one in value.items()})[:300]
    if isinstance(value, (list, tuple)):
        return str([_words(one) for one in value])[:300]
    return ascii(value)[:60]


IMAGES = Family("images", _draw_image, _take_image)
MASKS = Family("masks", _draw_mask, _take_mask)
BOXES = Family("boxes", _draw_boxes, _take_boxes)
NUMBERS = Family("numbers", _draw_numbers, _take_numbers)
