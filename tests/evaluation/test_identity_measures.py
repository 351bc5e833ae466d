"""The benchmarks' measures: numbers worked by hand, and the benchmarks' own formulas written anew in numpy."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.evaluation import identity_measures as measures
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _at(degrees: float, up: float = 0.0) -> Array:
    """Return a vector of some length, so many degrees from the first axis and `up` degrees out of the plane."""
    turn, rise = np.radians([degrees, up])
    return 3.0 * np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])


BY_HAND = [  # (people, faces), matched, Multi-ID, ID-Conf
    ([[0.9, 0.2], [0.1, 0.6]], 0.75, 0.75, 100 * (0.7 / 0.9 + 0.5 / 0.6) / 2),
    ([[0.9, 0.8], [0.8, 0.1]], 0.8, 0.8, 100 * (0.1 / 0.9 + 0.7 / 0.8) / 2),  # the sum counts: 0.8 + 0.8
    ([[0.8], [0.3]], 0.8, 0.4, None),  # a face is missing
    ([[0.5, 0.9, 0.1]], 0.9, 0.9, 100 * 0.4 / 0.9),  # two faces too many
    ([[0.5, -0.3], [-0.1, -0.2]], 0.15, 0.15, 50.0),  # 0.8 / 0.5 counts 1; nobody is like the second
    ([[0.6, 0.6], [0.2, 0.2]], 0.4, 0.4, 0.0),  # two faces of one person
    ([[], []], None, 0.0, None),  # no face at all
]


@pytest.mark.parametrize(("rows", "matched", "multi", "conf"), BY_HAND)
def test_similarities_and_confusion_by_hand(
    rows: list[list[float]], matched: float | None, multi: float, conf: float | None
) -> None:
    similarity = np.array(rows, np.float64).reshape(len(rows), -1)
    assert measures.matched_similarity(similarity) == (None if matched is None else pytest.approx(matched))
    assert measures.multi_id_similarity(similarity) == pytest.approx(multi)
    assert measures.id_conf(similarity) == (None if conf is None else pytest.approx(conf))


def test_nobody_has_no_similarity() -> None:
    with pytest.raises(ValueError, match="at least one person, got none"):
        measures.multi_id_similarity(np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("face", "score"),
    [
        (_at(0), 1.0),  # the reference
        (_at(60), -1.0),  # the truth
        (_at(30), 0.0),  # between them
        (_at(45), -0.5),  # (15 - 45) / 60
        (_at(90), -1.0),  # beyond the truth: (30 - 90) / 60
        (_at(-15), 1.0),  # beyond the reference: (75 - 15) / 60
        (_at(0, up=90), 0.0),  # as unlike both
    ],
)
def test_copy_paste_by_hand(face: Array, score: float) -> None:
    """The reference lies at 0 degrees, the true picture at 60."""
    assert measures.copy_paste(face, _at(60), _at(0)) == pytest.approx(score)


def test_copy_paste_is_zero_where_the_true_picture_is_the_reference() -> None:
    assert measures.copy_paste(_at(30), _at(0), _at(0)) == 0
    same = _at(12.3).astype(np.float32)
    assert measures.copy_paste(_at(30), same, 7 * same) == 0, "whatever their lengths"


@pytest.mark.parametrize(
    ("detected", "score"),
    [
        ((0.0, 0.0), 1.0),
        ((0.0, 20.0), -1.0),
        ((0.0, 10.0), 0.0),
        ((4.0, 15.0), -0.5),  # ((4 + 5) / 2 - (4 + 15) / 2) / 10
        ((0.0, -10.0), 1.0),  # to the other side: (15 - 5) / 10
    ],
)
def test_motion_copy_paste_of_a_pose_by_hand(detected: tuple[float, float], score: float) -> None:
    """20 degrees of yaw are requested of a reference in front view: d is 10, the mean of yaw and pitch."""
    assert measures.pose_copy_paste((0.0, 20.0), (0.0, 0.0), detected) == pytest.approx(score)


def test_motion_copy_paste_leaves_out_the_references_own_motion() -> None:
    assert measures.is_own_pose((0.0, 0.0), (4.0, -6.0)) and not measures.is_own_pose((0.0, 0.0), (4.0, -7.0))
    with pytest.raises(ValueError, match=r"another pose than the reference's \(1.0, 2.0\)"):
        measures.pose_copy_paste((0.0, 0.0), (1.0, 2.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="another expression than the reference's 'happy'"):
        measures.expression_copy_paste("happy", "happy", "sad")


def test_motion_copy_paste_of_an_expression_by_hand() -> None:
    scores = [measures.expression_copy_paste("happy", "neutral", shown) for shown in ("neutral", "sad", "happy")]
    assert scores == [1.0, 0.0, -1.0]


# --- the benchmarks' own formulas, written anew ---------------------------------------------------------------------


def _best_pairs(similarity: Array) -> Sequence[tuple[int, int]]:
    """Return the pairs of the largest sum, by trying all."""
    rows, columns = similarity.shape
    if rows > columns:
        return [(row, column) for column, row in _best_pairs(similarity.T)]
    best = max(permutations(range(columns), rows), key=lambda order: sum(similarity[range(rows), order]))
    return list(zip(range(rows), best, strict=True))


def _embeddings(rng: np.random.Generator, count: int) -> Array:
    return rng.normal(0.4, 1.0, (count, 12))


def _cosines(one: Array, other: Array) -> Array:
    unit, others = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
    return np.asarray(unit @ others.T)


SHAPES = [(people, faces) for people in (1, 2, 3, 4) for faces in (1, 2, 3, 5)]


@pytest.mark.parametrize(("people", "faces"), SHAPES)
def test_matched_similarity_is_multiid_benchs_mean_of_matched_scores(people: int, faces: int) -> None:
    rng = np.random.default_rng([people, faces])
    for _ in range(20):
        similarity = _cosines(_embeddings(rng, people), _embeddings(rng, faces))
        scores = [similarity[pair] for pair in _best_pairs(similarity)]
        assert measures.matched_similarity(similarity) == pytest.approx(np.mean(scores), abs=1e-12)


@pytest.mark.parametrize(("people", "faces"), SHAPES)
def test_multi_id_similarity_is_multihuman_testbenchs(people: int, faces: int) -> None:
    """It pads the matrix with zeros to a square one and leaves out matches with what was padded."""
    rng = np.random.default_rng([people, faces, 1])
    for _ in range(20):
        similarity = _cosines(_embeddings(rng, people), _embeddings(rng, faces))
        size = max(similarity.shape)
        square = np.zeros((size, size))
        square[:people, :faces] = similarity
        matched = sum(square[i, j] for i, j in _best_pairs(square) if i < people and j < faces)
        assert measures.multi_id_similarity(similarity) == pytest.approx(matched / people, abs=1e-12)


@pytest.mark.parametrize(("people", "faces"), SHAPES)
def test_id_conf_is_umos(people: int, faces: int) -> None:
    """Its similarities are cosines times 100, which cancels; it adds nothing for pictures of one face."""
    rng = np.random.default_rng([people, faces, 2])
    for _ in range(20):
        similarity = _cosines(_embeddings(rng, people), _embeddings(rng, faces))
        scores = []
        for row in 100 * similarity:
            if faces > 1:
                first, second = sorted(row, reverse=True)[:2]
                scores.append(min(1, (first - second) / first) if first > 0 else 0)
        expected = pytest.approx(100 * np.mean(scores)) if scores else None
        assert measures.id_conf(similarity) == expected


def test_copy_paste_is_multiid_benchs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        face, truth, reference = _embeddings(rng, 3)
        (_, face_truth, face_reference), (_, _, truth_reference), _ = np.arccos(
            np.clip(_cosines(np.stack([face, truth, reference]), np.stack([face, truth, reference])), -1, 1)
        )
        expected = (face_truth - face_reference) / truth_reference
        score = measures.copy_paste(face, truth, reference)
        assert score == pytest.approx(expected, abs=1e-9) and -1 <= score <= 1
