"""From a scene to a picture, with the exact truth of every face in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas
from .composition import Scene
from .head import KEYPOINTS5, Head, Motion
from .paint import Painter
from .person import Person
from .place import paint_place


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceGeometry:
    """Where faces are, one or (first axes) many. In pixels, whose centers lie at halves.

    Attributes:
        pose: (3,) float32, pitch, yaw, roll in degrees, as insightface's `face.pose`.
        box: (4,) float32, x0, y0, x1, y1: from the forehead to the chin, both cheeks, within the picture.
        keypoints: (5, 2) float32: left and right eye, tip of the nose, left and right corner of the mouth.
        landmarks: (106, 2) float32, insightface's order (see `head`).
        points68: (68, 3) float32, iBUG's order; z in pixels towards the viewer, 0 where head meets neck.
    """

    pose: NDArray[np.float32]
    box: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    points68: NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceTruth(FaceGeometry):
    """What is true of one face.

    Attributes:
        person: who it is, with all factors; `person.seed` is the person's id.
        motion: expression, and the pose in degrees.
        mask: (H, W) bool, where this person is seen: body, hair and head.
        head_mask: (H, W) bool, hair and head alone.
    """

    person: Person
    motion: Motion
    mask: NDArray[np.bool_]
    head_mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Picture:
    """image: (H, W, 3) uint8 RGB; faces: from the picture's left to its right; scene: what was drawn."""

    image: NDArray[np.uint8]
    faces: tuple[FaceTruth, ...]
    scene: Scene


def _truth(head: Head, scene: Scene, owned: NDArray[np.uint8], owner: int) -> FaceTruth:
    landmarks, points68 = head.landmarks(), head.points68()
    around = np.concatenate([landmarks, head.face_outline(-0.95)])
    low, high = around.min(0), around.max(0)
    size = [scene.width, scene.height]
    box = np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)])
    return FaceTruth(
        person=head.person,
        motion=head.motion,
        pose=np.array(head.motion.pose, np.float32),
        box=box.astype(np.float32),
        keypoints=landmarks[list(KEYPOINTS5)].astype(np.float32),
        landmarks=landmarks.astype(np.float32),
        points68=points68.astype(np.float32),
        mask=(owned == owner) | (owned == owner + 1),
        head_mask=owned == owner + 1,
    )


def render(scene: Scene) -> Picture:
    """Draw a scene. The same scene gives the same picture, bit for bit."""
    canvas = Canvas(scene.width, scene.height)
    paint_place(canvas, scene.place, scene.seed)
    # Larger faces are nearer: they are painted last. Equal ones from the left. A body's owner is odd, a head's even.
    order = sorted(range(len(scene.figures)), key=lambda i: scene.figures[i].scale)
    heads = {i: Painter(canvas, scene.figures[i], 1 + 2 * i).paint() for i in order}
    owned = canvas.owned()
    faces = tuple(_truth(heads[i], scene, owned, 1 + 2 * i) for i in sorted(heads))
    return Picture(canvas.image(), faces, scene)
