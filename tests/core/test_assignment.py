"""Face assignment: people and faces compared by their embeddings."""

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.assignment import NO_MATCH, assign_faces, report

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
