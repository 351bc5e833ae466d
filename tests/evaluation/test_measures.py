"""Each measure on pictures whose answer the renderer knows."""

import math

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.evaluation import measures
from dynamicid_pack.dynamicid_core.evaluation.config import SampleSpec, TargetPerson
from dynamicid_pack.dynamicid_core.evaluation.judges import CachedJudge, Judge, JudgedFace, JudgedImage
from dynamicid_pack.dynamicid_core.evaluation.measuring import image_values
from dynamicid_pack.dynamicid_core.identity.analyzer import FaceAnalyzer
from dynamicid_pack.dynamicid_core.identity.assignment import best_assignment, faces_in_regions
from dynamicid_pack.dynamicid_core.saa.regions import Region, columns, strips
from dynamicid_pack.mini.world.head import EXPRESSIONS
from dynamicid_pack.mini.world.render import Picture

from .drawings import draw, stranger

POSES = ((0.0, 0.0), (17.0, 20.0), (-17.0, 0.0), (0.0, -40.0), (17.0, 0.0), (0.0, 40.0), (-17.0, -20.0))
"""(pitch, yaw)"""


@pytest.fixture(scope="module")
def portraits() -> list[Picture]:
    """A person in each expression, each in another pose."""
    return [draw([stranger(n)], [(name, *POSES[n])], n) for n, name in enumerate(EXPRESSIONS)]


@pytest.fixture(scope="module")
def seen(portraits: list[Picture], judge: Judge) -> list[JudgedFace]:
    detections = [judge.faces(picture.image) for picture in portraits]
    assert [len(faces) for faces in detections] == [1] * len(portraits)
    return [face for (face,) in detections]


def test_expressions_are_right_when_drawn_as_asked_and_wrong_when_others_are_asked(seen: list[JudgedFace]) -> None:
    drawn = list(EXPRESSIONS)
    shown = [face.expression for face in seen]
    assert measures.expression_share(drawn, shown) == 1.0
    assert measures.expression_share(drawn[1:] + drawn[:1], shown) == 0.0
    assert measures.expression_share(drawn[:3] + drawn[:4], shown) == 3 / 7


def test_a_face_that_is_not_found_shows_nothing_that_was_asked() -> None:
    assert measures.expression_share(["happy", "happy"], ["happy", None]) == 0.5
    assert measures.pose_share([(0, 0), (0, 0)], [(0, 0), None]) == 0.5
    with pytest.raises(ValueError, match="at least one face"):
        measures.expression_share([], [])


def test_poses_are_right_when_drawn_as_asked_and_wrong_when_others_are_asked(seen: list[JudgedFace]) -> None:
    shown = [(face.pose[0], face.pose[1]) for face in seen]
    assert measures.pose_share(POSES, shown) == 1.0
    others = [(-17.0 if pitch >= 0 else 0.0, yaw) for pitch, yaw in POSES]
    assert measures.pose_share(others, shown) == 0.0
    turned = [(pitch, 0.0 if yaw else 20.0) for pitch, yaw in POSES]
    assert measures.pose_share(turned, shown) == 0.0


def test_the_error_in_degrees_is_small_for_the_drawn_pose_and_known_for_another(seen: list[JudgedFace]) -> None:
    for pose, face in zip(POSES, seen, strict=True):
        shown = (face.pose[0], face.pose[1])
        assert measures.pose_error(pose, shown) < 6
        mirrored = measures.pose_error((pose[0], -pose[1]), shown)
        assert mirrored == pytest.approx(abs(pose[1]), abs=6), (
            "the words of these poses are the same, their degrees not"
        )
    assert measures.pose_error((10, -20), (4, 20)) == 23


def test_a_pose_is_near_when_pitch_and_yaw_both_are() -> None:
    asked = [(0.0, 20.0)] * 5
    shown = [(10.0, 10.0), (0.0, 31.0), (-11.0, 20.0), (0.0, -20.0), None]
    assert measures.pose_near_share(asked, shown) == 0.2
    assert measures.pose_near_share(asked, shown, degrees=11) == 0.6


def test_a_face_is_identified_when_nobody_else_is_nearer() -> None:
    assert measures.identified_share([0.9, 0.2, None, 0.5], [0.3, 0.4, -1.0, 0.5]) == 0.25


@pytest.mark.parametrize("who", ["judge", "face pack"])
def test_a_person_is_far_more_like_themselves_than_like_others(
    who: str, judge: Judge, analyzer: FaceAnalyzer, portraits: list[Picture]
) -> None:
    def embedding(picture: Picture) -> np.ndarray:
        if who == "judge":
            return judge.faces(picture.image)[0].embedding
        embedding = analyzer.describe(picture.image, analyzer.detect(picture.image)[0]).embedding
        assert embedding is not None
        return embedding.numpy()

    references = [embedding(draw([stranger(n)], [("neutral", 0, 0)], 50 + n, "at night")) for n in range(7)]
    embeddings = [embedding(picture) for picture in portraits]
    table = np.array([[measures.face_similarity(one, other) for other in embeddings] for one in references])
    same = table.diagonal()
    others = table[~np.eye(7, dtype=bool)]
    assert same.min() > others.max() and same.mean() - others.mean() > 0.75
    assert best_assignment(table) == list(range(7))
    assert best_assignment(table[::-1]) == list(range(7))[::-1]


def test_clip_t_is_the_cosine_and_highest_for_a_pictures_own_words(judge: Judge) -> None:
    assert measures.clip_t(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(0.96)
    assert measures.clip_t(np.array([1.0, 0.0]), np.array([-2.0, 0.0])) == -1
    asked = {
        place: draw([stranger(n)], [("happy", 0, 0)], n, place).image
        for n, place in enumerate(("in a park", "at night", "on a plain grey background"))
    }
    for own, image in asked.items():
        near = {
            place: measures.clip_t(
                judge.image_vector(image),
                judge.text_vector(
                    f"a portrait of a person in a blue shirt, {place}, in a happy expression, in front view"
                ),
            )
            for place in asked
        }
        assert max(near, key=near.__getitem__) == own, near
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        measures.clip_t(np.ones(2), np.ones(3))


@pytest.mark.parametrize("count", [2, 3])
def test_people_in_place_are_assigned_right_and_exchanged_people_wrong(count: int, judge: Judge) -> None:
    people = [stranger(20 + n) for n in range(count)]
    references = [judge.faces(draw([who], [("neutral", 0, 0)], 9).image)[0].embedding for who in people]
    shown = [("happy", 0.0, 0.0)] * count
    for order, right in ((people, 1.0), ([*people[1:], people[0]], 0.0)):
        picture = draw(order, shown, 3)
        height, width, _ = picture.image.shape
        faces = judge.faces(picture.image)
        boxes = [face.box.to_fractions(width, height) for face in faces]
        placed = faces_in_regions(boxes, columns(count))
        shown_faces = [faces[i].embedding for i in placed if i is not None]
        assert len(shown_faces) == count
        similarity = np.array([[measures.face_similarity(r, face) for r in references] for face in shown_faces])
        assert measures.assignment_share(similarity) == right
        bleed, other = measures.bleed(similarity), measures.other_similarity(similarity)
        assert bleed is not None and other is not None
        assert (bleed < -0.4 and other < 0.5) if right else (bleed > 0.4 and other > 0.8)


def test_bleed_by_hand_and_a_region_without_a_face() -> None:
    similarity = np.array([[np.nan] * 3, [0.1, 0.7, 0.3], [0.2, 0.5, 0.4]])
    assert measures.assignment_share(similarity) == pytest.approx(1 / 3)
    assert measures.other_similarity(similarity) == pytest.approx(0.4)
    assert measures.bleed(similarity) == pytest.approx((-0.4 + 0.1) / 2)
    assert measures.bleed(np.full((2, 2), np.nan)) is None


@pytest.mark.parametrize("shown", [1, 2, 3])
def test_faces_are_counted_whoever_they_are(shown: int, judge: Judge) -> None:
    """A face too many is as wrong as one too few; the other measures, which take a face for each person, miss it."""
    asked = SampleSpec(name="two", prompt="two people", seeds=(1,), people=(TargetPerson(), TargetPerson()))
    picture = draw([stranger(50 + n) for n in range(shown)], [("happy", 0.0, 0.0)] * shown, 4).image
    seen = JudgedImage(judge.faces(picture), judge.image_vector(picture), (picture.shape[0], picture.shape[1]))
    assert image_values(seen, asked, CachedJudge(judge))["Count"].value == float(shown == 2)
    assert measures.count_share([2, 2, 1], [2, 3, 1]) == pytest.approx(2 / 3)


def test_faces_stand_in_the_region_that_holds_their_middle() -> None:
    boxes = [Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0), Box(0.2, 0.0, 0.8, 1.0)]
    regions = [Region(box=box) for box in boxes]
    small, large, between = Box(0.1, 0.1, 0.2, 0.2), Box(0.05, 0.3, 0.35, 0.6), Box(0.4, 0.4, 0.55, 0.6)
    assert faces_in_regions([small, large, between], regions) == [1, None, 2]
    assert faces_in_regions([], regions[:2]) == [None, None]
    assert strips(2) == boxes[:2]


def test_without_enough_faces_somebody_is_left_out() -> None:
    assert best_assignment(np.array([[0.2], [0.9]])) == [None, 0]
    assert best_assignment(np.array([[0.9, 0.8], [0.8, 0.1]])) == [1, 0], "the sum counts, not the single best"
    assert best_assignment(np.zeros((2, 0))) == [None, None]


def test_the_background_is_measured_outside_faces_alone(judge: Judge) -> None:
    image = draw([stranger(1)], [("happy", 0, 0)], 4).image
    (face,) = judge.faces(image)
    free = measures.background_mask(image.shape[:2], [face.box], 0.5)
    assert 0 < free.mean() < 0.7
    assert measures.background_difference(image, image, free) == 0
    assert measures.background_psnr(image, image, free) == measures.MAX_PSNR

    within = image.copy()
    x0, y0, x1, y1 = (round(side) for side in face.box)
    within[y0:y1, x0:x1] = 255 - within[y0:y1, x0:x1]
    assert measures.background_difference(image, within, free) == 0

    half = free.copy()
    half[:, 64:] = False
    apart = image.astype(int)
    apart[half] = np.where(apart[half] > 127, apart[half] - 10, apart[half] + 10)
    share = half.sum() / free.sum()
    changed = apart.astype(np.uint8)
    assert measures.background_difference(image, changed, free) == pytest.approx(10 * share)
    assert measures.background_psnr(image, changed, free) == pytest.approx(10 * math.log10(255**2 / (100 * share)))

    assert measures.background_difference(image, within, np.zeros_like(free)) is None
    with pytest.raises(ValueError, match=r"one size.*\(64, 128, 3\)"):
        measures.background_difference(image, image[:64], free)


def test_a_faces_box_is_grown_by_its_longer_side_and_cut_at_the_edge() -> None:
    free = measures.background_mask((20, 30), [Box(10, 4, 14, 12)], 0.5)  # 4 on each side
    assert not free[0:16, 6:18].any()
    assert free.sum() == 20 * 30 - 16 * 12
    assert measures.background_mask((5, 5), [Box(-9, -9, -3, -3)], 0).all()


def test_diversity_is_the_mean_distance_over_pairs_and_zero_for_equal_pictures(judge: Judge) -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    apart = measures.diversity(vectors)
    np.testing.assert_allclose(apart, [1.5, 1.0, 1.5])
    assert apart.mean() == pytest.approx((1 + 2 + 1) / 3)
    one, other = (
        draw([stranger(n)], [("happy", 0, 0)], n, place).image for n, place in ((0, "at night"), (1, "in a park"))
    )
    same = measures.diversity(np.stack([judge.image_vector(one)] * 3))
    assert np.abs(same).max() < 1e-5
    assert measures.diversity(np.stack([judge.image_vector(one), judge.image_vector(other)])).min() > 0.1
    with pytest.raises(ValueError, match="at least two"):
        measures.diversity(vectors[:1])


def test_everybody_must_be_alike_for_an_image_to_count() -> None:
    pairs: list[list[float | None]] = [[0.6, 0.9], [0.59, 0.99], [None, 0.9], [0.7, 0.6]]
    assert measures.all_alike_share(pairs, 0.6) == 0.5
    assert measures.all_alike_share(pairs, 0.65) == 0 and measures.all_alike_share(pairs[1:2], 0.5) == 1
