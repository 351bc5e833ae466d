"""A scene: who stands where in one image, how strongly and for which part of sampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..identity.identity import Identity
from .regions import Region, columns


@dataclass(frozen=True, eq=False)
class Placement:
    """One person in a scene.

    Attributes:
        identity: who.
        region: where; the rest of the image is shared by all.
        weight: factor on what this person adds, 0 or more; 1 is the method's own strength.
        start_at, end_at: part of the sampling schedule in which the person is drawn, 0..1, start before end.
    """

    identity: Identity
    region: Region
    weight: float = 1.0
    start_at: float = 0.0
    end_at: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"A person's weight must be 0 or more (1 is normal), got {self.weight:g}.")
        check_span(self.start_at, self.end_at)

    @property
    def is_absent(self) -> bool:
        """Whether the person can't appear: an empty region or an empty span of the schedule."""
        return self.region.is_empty or self.start_at >= self.end_at


def check_span(start_at: float, end_at: float) -> None:
    """Raise ValueError unless 0 <= start_at <= end_at <= 1."""
    if not 0 <= start_at <= end_at <= 1:
        raise ValueError(
            "start_at and end_at must be from 0 (first step) to 1 (last step) with start_at before end_at, "
            f"got start_at {start_at:g} and end_at {end_at:g}. Swap them or move one."
        )


def arrange(
    people: Sequence[Identity | Placement | Sequence[Placement]], in_columns: bool = True
) -> tuple[Placement, ...]:
    """Return identities and placements as one scene.

    Args:
        in_columns: an identity without a place of its own gets the column of its position: person i of n the i-th of n
            equal strips. Off: the whole image.
    """
    flat: list[Identity | Placement] = []
    for person in people:
        flat += [person] if isinstance(person, (Identity, Placement)) else person
    regions = columns(len(flat)) if flat and in_columns else (Region(),) * len(flat)
    return tuple(
        person if isinstance(person, Placement) else Placement(person, region)
        for person, region in zip(flat, regions, strict=True)
    )


def adjusted(scene: Sequence[Placement], weight: float, start_at: float, end_at: float) -> tuple[Placement, ...]:
    """Return the scene with every weight multiplied and every span cut to start_at..end_at, without absent people."""
    check_span(start_at, end_at)
    present = []
    for person in scene:
        start, end = max(person.start_at, start_at), min(person.end_at, end_at)
        if start < end and not person.is_absent:
            present.append(replace(person, weight=person.weight * weight, start_at=start, end_at=end))
    return tuple(present)


def names_of(scene: Sequence[Placement]) -> list[str]:
    """Return each person's name, or "person 1", "person 2", ... where they have none."""
    return [placement.identity.name or f"person {number}" for number, placement in enumerate(scene, start=1)]
