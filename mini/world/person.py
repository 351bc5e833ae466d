"""Who someone is: a person is a set of visible factors drawn from a number."""

import random
from dataclasses import asdict, dataclass, fields
from typing import Any

SKINS = ("porcelain", "light", "tan", "olive", "brown", "dark")
FACES = ("oval", "round", "square", "heart", "long")
EYE_COLORS = ("brown", "hazel", "green", "blue", "grey")
EYE_SHAPES = ("round", "almond", "droopy", "narrow")
BROWS = ("thin", "straight", "arched", "thick")
NOSES = ("button", "straight", "wide", "long")
MOUTHS = ("thin", "full", "wide", "small")
HAIRS = ("bald", "buzz", "short", "quiff", "spiky", "curly", "afro", "bob", "long", "bun", "pigtails", "mohawk")
HAIR_COLORS = ("black", "brown", "auburn", "ginger", "blond", "silver", "pink", "teal")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square", "browline")
GLASSES_COLORS = ("black", "red", "blue", "gold")
MARKS = ("none", "freckles", "mole", "blush")


@dataclass(frozen=True)
class Person:
    """One person. The named factors are each one of the tuples above; the numbers are in [-1, 1].

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

    def factors(self) -> dict[str, str | float]:
        """The visible factors by name: all fields but the seed."""
        found = asdict(self)
        del found["seed"]
        return found


CHOICES: dict[str, tuple[str, ...]] = {
    "skin": SKINS,
    "face": FACES,
    "eye_colour": EYE_COLORS,
    "eye_shape": EYE_SHAPES,
    "brows": BROWS,
    "nose": NOSES,
    "mouth": MOUTHS,
    "hair": HAIRS,
    "hair_colour": HAIR_COLORS,
    "beard": BEARDS,
    "glasses": GLASSES,
    "glasses_colour": GLASSES_COLORS,
    "marks": MARKS,
}
NUMBERS = tuple(f.name for f in fields(Person) if f.type is float)

# Plain faces are the more frequent: every second person has no beard and every second no glasses, as in a street.
_PLAIN = {"beard": 4, "glasses": 3, "marks": 2}


def draw_person(seed: int) -> Person:
    """The person called `seed` (any int): the same one on every machine and in every process."""
    rng = random.Random(f"person {seed}")
    factors: dict[str, Any] = {}
    for name, options in CHOICES.items():
        factors[name] = rng.choice(options + options[:1] * (_PLAIN.get(name, 1) - 1))
    for name in NUMBERS:
        factors[name] = rng.uniform(-1.0, 1.0)
    return Person(seed=seed, **factors)
