"""Motions as people write them: expressions with amounts, and degrees.

`happy 0.7, surprise 0.3` is both at once, `happy 0.5` half of it and the rest neutral, `happy 1.3, yaw 20, roll -5`
more than happy with the head turned and tilted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..identity.faces import Face
from ..inputs import as_number
from ..messages import quoted
from .motion import EXPRESSIONS, NEUTRAL, FacialMotion, target_motion

ANGLES = ("yaw", "pitch", "roll")
MAX_AMOUNT, MAX_ANGLE = 2.0, 90.0  # of all expressions together; degrees
_TOLERANCE = 0.005  # of amounts that are to add up to 1, written with two digits

_TERM = re.compile(r"(?P<name>[^\W\d]\w*)(?:\s+(?P<number>\S+))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_EXPECTED = (
    f"A motion is written as expressions ({', '.join(EXPRESSIONS)}), each with an amount if it isn't 1, and degrees of "
    f"{', '.join(ANGLES)}, separated by commas: happy 0.7, surprise 0.3, yaw 20"
)


@dataclass(frozen=True)
class MotionSpec:
    """A motion that is asked for in writing.

    Attributes:
        shares: of each expression, adding up to 1; neutral's is what the others leave, below 0 where they are beyond 1.
        yaw, pitch, roll: degrees.
    """

    shares: Mapping[str, float] = field(default_factory=lambda: {NEUTRAL: 1.0})
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    @property
    def turns(self) -> bool:
        """Whether the head is to turn."""
        return bool(self.yaw or self.pitch or self.roll)

    def between(self, other: MotionSpec, part: float) -> MotionSpec:
        """Return the motion at a part of the way to another one: 0 is this one, 1 the other."""
        names = [name for name in EXPRESSIONS if name in self.shares or name in other.shares]
        mixed = {name: _lerp(self.shares.get(name, 0.0), other.shares.get(name, 0.0), part) for name in names}
        return MotionSpec(
            {name: share for name, share in mixed.items() if share},
            *(_lerp(getattr(self, angle), getattr(other, angle), part) for angle in ANGLES),
        )


def parse_motion(text: str) -> MotionSpec:
    """Return the motion that a text asks for.

    Raises:
        ValueError: a name that is unknown or stands twice, a number that is none, or amounts that are too large.
    """
    amounts: dict[str, float] = {}
    angles: dict[str, float] = {}
    for name, number in _terms(text):
        if name not in EXPRESSIONS and name not in ANGLES:
            raise ValueError(f"{_EXPECTED}. Got {quoted(name)} in {quoted(text)}.")
        if name in amounts or name in angles:
            raise ValueError(f"{name} stands twice in {quoted(text)}. Write it once.")
        if name in ANGLES:
            if number is None:
                raise ValueError(f"{name} needs degrees in {quoted(text)}, such as {name} 20.")
            angles[name] = as_number(number, name, -MAX_ANGLE, MAX_ANGLE)
        else:
            amounts[name] = 1.0 if number is None else as_number(number, f"The amount of {name}", 0.0, MAX_AMOUNT)
    return MotionSpec(_shares(amounts, text), **angles)


def motion_in(text: str) -> MotionSpec | None:
    """Return the motion that a text asks for by numbers; None where it is a prompt in free words.

    It is a motion where each term between commas is an expression or an angle, and at least one has a number.

    Raises:
        ValueError: every term has a number, but not every name is known; or see `parse_motion`.
    """
    terms = [_TERM.fullmatch(part.strip()) for part in text.split(",")]
    if not all(term and (term["number"] is None or _NUMBER.fullmatch(term["number"])) for term in terms):
        return None
    known = [term["name"].lower() in (*EXPRESSIONS, *ANGLES) for term in terms if term]
    numbers = [term["number"] is not None for term in terms if term]
    return parse_motion(text) if any(numbers) and (all(known) or (any(known) and all(numbers))) else None


def written_motion(
    face: Face | None,
    spec: MotionSpec,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    driver: Face | None = None,
    strength: float = 1.0,
) -> FacialMotion:
    """Return the motion that a face is to show, written down; angles and driver: see `target_motion`."""
    return target_motion(
        face,
        spec.shares,
        yaw + spec.yaw,
        pitch + spec.pitch,
        driver=driver,
        strength=strength,
        roll=roll + spec.roll,
    )


def described_motion(face: Face | None, description: str) -> FacialMotion:
    """Return the motion that free words describe.

    One word names an expression; expressions and angles with numbers are a `MotionSpec`; all else is a whole prompt.
    """
    spec = motion_in(description)
    if spec is not None:
        return written_motion(face, spec)
    word = "" if " " in description else description.lower()
    return target_motion(face, word, prompt="" if word else description)


def _terms(text: str) -> list[tuple[str, str | None]]:
    """Return names, in lower case, and what stands behind them."""
    terms = []
    for part in text.split(","):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{_EXPECTED}. Got {quoted(part.strip())} in {quoted(text)}.")
        terms.append((match["name"].lower(), match["number"]))
    return terms


def _shares(amounts: Mapping[str, float], text: str) -> dict[str, float]:
    """Return the share of each expression: neutral's is what the others leave of 1."""
    others = {name: amount for name, amount in amounts.items() if name != NEUTRAL and amount}
    total = sum(others.values())
    if total > MAX_AMOUNT:
        raise ValueError(f"The amounts in {quoted(text)} add up to {total:g}, at most {MAX_AMOUNT:g} is possible.")
    if amounts.get(NEUTRAL) and abs(total + amounts[NEUTRAL] - 1) > _TOLERANCE:
        raise ValueError(
            f"The amounts in {quoted(text)} add up to {total + amounts[NEUTRAL]:g}, with neutral among them it must be "
            "1. Leave neutral out: it is what the others leave."
        )
    rest = 1 - total
    return others if abs(rest) < 1e-9 else {NEUTRAL: rest, **others}


def _lerp(start: float, end: float, part: float) -> float:
    return start + part * (end - start)
