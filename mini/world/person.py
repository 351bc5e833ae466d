"""Who someone is: a person is a set of visible factors drawn from a number."""

import random
from dataclasses import dataclass, fields
from typing import Any

CHOICES: dict[str, tuple[str, ...]] = {
    "skin": ("porcelain", "light", "tan", "olive", "brown", "dark"),
    "face": ("oval", "round", "square", "heart", "long"),
    "eye_colour": ("brown", "hazel", "green", "blue", "grey"),
    "eye_shape": ("round", "almond", "droopy", "narrow"),
    "brows": ("thin", "straight", "arched", "thick"),
    "nose": ("button", "straight", "wide", "long"),
    "mouth": ("thin", "full", "wide", "small"),
    "hair": (
        *("bald", "buzz", "short", "quiff", "spiky", "curly"),
        *("afro", "bob", "long", "bun", "pigtails", "mohawk"),
    ),
    "hair_colour": ("black", "brown", "auburn", "ginger", "blond", "silver", "pink", "teal"),
    "beard": ("none", "stubble", "moustache", "goatee", "full"),
    "glasses": ("none", "round", "square", "browline"),
    "glasses_colour": ("black", "red", "blue", "gold"),
    "marks": ("none", "freckles", "mole", "blush"),
}
"""A factor's name, which the judge's tensors carry too, and what it may be."""


@dataclass(frozen=True)
class Person:
    """One person. The named factors are each one of CHOICES; the numbers are in [-1, 1].

    `seed` names the person (the truth's person id); everything else follows from it.
    """

    seed: int
    skin: str
    face: str
    eye_colour: str
    eye_shape: str
    brows: str
    nose: str
    mouth: str
    hair: str
    hair_colour: str
    beard: str
    glasses: str
    glasses_colour: str
    marks: str
    eye_spacing: float
    eye_size: float
    ears: float
    chin: float


NUMBERS = tuple(field.name for field in fields(Person) if field.type is float)

# Plain faces are the more frequent: every second person has no beard and every second no glasses, as in a street.
_PLAIN = {"beard": 4, "glasses": 3, "marks": 2}


def draw_person(seed: int) -> Person:
    """Return the person called `seed` (any int): the same one on every machine and in every process."""
    rng = random.Random(f"person {seed}")
    factors: dict[str, Any] = {}
    for name, options in CHOICES.items():
        factors[name] = rng.choice(options + options[:1] * (_PLAIN.get(name, 1) - 1))
    for name in NUMBERS:
        factors[name] = rng.uniform(-1.0, 1.0)
    return Person(seed=seed, **factors)
