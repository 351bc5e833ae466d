"""What a caption says, and back: a small closed language in which captions are written and read.

    a portrait of a person in a red hoodie, at the beach, in a happy expression, facing up, in side view
    two people, in a park, on the left in a blue shirt, the expression is sad, the face is front view, on the right ...

A motion is told in one of two ways: as the method's face prompts do ("in a happy expression, facing up, in side view")
or as those of its pose data set ("the expression is happy, the face is slightly turned to the left").
Left and right are the picture's. Whatever a caption leaves out is free.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

CLOTHES_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
GARMENTS = ("shirt", "t-shirt", "hoodie", "sweater")
PLAIN_COLORS = ("grey", "yellow", "green", "blue", "pink")
PLACES = (
    *(f"on a plain {color} background" for color in PLAIN_COLORS),
    "on a gradient background",
    *("in a room", "in a park", "at the beach", "in a city", "in the mountains", "at night"),
)
COUNTS = {1: "a portrait of a person", 2: "two people", 3: "three people"}
WHERE = {2: ("on the left", "on the right"), 3: ("on the left", "in the middle", "on the right")}

ADJECTIVES = {  # expression: the other data set's word for it
    "neutral": "neutral", "happy": "happy", "sad": "sad", "anger": "angry", "surprise": "surprised",
    "disgust": "disgusted", "fear": "afraid",
}  # fmt: skip
YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)
TILTS = ("facing up", "facing down")
VIEWS = {  # the words for a direction, and the yaws that they cover
    "in front view": (0.0,),
    "in side view": (-40.0, -20.0, 20.0, 40.0),
    "the face is fully turned to the left": (-40.0,),
    "the face is slightly turned to the left": (-20.0,),
    "the face is front view": (0.0,),
    "the face is slightly turned to the right": (20.0,),
    "the face is fully turned to the right": (40.0,),
}
_POSED = tuple(VIEWS)[2:]  # one a yaw


@dataclass(frozen=True)
class PersonSpec:
    """What a caption says of one person; None leaves it free. `posed`: the motion is told as the pose data set does."""

    colour: str | None = None
    garment: str | None = None
    expression: str | None = None
    tilt: str | None = None
    view: str | None = None
    posed: bool = False

    def clothes(self) -> list[str]:
        return [f"in a {self.colour} {self.garment}"] if self.colour else []

    def motion(self) -> list[str]:
        return motion_clauses(self.expression, self.tilt, self.view, self.posed)


@dataclass(frozen=True)
class CaptionSpec:
    """What a caption says: one PersonSpec per person, from the picture's left to its right, and the place."""

    people: tuple[PersonSpec, ...]
    place: str | None = None


def view_of(yaw: float, posed: bool = False) -> str:
    """Return the words for a yaw in degrees: as the release's face prompts (10 degrees), or the nearest of five."""
    if posed:
        return _POSED[min(range(5), key=lambda i: abs(YAWS[i] - yaw))]
    return "in front view" if abs(yaw) < 10 else "in side view"


def tilt_of(pitch: float) -> str | None:
    return "facing up" if pitch > 10 else "facing down" if pitch < -10 else None


def motion_clauses(expression: str | None, tilt: str | None, view: str | None, posed: bool) -> list[str]:
    if posed:
        told = f"the expression is {ADJECTIVES[expression]}" if expression else None
    else:
        told = f"in a {expression} expression" if expression else None
    return [clause for clause in (told, tilt, view) if clause]


def face_prompt(expression: str, yaw: float, pitch: float = 0.0, posed: bool = False) -> str:
    """Return the text half of a motion, from the expression's name and degrees."""
    return ", ".join(motion_clauses(expression, None if posed else tilt_of(pitch), view_of(yaw, posed), posed))


def to_caption(spec: CaptionSpec) -> str:
    """Return the caption that says `spec`. Raises ValueError when there are not one to three people."""
    count = len(spec.people)
    if count not in COUNTS:
        raise ValueError(f"expected 1 to 3 people, got {count}")
    place = [spec.place] if spec.place else []
    if count == 1:
        person = spec.people[0]
        return ", ".join([" ".join([COUNTS[1], *person.clothes()]), *place, *person.motion()])
    clauses = [COUNTS[count], *place]
    for where, person in zip(WHERE[count], spec.people, strict=True):
        if told := person.clothes() + person.motion():
            clauses += [f"{where} {told[0]}", *told[1:]]
    return ", ".join(clauses)


# What each clause about a person says, as fields of a PersonSpec.
_FIELDS: dict[str, dict[str, Any]] = {
    **{f"in a {one} {other}": {"colour": one, "garment": other} for one, other in product(CLOTHES_COLORS, GARMENTS)},
    **{f"in a {name} expression": {"expression": name, "posed": False} for name in ADJECTIVES},
    **{f"the expression is {word}": {"expression": name, "posed": True} for name, word in ADJECTIVES.items()},
    **{tilt: {"tilt": tilt} for tilt in TILTS},
    **{view: {"view": view, "posed": view in _POSED} for view in VIEWS},
}


def parse_caption(caption: str) -> CaptionSpec:
    """Return what a caption says: the inverse of `to_caption`. Raises ValueError at a clause outside the language."""
    first, *clauses = caption.split(", ")
    count = next((n for n, words in COUNTS.items() if first.startswith(words)), 0)
    if not count:
        raise ValueError(f"expected a caption that starts with one of {list(COUNTS.values())}, got {caption!r}")
    if rest := first[len(COUNTS[count]) :].strip():
        clauses.insert(0, rest)
    place, who = None, 0
    people: list[dict[str, Any]] = [{} for _ in range(count)]
    for clause in clauses:
        for position, where in enumerate(WHERE.get(count, ())):
            if clause.startswith(where + " "):
                who, clause = position, clause[len(where) + 1 :]
        if clause in PLACES:
            place = clause
        elif clause in _FIELDS:
            people[who] |= _FIELDS[clause]
        else:
            raise ValueError(f"{clause!r} is not a clause of this language (in {caption!r})")
    return CaptionSpec(tuple(PersonSpec(**person) for person in people), place)
