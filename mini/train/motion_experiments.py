"""What the benchmarks of motions ask for: one angle, one amount or two expressions at a time, of neutral references."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..world.head import EXPRESSIONS

SHOWN = tuple(name for name in EXPRESSIONS if name != "neutral")
ANGLES = {"yaw": 45.0, "pitch": 25.0, "roll": 25.0}
"""Angle -> degrees either way that are asked for."""
SOURCES = tuple(EXPRESSIONS)
AUTO, ASSUMED, TRUTH = "auto", "neutral", "the truth"
"""Rows of the benchmarks of references that show an expression: who says which."""

Json = dict[str, Any]


@dataclass(frozen=True)
class RequestedMotion:
    """Degrees to turn further than the reference, and amounts of expressions; what they leave of 1 is neutral."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    amounts: Mapping[str, float] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The motion as Edit Facial Motion's `prompt` takes it; "" where it asks for no expression."""
        return ", ".join(f"{name} {amount:.2f}" for name, amount in self.amounts.items())

    @property
    def overrides(self) -> Json:
        """Inputs of Edit Facial Motion."""
        return {
            "expression": "neutral", "prompt": self.prompt, "yaw": self.yaw, "pitch": self.pitch, "roll": self.roll,
            "strength": 1.0,
        }  # fmt: skip

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> "RequestedMotion":
        """Return the motion that `overrides` asks for."""
        amounts = dict(term.split() for term in overrides["prompt"].split(", ") if term)
        yaw, pitch, roll = (float(overrides[name]) for name in ANGLES)
        return cls(yaw, pitch, roll, {name: float(amount) for name, amount in amounts.items()})


def _turned(angle: str) -> Callable[[random.Random], RequestedMotion]:
    def draw(rng: random.Random) -> RequestedMotion:
        degrees = float(round(rng.uniform(-ANGLES[angle], ANGLES[angle])))
        return RequestedMotion(**{angle: degrees})  # type: ignore[arg-type]  # a name of an angle

    return draw


def _amount(rng: random.Random) -> RequestedMotion:
    return RequestedMotion(amounts={rng.choice(SHOWN): round(rng.uniform(0.0, 1.0), 2)})


def _mixture(rng: random.Random) -> RequestedMotion:
    """Two expressions, half of each: IMR has learned each alone, and no two together."""
    return RequestedMotion(amounts=dict.fromkeys(rng.sample(SHOWN, 2), 0.5))


AMOUNTS, MIXED = "one person, expressions by amount", "one person, two expressions mixed"
MOTIONS: dict[str, Callable[[random.Random], RequestedMotion]] = {
    **{f"one person, turned by {angle}": _turned(angle) for angle in ANGLES},
    AMOUNTS: _amount,
    MIXED: _mixture,
}
"""Benchmark -> what draws a sample's motion."""


def name_of_source(expression: str) -> str:
    """Return the benchmark of references that show an expression."""
    return f"one person, edited from {expression}"


def rows_of_source(expression: str) -> list[Json]:
    """Return its variants. Two may draw equal pictures: where auto is right, or where neutral is."""
    sources = {AUTO: "auto", ASSUMED: "neutral"} | ({} if expression == "neutral" else {TRUTH: expression})
    return [
        {"name": name, "ablate": [], "may_equal": True, "overrides": {"edit_0": {"source_expression": source}}}
        for name, source in sources.items()
    ]
