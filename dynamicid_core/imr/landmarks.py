"""The 106 landmarks: their order, their depth, the keypoint image that IMR sees, and how they move with the head.

Points are (106, 2) in pixels of their image, x to the right and y down, in the order of insightface's 2d106det:

    0        chin
    1..16    left contour, from the eye's height down: 1, 9..16, 2..8
    17..32   right contour, the same: 17, 25..32, 18..24
    33..42   left eye: bottom, center, left corner, lower left, lower right, pupil, right corner, top, upper left, right
    43..51   left brow: left corner, lower left, middle, right corner, right; upper left, middle, right corner, right
    52..71   mouth
    72..86   nose: bridge (3), left side down (5), below its tip, right side down (5), tip
    87..96   right eye, as the left
    97..105  right brow: lower left corner, left, middle, right; right corner; upper left corner, left, middle, right

"Left" is the image's left. A pose is (pitch, yaw, roll) in degrees as insightface's `face.pose` has it: pitch > 0
looks up, yaw > 0 turns the nose to the image's right.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Points = NDArray[np.float64]

FRAME, KEYPOINT_SIDE = 512, 96  # pixels a side: the squashed image that has the landmarks; the keypoint image

# iBUG's 68 points, which 1k3d68 gives in three dimensions, as places among the 106.
IBUG68 = (
    *(1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
    *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
    *(72, 73, 74, 86, 78, 79, 80, 85, 84),
    *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54),
)
# Left to right, by way of the chin: every second one is of the 68.
CONTOUR = (1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17)
# Points that are none of the 68: those whose mean depth is theirs.
_BETWEEN = {CONTOUR[i]: (CONTOUR[i - 1], CONTOUR[i + 1]) for i in range(1, 33, 2)} | {
    33: (36, 37), 40: (41, 42), 34: (35, 39), 38: (35, 39), 87: (90, 91), 94: (95, 96), 88: (89, 93), 92: (89, 93),
    44: (48,), 45: (49,), 46: (50,), 47: (51,), 97: (102,), 98: (103,), 99: (104,), 100: (105,),
    75: (72, 39), 81: (72, 89), 76: (74, 78), 82: (74, 84), 77: (78,), 83: (84,),
}  # fmt: skip
# The head turns about its neck: this far below and behind the middle of its 68 points, in half face widths (measured on
# drawn heads).
_PIVOT = np.array([0.0, 0.35, -0.78])

LEFT_EYE, RIGHT_EYE, NOSE_END = 34, 88, 80


def keypoint_image(landmarks: Points) -> NDArray[np.uint8]:
    """Return (96, 96) uint8, 0 or 255: the keypoint encoder's input before it is brought to [-1, 1].

    Args:
        landmarks: (n, 2) in the image squashed to FRAME x FRAME, its aspect lost; points beyond it are left out.
    """
    points = np.asarray(landmarks, np.float64) / (FRAME / KEYPOINT_SIDE)
    inside = points[((points > 0) & (points < KEYPOINT_SIDE)).all(1)].astype(int)
    image = np.zeros((KEYPOINT_SIDE, KEYPOINT_SIDE), np.uint8)
    image[inside[:, 1], inside[:, 0]] = 255
    return image


def rotation(pose: tuple[float, float, float]) -> Points:
    """Return the (3, 3) matrix of (pitch, yaw, roll) in degrees; x right, y down, z towards the viewer."""
    return np.asarray(Rotation.from_euler("xyz", pose, degrees=True).as_matrix())


def with_depth(landmarks: Points, points68: Points) -> Points:
    """Return (106, 3): flat landmarks with the depth of the same face's 68 3-D points (68, 3), all in pixels."""
    depth = np.full(106, np.nan)
    depth[list(IBUG68)] = points68[:, 2]
    for point, others in _BETWEEN.items():
        depth[point] = depth[list(others)].mean()
    return np.column_stack([landmarks, depth])


class Frame:
    """A head's position and pose: takes points of the image into the head's space, and back.

    In the head's space the face looks at the viewer, the pivot is at 0, and half the face's width is 1.
    """

    def __init__(self, points68: Points, pose: tuple[float, float, float]):
        self.turn = rotation(pose)
        self.scale = float(np.linalg.norm(points68[16] - points68[0])) / 2
        self.pivot: Points = points68.mean(0) + self.turn @ _PIVOT * self.scale

    def inward(self, points: Points) -> Points:
        """Return points (n, 3) of the image in the head's space."""
        return (points - self.pivot) @ self.turn / self.scale

    def outward(self, points: Points, pose: tuple[float, float, float]) -> Points:
        """Return points (n, 3) of the head's space in the image, the head being turned to `pose`."""
        return points @ rotation(pose).T * self.scale + self.pivot


def transfer_expression(driver: Points, face: Points) -> Points:
    """Return the driver's expression on this face's proportions, all (106, 3) in a head's space.

    Widths follow the contour and the eyes, heights the eyes and the end of the nose: none of these moves with the
    expression, and what does move keeps its place between them.
    """
    columns = [(points[CONTOUR[0], 0], points[LEFT_EYE, 0], points[RIGHT_EYE, 0], points[CONTOUR[-1], 0])
               for points in (driver, face)]  # fmt: skip
    moved = driver.copy()
    moved[:, 0] = _stretched(driver[:, 0], *columns)
    levels = [((points[LEFT_EYE, 1] + points[RIGHT_EYE, 1]) / 2, points[NOSE_END, 1]) for points in (driver, face)]
    moved[:, 1] = _stretched(driver[:, 1], *levels)
    moved[:, 2] = face[:, 2]
    return moved


def _stretched(values: Points, knots: tuple[float, ...], to: tuple[float, ...]) -> Points:
    """Return values through the piecewise linear map of `knots` to `to`, which goes on straight beyond the ends."""
    inner = np.interp(values, knots, to)
    low, high = (to[1] - to[0]) / (knots[1] - knots[0]), (to[-1] - to[-2]) / (knots[-1] - knots[-2])
    below, above = values < knots[0], values > knots[-1]
    inner[below] = to[0] + (values[below] - knots[0]) * low
    inner[above] = to[-1] + (values[above] - knots[-1]) * high
    return inner
