"""A scene: who stands where, how they look, what they wear, what is behind; drawn from a caption and a number."""

import random
from dataclasses import dataclass

from .caption import CLOTHES_COLORS, GARMENTS, PLACES, VIEWS, YAWS, CaptionSpec, PersonSpec, tilt_of, view_of
from .head import EXPRESSIONS, Motion
from .person import Person


@dataclass(frozen=True)
class Figure:
    """A person in a scene. (x, y): pixels of the head's center; scale: pixels of half a face's width."""

    person: Person
    motion: Motion
    colour: str
    garment: str
    x: float
    y: float
    scale: float


@dataclass(frozen=True)
class Scene:
    """All that a picture shows. `figures` from the picture's left to its right; `seed` draws the place's details."""

    width: int
    height: int
    place: str
    figures: tuple[Figure, ...]
    seed: int = 0


def _motion(spec: PersonSpec, rng: random.Random, jitter: bool) -> Motion:
    yaw = rng.choice(VIEWS[spec.view] if spec.view else YAWS)
    pitch = {"facing up": 17.0, "facing down": -17.0, None: 0.0}[spec.tilt]
    expression = spec.expression or rng.choice(list(EXPRESSIONS))
    if not jitter:
        return Motion(expression, yaw, pitch)
    swing, nod = rng.uniform(-4, 4), rng.uniform(-6, 6)
    return Motion(expression, yaw + swing, pitch + nod, rng.uniform(-6, 6), rng.uniform(0.85, 1.1))


def compose(spec: CaptionSpec, people: tuple[Person, ...], seed: int, jitter: bool = True) -> Scene:
    """Return the scene that shows `people`, in the order of `spec`; what `spec` leaves free follows from `seed`.

    With `jitter` off, heads stand still at their place's center and yaws are exactly the requested ones.
    """
    if len(people) != len(spec.people):
        raise ValueError(f"the caption speaks of {len(spec.people)} people, got {len(people)} to show")
    rng = random.Random(f"scene {seed}")
    count = len(people)
    width = 128 if count == 1 else 256
    low, high = {1: (24.5, 27.5), 2: (23.0, 26.0), 3: (21.0, 22.5)}[count]
    figures = []
    for i, (person, told) in enumerate(zip(people, spec.people, strict=True)):
        scale = rng.uniform(low, high)
        x, y = width * (i + 0.5) / count + rng.uniform(-4, 4), 64 + rng.uniform(-3, 3)
        if not jitter:
            scale, x, y = (low + high) / 2, width * (i + 0.5) / count, 64.0
        motion = _motion(told, rng, jitter)
        colour, garment = told.colour or rng.choice(CLOTHES_COLORS), told.garment or rng.choice(GARMENTS)
        figures.append(Figure(person, motion, colour, garment, x, y, scale))
    return Scene(width, 128, spec.place or rng.choice(PLACES), tuple(figures), seed)


def describe(scene: Scene, posed: bool = False) -> CaptionSpec:
    """Return all that a caption can say of a scene."""
    people = [
        PersonSpec(
            f.colour, f.garment, f.motion.expression, None if posed else tilt_of(f.motion.pitch),
            view_of(f.motion.yaw, posed), posed,
        )
        for f in scene.figures
    ]  # fmt: skip
    return CaptionSpec(tuple(people), scene.place)
