"""Landmarks against the paper's keypoint picture and against rendered heads, whose truth is exact."""

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.imr import landmarks as lm
from dynamicid_pack.mini.world.head import EXPRESSIONS, IBUG68, Head, Motion
from dynamicid_pack.mini.world.head import rotation as mini_rotation
from dynamicid_pack.mini.world.person import draw_person
from dynamicid_pack.tests.support import GOLDEN
from safetensors.torch import load_file

CENTRE, SCALE = (256.0, 250.0), 90.0


def head(seed: int, motion: Motion) -> Head:
    return Head(draw_person(seed), motion, CENTRE, SCALE)


def turned(points, points68, pose, yaw=0.0, pitch=0.0):
    """Landmarks (106, 2) after the head turned further."""
    frame = lm.Frame(points68, pose)
    target = (pose[0] + pitch, pose[1] + yaw, pose[2])
    return frame.outward(frame.inward(lm.with_depth(points, points68)), target)[:, :2]


def width(face: Head) -> float:
    return float(np.ptp(face.landmarks()[list(lm.CONTOUR), 0]))


def test_the_keypoint_picture_is_the_papers():
    data = load_file(GOLDEN / "landmark_picture.safetensors")
    assert np.array_equal(lm.keypoint_image(data["landmarks_512"].numpy()), data["picture"].numpy())


def test_the_order_and_the_angles_are_the_renderers():
    assert lm.IBUG68 == IBUG68
    for pose in ((10.0, -20.0, 5.0), (-15.0, 40.0, 0.0)):
        assert np.allclose(lm.rotation(pose), mini_rotation(*pose))


def test_every_point_has_a_depth():
    face = head(1, Motion(yaw=-20))
    result = lm.with_depth(face.landmarks(), face.points68())
    true = face.project(face.points)
    assert np.isfinite(result).all()
    inner = [i for i in range(106) if i not in lm.CONTOUR]
    assert np.median(np.abs(result - true)[inner, 2]) < 0.02 * SCALE
    assert np.abs(result - true)[inner, 2].max() < 0.25 * SCALE


@pytest.mark.parametrize("yaw", [-30.0, 30.0])
@pytest.mark.parametrize("source", [-20.0, 0.0, 20.0])
def test_a_turned_face_lies_where_the_renderer_draws_it(yaw, source):
    """Within 3 % of the face's width (median), for every expression."""
    off = []
    for seed, expression in enumerate(EXPRESSIONS):
        face, goal = (head(seed, Motion(expression, source + more, 4.0)) for more in (0.0, yaw))
        result = turned(face.landmarks(), face.points68(), (4.0, source, 0.0), yaw)
        off.append(np.linalg.norm(result - goal.landmarks(), axis=1) / width(face))
    assert np.median(np.stack(off)) < 0.03


def test_pitch_moves_too():
    face, goal = (head(3, Motion("happy", 10.0, pitch)) for pitch in (0.0, 15.0))
    result = turned(face.landmarks(), face.points68(), (0.0, 10.0, 0.0), pitch=15.0)
    assert np.median(np.linalg.norm(result - goal.landmarks(), axis=1)) < 0.03 * width(face)


def test_no_turn_changes_nothing():
    face = head(2, Motion("sad", 20.0))
    points = face.landmarks()
    assert np.allclose(turned(points, face.points68(), (0.0, 20.0, 0.0)), points)


@pytest.mark.parametrize("expression", list(EXPRESSIONS))
def test_a_driver_keeps_this_faces_proportions(expression):
    face, driver = head(5, Motion(yaw=-15.0)), head(6, Motion(expression, 25.0))
    frames = [lm.Frame(face.points68(), (0.0, -15.0, 0.0)), lm.Frame(driver.points68(), (0.0, 25.0, 0.0))]
    own, others = (
        frame.inward(lm.with_depth(h.landmarks(), h.points68()))
        for frame, h in zip(frames, (face, driver), strict=True)
    )
    result = lm.transfer_expression(others, own)

    def distance(points, a, b):
        return points[b, 0] - points[a, 0]

    for a, b in ((lm.LEFT_EYE, lm.RIGHT_EYE), (lm.CONTOUR[0], lm.CONTOUR[-1])):
        assert distance(result, a, b) == pytest.approx(distance(own, a, b), rel=0.02)


def test_a_driver_brings_its_mouth():
    """A closed mouth opens as far as the driver's, in parts of the face."""
    face, driver = head(5, Motion()), head(6, Motion("surprise"))
    own, others = (
        lm.Frame(h.points68(), (0.0, 0.0, 0.0)).inward(lm.with_depth(h.landmarks(), h.points68()))
        for h in (face, driver)
    )
    result = lm.transfer_expression(others, own)
    upper, lower = 62, 60  # the middle of the lips' inner edges

    def opening(points):
        return points[lower, 1] - points[upper, 1]

    assert opening(own) < 0.05
    assert opening(result) == pytest.approx(opening(others), rel=0.25)


def test_a_point_on_the_edge_is_left_out_and_the_next_one_drawn() -> None:
    """0 < x < 96 after the division by 512 / 96: 0 is outside, a fraction of a pixel lands in column 0."""
    assert not lm.keypoint_image(np.array([[0.0, 100.0], [100.0, 0.0]])).any()
    assert lm.keypoint_image(np.array([[0.75, 100.0]]))[18, 0] == 255
