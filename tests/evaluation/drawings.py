"""Drawn pictures with known answers: the renderer's truth."""

from collections.abc import Sequence

from dynamicid_pack.mini.world.caption import CaptionSpec, PersonSpec, tilt_of, view_of
from dynamicid_pack.mini.world.composition import compose
from dynamicid_pack.mini.world.person import Person
from dynamicid_pack.mini.world.render import Picture, render
from dynamicid_pack.mini.world.world import World

Shown = tuple[str, float, float]
"""An expression, a pitch and a yaw."""


def stranger(number: int) -> Person:
    """Somebody whom no training picture shows."""
    return World(held_out_people=True).person(number)


def draw(people: Sequence[Person], shown: Sequence[Shown], seed: int = 0, place: str = "in a room") -> Picture:
    """People, left to right, in the middle of their columns; yaws are -40, -20, 0, 20 or 40, pitches -17, 0 or 17."""
    looks = [
        PersonSpec("blue", "shirt", expression, tilt_of(pitch), view_of(yaw, posed=True), posed=True)
        for expression, pitch, yaw in shown
    ]
    return render(compose(CaptionSpec(tuple(looks), place), tuple(people), seed, jitter=False))
