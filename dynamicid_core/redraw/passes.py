"""Who is drawn anew, which of several drawings is kept, and how that is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..identity.assignment import NO_MATCH

_DRAWINGS = "drawings of {} steps each: {}"
_TOLD = re.compile(f"^{_DRAWINGS.format('([0-9]+)', '([0-9]+)')}$", re.MULTILINE)


@dataclass(frozen=True)
class PersonResult:
    """What became of one person in one image.

    Attributes:
        name: the person's.
        face: the face's number from the left, from 0; None where no face is left for them.
        before, after: likeness to their reference, -1..1; None where it can't be measured.
        drawn: how many times the face was drawn.
        kept: whether one of these stands in the image; otherwise the face is as it was.
        note: why the face was left alone; "" where it was not.
    """

    name: str
    face: int | None = None
    before: float | None = None
    after: float | None = None
    drawn: int = 0
    kept: bool = False
    note: str = ""


def is_due(likeness: float | None, only_below: float) -> bool:
    """Return whether a face is drawn: likeness below `only_below`, where 1 is everybody, or not measurable."""
    return likeness is None or only_below >= 1 or likeness < only_below


def is_better(before: float | None, after: float | None, faces_before: int, faces_after: int) -> bool:
    """Return whether a drawing is kept: a face is still there, there are no more than before, and it is more alike.

    Args:
        before, after: likeness of the best so far and of the drawing; None where it can't be measured, NO_MATCH where
            the drawing shows no face.
        faces_before, faces_after: in the whole image.
    """
    if after == NO_MATCH or faces_after > faces_before:
        return False
    return before is None or after is None or after > before


def report(results: Sequence[PersonResult], strangers: int, steps: int) -> str:
    """Return a line for each person, and what else there is to say of one image.

    Args:
        strangers: how many faces belong to no one of these people.
        steps: sampling steps of one drawing.
    """
    width = max((len(result.name) for result in results), default=0)
    lines = [f"{'':<{width}}  {'face':>4}  {'before':>6}  {'after':>6}  drawn"]
    for result in results:
        face = "-" if result.face is None else str(result.face + 1)
        drawn = f"{result.drawn}{'' if result.kept or not result.drawn else ', as it was'}"
        cells = f"{face:>4}  {_number(result.before):>6}  {_number(result.after):>6}  {drawn}"
        lines.append(f"{result.name:<{width}}  {cells}{'; ' if result.note else ''}{result.note}")
    if any(result.face is not None and result.before is None for result in results):
        lines.append("?: not measurable, the identity holds no face to compare with")
    if strangers:
        lines.append(f"faces of none of these people, left as they were: {strangers}")
    drawings = sum(result.drawn for result in results)
    lines.append(_DRAWINGS.format(steps, drawings))
    return "\n".join(lines)


def drawings_of(text: str) -> list[tuple[int, int]]:
    """Return the sampling steps of one drawing and the number of drawings that `report` told, image by image.

    Args:
        text: of one image or, one after the other, of several; an image without a face has no drawings to tell of.
    """
    return [(int(steps), int(drawings)) for steps, drawings in _TOLD.findall(text)]


def _number(likeness: float | None) -> str:
    return "?" if likeness is None else "-" if likeness == NO_MATCH else f"{likeness:.2f}"
