"""Which images are kept: spread over the grid, each once, all of one person; and faces grouped by person."""

import random
from collections import Counter

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.data import clustering
from dynamicid_pack.dynamicid_core.data.selection import YAWS, Cell, duplicates, similarity, stratified_select, yaw_bin
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS

GRID = [(expression, yaw) for expression in EXPRESSIONS for yaw in YAWS]


@pytest.mark.parametrize(
    ("yaw", "expected"),
    [(-90, "left"), (-40, "left"), (-20, "half left"), (-9, "front"), (0, "front"), (9, "front"), (20, "half right"),
     (40, "right"), (90, "right")],
)  # fmt: skip
def test_yaws_fall_into_five_bins(yaw: float, expected: str) -> None:
    assert yaw_bin(yaw) == expected


def _many(seed: int, count: int = 200) -> tuple[list[Cell], list[float]]:
    """As pictures found anywhere are: most of them happy or neutral, from the front."""
    rng = random.Random(seed)
    rows = rng.choices(EXPRESSIONS, (40, 30, 6, 4, 4, 3, 3), k=count)
    columns = rng.choices(YAWS, (5, 15, 50, 15, 5), k=count)
    return list(zip(rows, columns, strict=True)), [rng.random() for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_are_spread_better_than_the_first_35(seed: int) -> None:
    cells, quality = _many(seed)
    chosen, first = stratified_select(cells, quality, 35), range(35)
    assert len(chosen) == len(set(chosen)) == 35 and chosen == sorted(chosen)
    assert stratified_select(cells, quality, 35) == chosen
    ours, theirs = (Counter(cells[i] for i in picks) for picks in (chosen, first))
    assert len(ours) == len(set(cells)), "every cell that any picture shows"
    assert len(ours) >= len(theirs) + 8
    assert max(ours.values()) < max(theirs.values())
    alone = [i for i in range(len(cells)) if ours[cells[i]] == 1]
    for i in set(chosen) & set(alone):
        assert quality[i] == max(quality[j] for j in alone if cells[j] == cells[i])


def test_a_full_grid_gives_each_cell_once_and_few_places_each_row_and_column() -> None:
    cells, quality = GRID * 3, [0.5] * 35 + [0.9] * 35 + [0.1] * 35
    assert stratified_select(cells, quality, 35) == list(range(35, 70))
    seven = [cells[i] for i in stratified_select(cells, quality, 7)]
    assert len({row for row, _ in seven}) == 7 and len({column for _, column in seven}) == 5
    assert stratified_select(cells, quality, 1000) == list(range(105)) and stratified_select([], [], 35) == []


def test_of_the_same_pictures_the_best_is_kept() -> None:
    base = 0x123456789ABCDEF << 190
    near, far = base ^ 0b111, base ^ ((1 << 40) - 1)
    hashes = [f"{value:064x}" for value in (base, near, far, base)]
    assert duplicates(hashes, [0.5, 0.9, 0.1, 0.5], 16) == {0: 1, 3: 1}
    assert duplicates(hashes, [0.9, 0.5, 0.1, 0.5], 2) == {3: 0}
    assert duplicates(hashes, [0.9, 0.5, 0.1, 0.5], -1) == {}


def _faces(people: int, each: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    faces = np.repeat(rng.normal(size=(people, 512)), each, 0) + noise * rng.normal(size=(people * each, 512))
    return (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)


def test_a_stranger_is_unlike_the_median_of_the_others() -> None:
    person, other = _faces(2, 8, 0.7).reshape(2, 8, 512)
    cosines = similarity(np.concatenate([person, other[:3]]))
    assert cosines.shape == (11,) and cosines[:8].min() > 0.7 > 0.4 > cosines[8:].max()
    assert similarity(np.stack([person[0], other[0]])).tolist() == [1, 1], "of two, nobody can tell"
    assert similarity(np.zeros((0, 512), np.float32)).shape == (0,)


def test_faces_in_any_order_become_the_true_people(monkeypatch: pytest.MonkeyPatch) -> None:
    faces, order = _faces(5, 6, 0.7), np.random.default_rng(0).permutation(30)
    people = clustering.cluster_faces(faces[order], 0.6)
    assert sorted(len(person) for person in people) == [6] * 5
    assert all(len({order[i] // 6 for i in person}) == 1 for person in people)
    assert [person[0] for person in people] == sorted(person[0] for person in people) and people[0][0] == 0
    bridge = (faces[:6].sum(0) + faces[6:12].sum(0)) / np.linalg.norm(faces[:12].sum(0))
    bridged = clustering.cluster_faces(np.concatenate([faces[:12], bridge[None]]), 0.6)
    assert len(bridged) == 2, "a face between two people makes them no one"
    assert len(clustering.cluster_faces(faces, 1e-6)) == 30 and len(clustering.cluster_faces(faces, 2.1)) == 1
    assert clustering.cluster_faces(faces[:1], 0.6) == [[0]] and clustering.cluster_faces(faces[:0], 0.6) == []
    monkeypatch.setattr(clustering, "MAX_FACES", 29)
    with pytest.raises(ValueError, match="at most 29 unsorted faces, got 30"):
        clustering.cluster_faces(faces, 0.6)
