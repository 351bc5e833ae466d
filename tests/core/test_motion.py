"""Prompts in the release's words, and landmarks of rendered people moved where truth has them."""

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.imr.landmarks import Points
from dynamicid_pack.dynamicid_core.imr.motion import FacialMotion, face_prompt, source_motion, target_motion
from dynamicid_pack.mini.world.head import Head, Motion
from dynamicid_pack.mini.world.person import draw_person

SIZE = (480, 640)  # height, width: not a square


def face(seed: int, motion: Motion) -> Face:
    """A rendered face's truth as an analyzer would tell it."""
    head = Head(draw_person(seed), motion, (300.0, 240.0), 90.0)
    squash = np.array([512 / SIZE[1], 512 / SIZE[0]])
    return Face(
        landmarks=torch.from_numpy(head.landmarks() * squash).float(),
        points68=torch.from_numpy(head.points68()).float(),
        pose=motion.pose,
        size=SIZE,
    )


def landmarks_of(motion: FacialMotion) -> Points:
    assert motion.landmarks is not None
    return motion.landmarks


def off(result: np.ndarray, true: Face) -> float:
    """Median distance in the squashed picture, in face widths."""
    assert true.landmarks is not None
    width = np.ptp(true.landmarks.numpy()[:, 0])
    return float(np.median(np.linalg.norm(result - true.landmarks.numpy(), axis=1)) / width)


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        (("happy", 0, 0), "in a happy expression, in front view"),
        (("sad", 11, -9.9), "in a sad expression, facing up, in front view"),
        (("slightly amused", -10.1, 10), "in a slightly amused expression, facing down, in side view"),
    ],
)
def test_prompts_are_the_releases(requested, words):
    assert face_prompt(*requested) == words


def test_a_prompt_of_ones_own_is_taken_as_it_is():
    reference = face(0, Motion())
    assert (
        source_motion(reference, prompt="winking").prompt
        == target_motion(reference, prompt="winking").prompt
        == "winking"
    )


def test_words_alone_leave_the_landmarks():
    reference = face(0, Motion(yaw=20.0))
    result = target_motion(reference, "anger")
    assert result.prompt == "in a anger expression, in side view"
    assert np.array_equal(landmarks_of(result), landmarks_of(source_motion(reference)))


def test_yaw_and_pitch_move_landmarks_and_words():
    reference, true = face(1, Motion()), face(1, Motion(yaw=30.0, pitch=12.0))
    result = target_motion(reference, "happy", yaw=30.0, pitch=12.0)
    assert result.prompt == "in a happy expression, facing up, in side view"
    assert off(landmarks_of(result), true) < 0.03 < off(landmarks_of(source_motion(reference)), true)


def test_a_driver_of_the_same_person_leads_to_their_own_landmarks():
    reference, true = face(2, Motion()), face(2, Motion("surprise", -20.0))
    result = target_motion(reference, "surprise", driver=true)
    assert result.prompt.endswith("in side view") and off(landmarks_of(result), true) < 0.02


def test_strength_leads_from_here_to_the_driver():
    reference, driver = face(3, Motion()), face(4, Motion("happy", 20.0))
    own = landmarks_of(source_motion(reference))
    half, whole = (landmarks_of(target_motion(reference, driver=driver, strength=s)) for s in (0.5, 1.0))
    assert np.array_equal(landmarks_of(target_motion(reference, driver=driver, strength=0.0)), own)
    near, far = (float(np.linalg.norm(points - own, axis=1).mean()) for points in (half, whole))
    assert 0.3 * far < near < 0.7 * far


def test_without_a_face_there_are_words():
    result = target_motion(None, "fear", yaw=40.0)
    assert result.landmarks is None and result.prompt == "in a fear expression, in side view"


def test_without_depth_the_landmarks_stay():
    whole = face(5, Motion())
    flat = Face(landmarks=whole.landmarks, pose=whole.pose)
    assert np.array_equal(landmarks_of(target_motion(flat, yaw=30.0)), landmarks_of(source_motion(whole)))
    with pytest.raises(ValueError, match="no 3-D points"):
        target_motion(whole, driver=flat)
