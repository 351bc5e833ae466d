"""A head: one small set of 3-D points, displaced by the expression, turned by the pose and projected.

Head units: half a face's width is 1; x to the right of the picture, y down, z towards the viewer, as in insightface's
`meanshape_68`. The projection is orthographic, so `scale` pixels a unit is all there is to it.

**Pose** is (pitch, yaw, roll) in degrees as insightface's `face.pose`, its rotation Rz(roll) Ry(yaw) Rx(pitch):
pitch > 0 looks up, yaw > 0 turns the nose to the right of the picture, roll > 0 tilts the head clockwise.

**The 106 landmarks** of insightface's 2d106det are the 106 points of Face++'s landmark service sorted by their names
(insightface's own mark-up picture is captioned "ordered by point names"). Sorting those names as text gives the order
below, and it agrees with every use found in public code: LivePortrait's eye centers (33, 35, 40, 39 and 87, 89, 94, 93)
and mouth corners (52, 61), and the widespread 106-to-68 table, which is `IBUG68` here. "Left" is the picture's left.

    0        chin                  1..16    left contour 1, 10..16, 2..9 (1 at the eye's height, 16 beside the chin)
    17..32   right contour, same   33 bottom, 34 center, 35 left corner, 36 lower left, 37 lower right, 38 pupil,
                                   39 right corner, 40 top, 41 upper left, 42 upper right of the left eye
    43..51   left brow: left corner, lower left, lower middle, lower right corner, lower right, upper left,
             upper middle, upper right corner, upper right
    52..71   mouth: left corner, lower lip's bottom, its left 1..3, its right 1..3, its top; right corner;
             upper lip's bottom, its left 1..4, its right 1..4, its top
    72..86   nose: bridge 1..3, left 1..5, middle, right 1..5, tip
    87..96   right eye, as the left one
    97..105  right brow: lower left corner, lower left, lower middle, lower right, right corner, upper left corner,
             upper left, upper middle, upper right
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from .person import Person

Points = NDArray[np.float64]

# Left to right, by way of the chin.
CONTOUR = (1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17)
# iBUG's 68 points as indices into the 106: the common table, whose jaw is every second point of the contour.
IBUG68 = (
    *CONTOUR[::2],
    *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
    *(72, 73, 74, 86, 78, 79, 80, 85, 84),
    *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54),
)
KEYPOINTS5 = (38, 92, 86, 52, 61)  # eyes, nose tip, corners of the mouth: the detector's five


@dataclass(frozen=True)
class Expression:
    """What an expression does to a neutral face. Displacements in head units, + is down; factors multiply."""

    brow_inner: float = 0.0
    brow_outer: float = 0.0
    brow_arch: float = 0.0
    lid: float = 1.0  # upper lid's opening, factor
    cheek: float = 0.0  # lower lid pushed up, 0..1
    slant: float = 0.0  # upper lid: + inner side lower, - outer side lower
    pupil: float = 1.0
    corner: float = 0.0  # corners of the mouth
    width: float = 1.0
    sneer: float = 0.0  # the middle of the upper lip goes up
    open_up: float = 0.0
    open_down: float = 0.0
    square: float = 0.0  # 0 a round opening, 1 a rectangular one
    jaw: float = 0.0
    upper_teeth: float = 0.0  # share of the opening
    lower_teeth: float = 0.0
    tongue: float = 0.0
    wrinkle: float = 0.0

    def at(self, strength: float) -> "Expression":
        """Return this expression shown with `strength` (1 is full, 0 neutral)."""
        rest = NEUTRAL.__dict__
        return Expression(**{k: rest[k] + strength * (v - rest[k]) for k, v in self.__dict__.items()})


NEUTRAL = Expression()
EXPRESSIONS: dict[str, Expression] = {
    "neutral": NEUTRAL,
    "happy": Expression(
        brow_inner=-0.06, brow_outer=-0.06, brow_arch=0.05, lid=0.85, cheek=0.45, corner=-0.2, width=1.3,
        open_up=-0.1, open_down=0.3, jaw=0.07, upper_teeth=0.42, tongue=0.5,
    ),
    "sad": Expression(
        brow_inner=-0.22, brow_outer=0.12, brow_arch=-0.03, lid=0.62, slant=-0.16, corner=0.17, width=0.85, pupil=1.05,
    ),
    "anger": Expression(
        brow_inner=0.17, brow_outer=-0.12, lid=0.72, slant=0.2, cheek=0.2, pupil=0.85, corner=0.04, width=1.12,
        open_up=0.08, open_down=0.1, square=1.0, upper_teeth=0.5, lower_teeth=0.44, wrinkle=0.5,
    ),
    "surprise": Expression(
        brow_inner=-0.24, brow_outer=-0.22, brow_arch=0.08, lid=1.45, cheek=-0.3, pupil=0.75, width=0.6,
        open_up=0.1, open_down=0.38, jaw=0.24,
    ),
    "disgust": Expression(
        brow_inner=0.12, brow_outer=0.06, lid=0.42, cheek=0.6, corner=0.16, width=0.95, sneer=0.1,
        open_up=0.02, open_down=0.1, tongue=1.6, jaw=0.05, wrinkle=1.0,
    ),
    "fear": Expression(
        brow_inner=-0.27, brow_outer=0.0, lid=1.3, cheek=-0.2, pupil=0.5, corner=0.13, width=1.15,
        open_up=0.1, open_down=0.24, square=0.7, jaw=0.14, upper_teeth=0.27, lower_teeth=0.22,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """How someone looks at this moment: an expression (a key of EXPRESSIONS) and a pose in degrees."""

    expression: str = "neutral"
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    strength: float = 1.0

    @property
    def pose(self) -> tuple[float, float, float]:
        return (self.pitch, self.yaw, self.roll)


def rotation(pitch: float, yaw: float, roll: float) -> Points:
    """Return the (3, 3) matrix of a pose in degrees; insightface's `matrix2angle` gives the three angles back."""
    (sx, cx), (sy, cy), (sz, cz) = ((math.sin(a), math.cos(a)) for a in map(math.radians, (pitch, yaw, roll)))
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


# insightface's zero is where its mean shape looks; these faces, as drawn, look a little lower.
_REST = rotation(2.6, 0.0, 0.0)

# Profile of the head below the brows: height, half width, depth of the ear's plane, depth of the face's front.
_PROFILE = np.array(
    [
        (-0.55, 1.04, -0.85, 0.36),
        (-0.20, 1.03, -0.90, 0.34),
        (0.10, 1.00, -0.88, 0.34),
        (0.40, 0.92, -0.70, 0.33),
        (0.65, 0.79, -0.45, 0.31),
        (0.85, 0.61, -0.20, 0.29),
        (1.00, 0.38, 0.00, 0.27),
        (1.07, 0.20, 0.10, 0.24),
        (1.10, 0.00, 0.17, 0.19),
    ]
)
_CROWN, _BROW, CHIN = -1.72, -0.55, 1.10
# What a face shape does to the half width at the profile's heights, and to the height of the lower face.
_SHAPES = {
    "oval": ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 1.0),
    "round": ((1.02, 1.04, 1.06, 1.1, 1.14, 1.16, 1.12, 1.1, 1.0), 0.95),
    "square": ((0.99, 1.0, 1.02, 1.08, 1.18, 1.32, 1.5, 1.6, 1.0), 0.98),
    "heart": ((1.05, 1.03, 0.99, 0.93, 0.86, 0.8, 0.78, 0.8, 1.0), 1.02),
    "long": ((0.95, 0.95, 0.95, 0.96, 0.97, 1.0, 1.06, 1.1, 1.0), 1.09),
}
_PIVOT = np.array([0.0, 0.5, -0.65])  # where head meets neck
_MIDDLE = np.array([0.0, -0.45, -0.75])  # of the skull
_FLATNESS = 2.9  # exponent of the rings' superellipse: above 2, the front is flatter than an ellipse's
_FINE = 800.0  # heights of a ring are looked up in steps of a unit over this
_GRID = np.radians(np.linspace(-110.0, 110.0, 56))

_EYES = {  # half width, upper and lower height, how much lower the outer corner lies
    "round": (0.24, 0.25, 0.17, 0.0),
    "almond": (0.27, 0.205, 0.13, -0.06),
    "droopy": (0.26, 0.21, 0.14, 0.06),
    "narrow": (0.27, 0.15, 0.1, -0.02),
}
_BROWS = {  # half thickness, arch
    "thin": (0.03, 0.05), "straight": (0.055, 0.0), "arched": (0.05, 0.11), "thick": (0.1, 0.04),
}  # fmt: skip
_NOSES = {  # half width, how far the tip stands out, how much lower it ends
    "button": (0.19, 0.3, -0.04), "straight": (0.2, 0.4, 0.02), "wide": (0.29, 0.36, 0.0), "long": (0.22, 0.52, 0.09),
}  # fmt: skip
_MOUTHS = {  # half width, thickness of the upper and the lower lip
    "thin": (0.37, 0.045, 0.055), "full": (0.36, 0.1, 0.13), "wide": (0.46, 0.07, 0.09), "small": (0.3, 0.08, 0.1),
}  # fmt: skip


def _points(*coordinates: Points) -> Points:
    """Return (..., 3) points from their coordinates, which spread to one shape."""
    return np.stack(np.broadcast_arrays(*coordinates), axis=-1)


@cache
def _rings(face: str) -> Points:
    """Return a face shape's rings (3, n), crown to chin: half width, depth of the ears, depth of the front."""
    y = np.arange(_CROWN, CHIN + 1 / _FINE, 1 / _FINE)
    widths = _PROFILE[:, 1] * _SHAPES[face][0]
    width, middle, front = (np.interp(y, _PROFILE[:, 0], column) for column in (widths, *_PROFILE.T[2:]))
    crown = np.where(y < _BROW, np.sqrt(np.clip(1 - ((y - _BROW) / (_CROWN - _BROW)) ** 2, 0, 1)), 1)
    return np.stack([width * crown, middle, middle + (front - middle) * crown])


class Head:
    """One person's head in one motion, drawn around `center` (x, y in pixels) with `scale` pixels a unit.

    Methods that return points return them projected: (..., 3) with x, y in pixels and z in pixels towards the viewer.
    """

    def __init__(self, person: Person, motion: Motion, center: tuple[float, float], scale: float):
        self.person, self.motion, self.scale = person, motion, scale
        self.expression = EXPRESSIONS[motion.expression].at(motion.strength)
        self._turn = rotation(*motion.pose) @ _REST * scale
        self._origin = np.array([*center, 0.0]) + _PIVOT * scale
        self._lower = _SHAPES[person.face][1] * (1 + 0.03 * person.chin)
        self._rings = _rings(person.face)
        self.eye = _EYES[person.eye_shape]
        self.nose = _NOSES[person.nose]

    def project(self, points: Points) -> Points:
        """Return (..., 3) pixels of (..., 3) head units."""
        return (points - _PIVOT) @ self._turn.T + self._origin

    # --- the surface -------------------------------------------------------------------------------------------------

    def _ring(self, y: Points) -> Points:
        """Return (3, ...) half width, the ear's depth and the front's depth at heights y (before the jaw drops)."""
        return self._rings[:, np.clip((y - _CROWN) * _FINE, 0, self._rings.shape[1] - 1).astype(np.intp)]

    def _stretch(self, y: Points) -> Points:
        """Return heights as this face shape and this jaw have them: what is below the mouth drops with the jaw."""
        share = np.clip((y - 0.45) / (CHIN - 0.45), 0, 1)
        return np.where(y > 0, y * self._lower, y) + self.expression.jaw * share * share * (3 - 2 * share)

    def surface(self, angle: Points, y: Points, lift: float = 0.0, hang: bool = False) -> Points:
        """Return the skin (..., 3), head units, at `angle` (radians, 0 front, + right) and height y, lifted off it.

        With `hang`, what lies below the ears hangs straight down, as hair does, instead of following the jaw.
        """
        width, middle, front = self._ring(np.minimum(y, 0) if hang else y)
        sine, cosine = np.sin(angle), np.cos(angle)
        radius = (np.abs(sine) ** _FLATNESS + np.abs(cosine) ** _FLATNESS) ** (-1 / _FLATNESS)
        depth = np.where(cosine >= 0, front - middle, np.sqrt(np.clip(width, 0, 1)))
        height = y if hang else self._stretch(y)
        points = _points(width * sine * radius, height, middle + depth * cosine * radius)
        return points + lift * (points - _MIDDLE) * ([1, 0, 1] if hang else 1)

    def around(self, angle: Points, y: Points, lift: float = 0.0, hang: bool = False) -> Points:
        """`surface`, projected; seen or not."""
        return self.project(self.surface(angle, y, lift, hang))

    def seen(self, angle: Points, y: Points, lift: float = 0.0, hang: bool = False) -> Points:
        """Return `around`, but what the head itself hides is pulled back to its outline."""
        angle, y = np.broadcast_arrays(angle, y)
        ring = self.around(_GRID[:, None], y.ravel()[None], lift, hang)[..., 0]
        low, high = _GRID[ring.argmin(0)].reshape(y.shape), _GRID[ring.argmax(0)].reshape(y.shape)
        return self.around(np.clip(angle, low, high), y, lift, hang)

    def on_face(self, xy: Points, lift: float | Points = 0.0, jaw: bool = False) -> Points:
        """Return points (..., 3), head units, `lift` above the front at (..., 2) x, y; with `jaw` they drop with it."""
        x, y = xy[..., 0], xy[..., 1]
        width, middle, front = self._ring(y)
        side = np.clip(1 - np.abs(x / np.maximum(width, 0.05)) ** _FLATNESS, 0, 1) ** (1 / _FLATNESS)
        height = self._stretch(y) if jaw else np.where(y > 0, y * self._lower, y)
        return _points(x, height, middle + (front - middle) * side + lift)

    # --- the features, as curves on the face -------------------------------------------------------------------------

    def lids(self, side: int, t: Points) -> tuple[Points, Points]:
        """Return upper and lower lid (n, 2) at t in [-1, 1], left to right; side -1 is the picture's left eye."""
        e, (half, up, down, slope) = self.expression, self.eye
        size = 1 + 0.1 * self.person.eye_size
        outward = t * side
        x = side * (0.44 + 0.045 * self.person.eye_spacing) + t * half * size
        arc = 1 - np.abs(t) ** 2.2
        line = -0.25 + slope * np.maximum(outward, -0.3)
        upper = line - arc * (up * size * e.lid - e.slant * outward * -0.6 - abs(e.slant) * 0.1)
        lower = line + arc * down * size * (1 - e.cheek)
        return np.column_stack([x, np.minimum(upper, lower - 0.02 * arc)]), np.column_stack([x, lower])

    def iris(self, side: int) -> tuple[Points, float]:
        """Return center (2,) and radius of the iris: it looks a little back to the viewer."""
        x = side * (0.44 + 0.045 * self.person.eye_spacing) - 0.0016 * self.motion.yaw
        look = 0.05 if self.motion.expression == "sad" else 0.0
        return np.array([x, -0.25 - 0.025 + look * self.motion.strength]), 0.16 * (1 + 0.1 * self.person.eye_size)

    def brow(self, side: int, t: Points) -> tuple[Points, Points]:
        """Return upper and lower edge (n, 2) of a brow at t in [-1, 1], left to right."""
        e, (thick, arch) = self.expression, _BROWS[self.person.brows]
        out = (t * side + 1) / 2
        x = side * (0.17 + 0.57 * out + 0.03 * self.person.eye_spacing)
        middle = -0.645 + 0.03 * out - (arch + e.brow_arch) * np.sin(math.pi * out**1.2)
        middle = middle + e.brow_inner * (1 - out) ** 1.2 + e.brow_outer * out
        half = thick * np.clip(1.15 - out**3, 0.25, 1)
        return np.column_stack([x, middle - half]), np.column_stack([x, middle + half])

    def lips(self, t: Points) -> tuple[Points, Points, Points, Points]:
        """Return four curves (n, 2) at t in [-1, 1]: upper lip's top and bottom, lower lip's top and bottom."""
        e, (half, upper, lower) = self.expression, _MOUTHS[self.person.mouth]
        x = t * half * e.width
        round_arc, square_arc = np.sqrt(np.clip(1 - t * t, 0, 1)), np.clip(1 - t**8, 0, 1)
        arc = round_arc + e.square * (square_arc - round_arc)
        line = 0.56 + (e.corner - 0.03) * (np.abs(t) ** 1.7 - 0.35)
        bottom = line - e.open_up * arc - e.sneer * (1 - np.abs(t)) * 1.2
        top = line + e.open_down * arc
        bow = 1 - np.abs(t) ** 2 - 0.25 * np.exp(-((t / 0.2) ** 2))
        edges = bottom - upper * bow, bottom, np.maximum(top, bottom), np.maximum(top, bottom) + lower * round_arc
        return tuple(np.column_stack([x, y]) for y in edges)  # type: ignore[return-value]

    def nose_points(self) -> Points:
        """Return insightface's points 72..86, (15, 3) head units."""
        half, height, drop = self.nose
        bridge = [(0.0, -0.27, 0.1), (0.0, -0.13, 0.38 * height + 0.06), (0.0, 0.02, 0.75 * height + 0.04)]
        right = [
            (0.13, -0.22, 0.0), (0.55 * half, 0.02, 0.12), (0.95 * half, 0.14 + drop, 0.12), (half, 0.22 + drop, 0.08),
            (0.5 * half, 0.27 + drop, 0.16),
        ]  # fmt: skip
        left = [(-x, y, rise) for x, y, rise in right]
        points = np.array([*bridge, *left, (0.0, 0.29 + drop, 0.2), *right, (0.0, 0.15 + drop, height)])
        return self.on_face(points[:, :2], points[:, 2])

    # --- the truth ---------------------------------------------------------------------------------------------------

    @cached_property
    def points(self) -> Points:
        """Return the 106 landmarks, (106, 3) head units, the contour on the jaw itself (where 1k3d68 puts it)."""
        out = np.empty((106, 3))
        out[list(CONTOUR)] = self.surface(*self.jaw)
        quarters = np.array([-1, -0.5, 0, 0.5, 1.0])
        for side, eye, brow in ((-1, 33, 43), (1, 87, 97)):
            up, low = (self.on_face(p, 0.03) for p in self.lids(side, quarters))
            out[[eye + i for i in (2, 8, 7, 9, 6)]] = up
            out[[eye + i for i in (3, 0, 4)]] = low[1:4]
            out[eye + 1] = (up[2] + low[2]) / 2
            out[eye + 5] = self.on_face(self.iris(side)[0], 0.03)
            up, low = (self.on_face(p, 0.05) for p in self.brow(side, quarters))
            above, below = ((0, 5, 6, 8, 7), (0, 1, 2, 4, 3)) if side < 0 else ((5, 6, 7, 8, 4), (0, 1, 2, 3, 4))
            out[[brow + i for i in below]] = low
            out[[brow + i for i in above]] = up
            corner = 0 if side < 0 else 4  # the outer end is one point, between the edges
            out[brow + corner] = (up[0 if side < 0 else 4] + low[0 if side < 0 else 4]) / 2
        top, _, _, low = (self.on_face(p, 0.05) for p in self.lips(np.array([-1, -0.6, -0.25, 0, 0.25, 0.6, 1])))
        _, upper, lower, _ = (self.on_face(p, 0.05) for p in self.lips(np.array([-0.9, -0.4, 0, 0.4, 0.9])))
        out[[52, 64, 63, 71, 67, 68, 61]] = top
        out[[55, 56, 53, 59, 58]] = low[1:6]
        out[[65, 66, 62, 70, 69]] = upper
        out[[54, 60, 57]] = lower[1:4]
        out[72:87] = self.nose_points()
        return out

    @cached_property
    def jaw(self) -> tuple[Points, Points]:
        """Angle and height of the 33 contour points, evenly along the jaw from the picture's left to its right."""
        y = np.concatenate([np.linspace(-0.25, 0.9, 40), np.linspace(0.9, CHIN, 40)[1:]])
        outline = np.column_stack([self._ring(y)[0], self._stretch(y)])
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
        half = np.interp(np.linspace(0, along[-1], 17), along, y)
        angle = np.full(17, math.pi / 2)
        return np.concatenate([-angle, angle[:-1]]), np.concatenate([half, half[-2::-1]])

    def landmarks(self) -> Points:
        """Return the 106 landmarks, (106, 2) pixels. The contour lies on the visible outline, as annotated."""
        out = self.project(self.points)[:, :2]
        contour = self.seen(*self.jaw)[:, :2]
        contour[16] = out[0]  # the chin is a point of its own: it has no outline to be pulled to
        out[list(CONTOUR)] = contour
        return out

    def points68(self) -> Points:
        """Return the 68 points, (68, 3) pixels, in iBUG's order; z towards the viewer."""
        return self.project(self.points)[list(IBUG68)]

    def face_outline(self, top: float = -1.05) -> Points:
        """Return points (n, 2), pixels, whose hull is the face, from height `top` (the hairline) down."""
        y = np.linspace(top, CHIN, 24)
        return self.around(_GRID[5:-5, None], y[None])[..., :2].reshape(-1, 2)
