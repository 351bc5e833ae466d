"""Face assignment: people and faces compared by their embeddings."""

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.identity.assignment import (
    NO_MATCH,
    assign_faces,
    assign_people,
    region_at,
    report,
)
from dynamicid_pack.dynamicid_core.saa.regions import Region, columns

ONE, TWO, THREE = torch.eye(512)[:3]


def between(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    return torch.nn.functional.normalize((1 - share) * a + share * b, dim=0)


def test_everybody_finds_their_face() -> None:
    assigned = assign_faces([ONE, TWO], [between(TWO, ONE, 0.2), THREE, ONE])
    assert assigned.face_of == (2, 0) and assigned.match(0) == pytest.approx(1)
    assert assigned.similarity.shape == (2, 3)
    assert assigned.bleed(1) == pytest.approx(0.2 / np.hypot(0.8, 0.2), abs=1e-6)
    assert assigned.bleed(0) == pytest.approx(0) and assigned.worst == assigned.match(1) < 1


def test_likeness_in_all_decides_not_who_comes_first() -> None:
    assigned = assign_faces([ONE, between(ONE, TWO, 0.4)], [between(ONE, TWO, 0.3), between(ONE, TWO, 0.0)])
    assert assigned.face_of == (1, 0)


def test_too_few_faces_leave_someone_without() -> None:
    assigned = assign_faces([ONE, TWO], [TWO])
    assert assigned.face_of == (None, 0) and assigned.worst == NO_MATCH and assigned.bleed(0) is None
    empty = assign_faces([ONE], [])
    assert empty.worst == NO_MATCH and report(["ann"], empty) == "No face was found."


def test_the_report_names_what_was_found() -> None:
    text = report(["ann", "ben"], assign_faces([ONE, TWO], [TWO]))
    assert "ben  [1.00]" in " ".join(text.split("\n")[2].split()).replace(" [", "  [")
    assert "no face is left for ann" in text and "worst match -1.00" in text
    assert "bleed" in report(["ann"], assign_faces([ONE], [ONE])).splitlines()[0]


BOXES = [Box(0.05, 0.3, 0.2, 0.6), Box(0.4, 0.3, 0.6, 0.7), Box(0.8, 0.3, 0.9, 0.5)]
"""Three faces from left to right, the middle one the largest."""
LEFT, RIGHT = columns(2)
UNKNOWN = [np.nan] * 3


@pytest.mark.parametrize(
    ("regions", "similarity", "face_of"),
    [
        ([None, None], [[0.1, 0.2, 0.9], [0.8, 0.0, 0.3]], [2, 0]),
        ([None, None], [[0.1, 0.2, 0.1], [0.8, 0.0, 0.3]], [1, 0]),
        ([None, None], [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]], [0, 1]),
        ([None, None, None, None], [UNKNOWN, [0.9, 0.0, 0.0], UNKNOWN, UNKNOWN], [1, 0, 2, None]),
        ([RIGHT, LEFT], [[0.9, 0.0, 0.0], [0.0, 0.0, 0.9]], [1, 0]),
        ([Region(box=Box(0.6, 0.0, 0.7, 1.0)), None], [[0.9, 0.9, 0.9], UNKNOWN], [None, 1]),
        ([Region(box=Box(0.0, 0.0, 1.0, 1.0)), Region()], [[0.0, 0.0, 0.9], [0.9, 0.0, 0.0]], [2, 0]),
        ([RIGHT, None], [UNKNOWN, [0.2, 0.9, 0.3]], [1, 2]),
    ],
    ids=[
        "by likeness", "who is like no face gets the largest that is left", "in order", "unknown people, too few faces",
        "by region against all likeness", "a region without a face", "the whole image is no region",
        "a region's face belongs to nobody else",
    ],
)  # fmt: skip
def test_people_get_faces_by_region_likeness_or_order(
    regions: list[Region | None], similarity: list[list[float]], face_of: list[int | None]
) -> None:
    assert assign_people(regions, np.array(similarity), BOXES) == face_of
    assert assign_people(regions, np.zeros((len(regions), 0)), []) == [None] * len(regions)


def test_a_point_stands_in_the_region_that_covers_it_most_or_is_nearest() -> None:
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 0.5
    regions = [Region(mask=mask), Region(box=Box(0.4, 0.0, 0.6, 1.0)), Region(box=Box(0.5, 0.0, 0.7, 1.0))]
    assert [region_at(x, 0.5, regions) for x in (0.2, 0.45, 0.53, 0.58, 0.68, 0.95)] == [None, 1, 1, 2, 2, 0]
    assert regions[0].center == pytest.approx((0.75, 0.5)) and region_at(0.5, 0.5, []) is None
    assert region_at(0.5, 0.5, [Region(box=Box(0.5, 0.5, 0.5, 0.5)), Region(mask=torch.zeros(2, 2))]) is None
