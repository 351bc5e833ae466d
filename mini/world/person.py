"""Who someone is: a person is a set of visible factors drawn from a number."""

import random
from dataclasses import dataclass, field, fields
from typing import Any


def _one_of(*options: str) -> Any:
    return field(metadata={"options": options})


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person. The named factors are each one of CHOICES; the numbers are in [-1, 1].

    `seed` names the person (the truth's person id); everything else follows from it.
    """

    seed: int
    skin: str = _one_of("porcelain", "light", "tan", "olive", "brown", "dark")
    face: str = _one_of("oval", "round", "square", "heart", "long")
    eye_colour: str = _one_of("brown", "hazel", "green", "blue", "grey")
    eye_shape: str = _one_of("round", "almond", "droopy", "narrow")
    brows: str = _one_of("thin", "straight", "arched", "thick")
    nose: str = _one_of("button", "straight", "wide", "long")
    mouth: str = _one_of("thin", "full", "wide", "small")
    hair: str = _one_of(
        *("bald", "buzz", "short", "quiff", "spiky", "curly"),
        *("afro", "bob", "long", "bun", "pigtails", "mohawk"),
    )
    hair_colour: str = _one_of("black", "brown", "auburn", "ginger", "blond", "silver", "pink", "teal")
    beard: str = _one_of("none", "stubble", "moustache", "goatee", "full")
    glasses: str = _one_of("none", "round", "square", "browline")
    glasses_colour: str = _one_of("black", "red", "blue", "gold")
    marks: str = _one_of("none", "freckles", "mole", "blush")
    eye_spacing: float
    eye_size: float
    ears: float
    chin: float


CHOICES: dict[str, tuple[str, ...]] = {
    factor.name: factor.metadata["options"] for factor in fields(Person) if factor.metadata
}
"""A factor's name, which the judge's tensors carry too, and what it may be."""
NUMBERS = tuple(number.name for number in fields(Person) if number.type is float)

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
