"""MediaPipe's mesh as the 106 landmarks: what can be shown without its weights, on a mesh laid over a drawn head.

That each number names the right place of MediaPipe's mesh rests on its published mesh, not on these tests.
"""

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.imr import mediapipe
from dynamicid_pack.dynamicid_core.imr.landmarks import CONTOUR, rotation
from dynamicid_pack.dynamicid_core.imr.motion import target_motion
from dynamicid_pack.mini.world.head import Head, Motion
from dynamicid_pack.mini.world.person import draw_person
from dynamicid_pack.tests.mirror import MIRROR106

SIZE = (480, 640)
POSE = (8.0, -20.0, 5.0)


def mesh_over(head: Head) -> np.ndarray:
    """(478, 3) pixels: the mesh points that are asked for, where the head has them; the others in its middle."""
    true = head.project(head.points)
    true[:, :2] = head.landmarks()
    mesh = np.tile(true.mean(0), (478, 1))
    for point, others in mediapipe._MESH.items():
        mesh[list(others)] = true[point]
    for outline, points in ((mediapipe._LEFT_OUTLINE, CONTOUR[:17]), (mediapipe._RIGHT_OUTLINE, CONTOUR[:15:-1])):
        mesh[list(outline)] = mediapipe._along(true[list(points)], len(outline))
    return mesh


def payload(head: Head, pose=POSE) -> dict:
    mesh = mesh_over(head)
    down = np.diag([1.0, -1.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = 7.0 * down @ rotation(pose) @ down
    units = mesh * [0.4, 0.4, -0.4] + [20, 30, 0]
    face = {"landmarks_xy": mesh[:, :2], "landmarks_3d": units, "transformation_matrix": matrix, "score": 0.9}
    return {"frames": [[face]], "image_size": SIZE}


@pytest.fixture
def head() -> Head:
    pitch, yaw, roll = POSE
    return Head(draw_person(7), Motion("surprise", yaw, pitch, roll), (300.0, 240.0), 90.0)


def test_all_106_are_there_and_left_is_not_right():
    named = {*mediapipe._MESH, *CONTOUR}
    assert named == set(range(106))
    used = [i for others in mediapipe._MESH.values() for i in others]
    assert max(used) < 478
    mirrored = {point: others for point, others in mediapipe._MESH.items() if MIRROR106[point] != point}
    for point, others in mirrored.items():
        assert set(others).isdisjoint(mediapipe._MESH[MIRROR106[point]])


def test_the_landmarks_the_depth_and_the_pose_come_through(head: Head):
    face = mediapipe.face_from(payload(head))
    assert face.landmarks is not None and face.points68 is not None
    result = face.landmarks.numpy() / [512 / SIZE[1], 512 / SIZE[0]]
    width = np.ptp(head.landmarks()[:, 0])
    # eyes' centres and brows' corners are means of points that lie apart on a real mesh
    assert np.median(np.linalg.norm(result - head.landmarks(), axis=1)) < 0.01 * width
    assert face.pose == pytest.approx(POSE, abs=1e-6) and face.size == SIZE
    inner = face.points68.numpy()[17:, 2] - face.points68.numpy()[17:, 2].mean()
    true = head.points68()[17:, 2] - head.points68()[17:, 2].mean()
    assert np.corrcoef(inner, true)[0, 1] > 0.99 and np.ptp(inner) == pytest.approx(np.ptp(true), rel=0.05)


def test_it_drives_another_face(head: Head):
    driver = mediapipe.face_from(payload(head))
    other = Head(draw_person(8), Motion(), (256.0, 240.0), 80.0)
    face = mediapipe.face_from(payload(other, (0.0, 0.0, 0.0)))
    result = target_motion(face, "surprise", driver=driver)
    assert face.landmarks is not None and result.landmarks is not None
    goal = Head(draw_person(8), Motion("surprise", POSE[1], POSE[0], POSE[2]), (256.0, 240.0), 80.0)
    true = goal.landmarks() * [512 / SIZE[1], 512 / SIZE[0]]
    off, before = (
        np.median(np.linalg.norm(points - true, axis=1)) for points in (result.landmarks, face.landmarks.numpy())
    )
    assert off < 0.06 * np.ptp(true[:, 0]) < 2 * off < before  # not nothing: no two people are surprised alike
    assert result.prompt == "in a surprise expression, in side view"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["frames"][0].clear(), "0 faces were found"),
        (lambda p: p["frames"][0][0].update(landmarks_xy=np.zeros((68, 2))), "Expected MediaPipe's 478"),
    ],
)
def test_other_landmarks_are_refused(head: Head, change, message: str):
    data = payload(head)
    change(data)
    with pytest.raises(ValueError, match=message):
        mediapipe.face_from(data)


@pytest.mark.parametrize(
    ("shapes", "expression"),
    [
        ({}, "neutral"),
        ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.7}, "happy"),
        ({"jawOpen": 0.7, "browInnerUp": 0.6, "browOuterUpLeft": 0.5, "browOuterUpRight": 0.5}, "surprise"),
        ({"browDownLeft": 0.5, "browDownRight": 0.6}, "anger"),
        ({"mouthSmileLeft": 0.2, "mouthSmileRight": 0.2}, "neutral"),
    ],
)
def test_blendshapes_tell_the_expression(head: Head, shapes: dict, expression: str):
    data = payload(head)
    data["frames"][0][0]["blendshapes"] = shapes
    assert mediapipe.expression_from(data) == expression


def test_without_a_face_no_expression_is_shown(head: Head):
    data = payload(head)
    data["frames"][0].clear()
    with pytest.raises(ValueError, match="0 faces were found"):
        mediapipe.expression_from(data)
