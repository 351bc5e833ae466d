"""Which faces are drawn again, which drawing is kept, and how it is told."""

import pytest
from dynamicid_pack.dynamicid_core.identity.assignment import NO_MATCH
from dynamicid_pack.dynamicid_core.redraw.passes import PersonResult, drawings_of, is_better, is_due, report


@pytest.mark.parametrize(
    ("likeness", "only_below", "due"),
    [(0.5, 0.6, True), (0.6, 0.6, False), (0.99, 1.0, True), (1.0, 1.0, True), (None, 0.0, True), (0.1, 0.0, False)],
)
def test_who_is_below_is_drawn_and_who_cant_be_measured(likeness: float | None, only_below: float, due: bool) -> None:
    assert is_due(likeness, only_below) is due


@pytest.mark.parametrize(
    ("before", "after", "faces", "kept"),
    [
        (0.5, 0.6, (2, 2), True),
        (0.6, 0.5, (2, 2), False),
        (0.5, 0.5, (2, 2), False),
        (0.5, 0.9, (2, 3), False),
        (0.5, 0.6, (3, 2), True),
        (0.5, NO_MATCH, (2, 2), False),
        (None, None, (2, 2), True),
        (None, None, (2, 3), False),
        (None, NO_MATCH, (2, 2), False),
    ],
)
def test_the_better_is_kept_where_it_shows_no_face_too_many(
    before: float | None, after: float | None, faces: tuple[int, int], kept: bool
) -> None:
    assert is_better(before, after, *faces) is kept


def test_the_report_tells_of_everybody() -> None:
    people = [
        PersonResult("ann", 1, 0.61, 0.78, 1, True),
        PersonResult("ben", 0, 0.5, 0.5, 2, False),
        PersonResult("mixed", 3, None, None, 1, True),
        PersonResult("carl", note="no face is left"),
    ]
    lines = report(people, 2, 20).split("\n")
    assert [line.split() for line in lines[1:5]] == [
        ["ann", "2", "0.61", "0.78", "1"],
        ["ben", "1", "0.50", "0.50", "2,", "as", "it", "was"],
        ["mixed", "4", "?", "?", "1"],
        ["carl", "-", "?", "?", "0;", "no", "face", "is", "left"],
    ]
    assert "not measurable" in lines[5] and lines[6].endswith(": 2") and lines[7] == "drawings of 20 steps each: 4"
    assert "measurable" not in report(people[:2], 0, 20) and "none" not in report(people[:2], 0, 20)


def test_drawings_are_read_back_from_reports() -> None:
    people = [PersonResult("drawings of 7 steps each: 9", 1, 0.61, 0.78, 2, True), PersonResult("ben", 0, 0.9, 0.9)]
    both = f"picture 1\n{report(people, 1, 20)}\n\npicture 2\n{report(people[1:], 0, 20)}"
    assert drawings_of(report(people, 1, 20)) == [(20, 2)] and drawings_of(both) == [(20, 2), (20, 0)]
    assert drawings_of("No face was found.") == [] == drawings_of("denoise 0: nobody was redrawn")
