"""The face that the panel of Edit Facial Motion shows before anything ran: a drawn one, in every expression."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..world.head import EXPRESSIONS, Head, Motion
from ..world.person import Person
from .core import FRAME, Face, turnable

_PERSON = Person(
    seed=0, skin="tan", face="oval", eye_colour="brown", eye_shape="almond", brows="arched", nose="straight",
    mouth="full", hair="short", hair_colour="black", beard="none", glasses="none", glasses_colour="black",
    marks="none", eye_spacing=0.0, eye_size=0.0, ears=0.0, chin=0.0,
)  # fmt: skip
_DIGITS = 4  # of half a face's width
_OPENING = (
    "// Written by `python -m mini standard-face web/standard_face.js`: a drawn face, and its shapes by expression.\n"
)


def standard_face() -> dict[str, Any]:
    """Return the face as `turnable` gives it, and `shapes`: (106, 3) in its head's space by expression."""
    faces = {name: _face(name) for name in EXPRESSIONS}
    neutral = turnable(faces["neutral"])
    shapes = {name: turnable(face) for name, face in faces.items()}
    assert neutral is not None
    return _rounded(neutral | {"shapes": {name: shape["points"] for name, shape in shapes.items() if shape}})


def write_standard_face(path: Path) -> Path:
    """Write the face as the module of JavaScript that the panel imports; return the path."""
    path.write_text(f"{_OPENING}export const STANDARD_FACE = {json.dumps(standard_face())}\n", "utf-8")
    return path


def _face(expression: str) -> Face:
    """Return the face's truth as an analyzer would tell it."""
    head = Head(_PERSON, Motion(expression), (FRAME / 2, FRAME / 2), FRAME / 5)
    return Face(
        landmarks=torch.from_numpy(head.landmarks()),
        points68=torch.from_numpy(head.points68()),
        pose=(0.0, 0.0, 0.0),
        size=(FRAME, FRAME),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return value if value is None else np.round(value, _DIGITS).tolist()
