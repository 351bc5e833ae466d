"""People, painted from the back to the front: hair behind, body, skull, ears, face, features, fringe, glasses."""

import math

import numpy as np
from numpy.typing import ArrayLike

from .canvas import Canvas, Color, ellipse, hull, mix, smooth
from .composition import Figure
from .head import Head, Points
from .palette import CLOTHES, DARK, FRAMES, HAIR, IRIS, SKIN, WHITE

# Hair style: lift of the volume off the skull, how far down it goes at the sides, heights of its front edge.
_VOLUME = {
    "buzz": (0.03, -0.1), "short": (0.1, 0.05), "quiff": (0.09, 0.0), "spiky": (0.09, 0.0), "curly": (0.14, 0.25),
    "afro": (0.3, 0.2), "bob": (0.2, 0.8), "long": (0.15, 0.9), "bun": (0.07, 0.1), "pigtails": (0.09, 0.1),
}  # fmt: skip
_COVERS_EARS = ("bob", "long", "afro", "curly")


def _turns(low: float, high: float, steps: int) -> Points:
    return np.radians(np.linspace(low, high, steps))


def _heights(low: float, steps: int, top: float = -1.72) -> Points:
    """Return heights from the crown down to `low`, closer together near the crown, where the skull is round."""
    return top + (low - top) * np.linspace(0, 1, steps) ** 2


class Painter:
    """Paints one figure, whose body belongs to the canvas's `owner` and whose head to `owner + 1`."""

    def __init__(self, canvas: Canvas, figure: Figure, owner: int):
        self.canvas, self.figure, self.owner = canvas, figure, owner
        self.head = Head(figure.person, figure.motion, (figure.x, figure.y), figure.scale)
        self.unit = figure.scale
        self.person = figure.person
        self.skin = SKIN[self.person.skin]
        self.shade = mix(self.skin, (110, 40, 60), 0.22)
        self.hair = HAIR[self.person.hair_colour]
        self.hair_shade = mix(self.hair, (30, 16, 40), 0.3)
        self.cover = mix(self.hair, self.skin, 0.3) if self.person.hair == "buzz" else self.hair
        self.neck = np.array([figure.x, figure.y + 0.5 * self.unit])

    def paint(self) -> Head:
        self._hair_behind()
        self._body()
        self._skull()
        self._face()
        self._beard()
        self._nose()
        self._mouth()
        for side in (-1, 1):
            self._eye(side)
        self._fringe()
        for side in (-1, 1):
            self._brow(side)
        if self.person.glasses != "none":
            self._glasses()
        return self.head

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _fill(self, points: Points, color: Color, alpha: float = 1.0, part: int | None = None) -> None:
        self.canvas.fill(points, color, alpha, None if part is None else self.owner + part)

    def _line(self, points: Points, color: Color, width: float, alpha: float = 1.0, closed: bool = False) -> None:
        """Draw a stroke `width` head units wide."""
        self.canvas.line(points, color, width * self.unit, alpha, closed)

    def _on_face(self, xy: ArrayLike, lift: float = 0.0, jaw: bool = False) -> Points:
        """Project points (n, 2) that lie `lift` above the face."""
        return self.head.project(self.head.on_face(np.asarray(xy, float), lift, jaw))

    def _spot(self, x: float, y: float, rx: float, ry: float, lift: float = 0.0) -> Points:
        """Return an ellipse that lies on the face."""
        return self._on_face(ellipse(x, y, rx, ry, 16), lift)

    def _oval(self, at: Points, rx: float, ry: float, steps: int = 20) -> Points:
        """Return an upright ellipse at `at` (pixels), its radii in head units."""
        return ellipse(at[0], at[1], rx * self.unit, ry * self.unit, steps)

    def _down(self, *points: tuple[float, float]) -> Points:
        """Return points of the body, given in head units from the base of the head."""
        return self.neck + np.array(points, float) * self.unit

    # --- body ---------------------------------------------------------------------------------------------------------

    def _body(self) -> None:
        cloth = CLOTHES[self.figure.colour]
        dark, pale = mix(cloth, (20, 10, 50), 0.24), mix(cloth, WHITE, 0.3)
        garment = self.figure.garment
        if garment == "hoodie":
            hood = self._down((-1.15, 1.2), (-0.95, 0.35), (0, 0.1), (0.95, 0.35), (1.15, 1.2))
            self._fill(smooth(hood), dark, part=0)
        right = [(0.4, 0.88), (1.0, 1.02), (1.72, 1.3), (2.0, 1.9), (2.1, 3.6)]
        outline = self._down(*[(-x, y) for x, y in reversed(right)], *right)
        self._fill(smooth(outline, 2, closed=False), cloth, part=0)
        for side in (-1, 1):  # sleeves
            sleeve = self._down((side * 1.42, 3.4), (side * 1.4, 2.3), (side * 1.5, 1.9))
            self._line(smooth(sleeve, closed=False), dark, 0.07)
        neckline = self._down(*ellipse(0, 0.92, 0.66, 0.42, 24))
        if garment == "t-shirt":
            self._fill(neckline, dark)
        elif garment == "hoodie":
            self._fill(self._down(*ellipse(0, 0.98, 0.86, 0.48, 24)), dark)
            for side in (-1, 1):
                self._line(self._down((side * 0.3, 1.3), (side * 0.34, 2.1)), pale, 0.07)
        elif garment == "sweater":
            with self.canvas.inside(smooth(outline, 2, closed=False)):
                for y in (1.62, 2.02, 2.42):
                    self._fill(self._down((-2.2, y), (2.2, y), (2.2, y + 0.17), (-2.2, y + 0.17)), pale)
        if garment != "sweater":
            self._fill(self._down(*ellipse(0, 0.86, 0.54, 0.38, 24)), self.skin, part=0)
        self._fill(self._down((-0.46, -0.1), (0.46, -0.1), (0.52, 0.98), (-0.52, 0.98)), self.skin, part=0)
        chin = hull(self.head.face_outline()) + self.unit * np.array([0.04, 0.2])
        with self.canvas.inside(self._down((-0.46, -0.1), (0.46, -0.1), (0.52, 0.98), (0, 1.24), (-0.52, 0.98))):
            self._fill(chin, self.shade)
        if garment == "sweater":
            collar = self._down((-0.6, 0.72), (0, 0.86), (0.6, 0.72), (0.66, 1.08), (0, 1.28), (-0.66, 1.08))
            self._fill(smooth(collar), dark, part=0)
        if garment == "shirt":
            self._line(self._down((0, 1.3), (0, 3.4)), dark, 0.06)
            for y in (1.62, 2.1, 2.58):
                self._fill(self._down(*ellipse(0.13, y, 0.06, 0.06, 10)), dark)
            for side in (-1, 1):
                flap = [(side * x, y) for x, y in ((0.5, 0.74), (0.76, 1.0), (0.42, 1.5), (0.0, 1.24))]
                self._fill(self._down(*flap), mix(cloth, WHITE, 0.45), part=0)
                self._line(self._down(*flap), dark, 0.045, closed=True)

    # --- hair, skull, ears -------------------------------------------------------------------------------------------

    def _hair_behind(self) -> None:
        style = self.person.hair
        if style == "long":
            y = np.linspace(-1.0, 2.2, 12)[None]
            panel = self.head.around(np.radians([[80.0], [-80.0], [115.0], [-115.0], [180.0]]), y, 0.22, hang=True)
            self._fill(hull(panel), self.hair_shade, part=1)
        elif style == "pigtails":
            for side in (-1, 1):
                x = side * np.array([1.12, 1.5, 1.86, 1.8, 1.5, 1.4, 1.3])
                tail = np.column_stack([x, (-0.45, -0.6, -0.1, 0.75, 1.25, 0.6, 0.0), np.full(7, -1.0)])
                self._fill(smooth(self.head.project(tail)), self.hair, part=1)
                self._fill(smooth(self.head.project(tail[3:] + np.array([side * 0.03, 0.06, 0]))), self.hair_shade)
        elif style == "bun":
            at = self.head.project(np.array([0.0, -1.85, -1.0]))
            self._fill(self._oval(at, 0.5, 0.46), self.hair, part=1)
            self._line(self._oval(at, 0.3, 0.27)[:12], self.hair_shade, 0.06)

    def _skull(self) -> None:
        style = self.person.hair
        crown = self.head.around(_turns(-180, 180, 25)[:, None], _heights(-0.4, 12)[None])
        self._fill(hull(crown), self.skin, part=1)
        covered = style in _COVERS_EARS
        if not covered:
            self._ears()
        if style in ("bald", "mohawk"):
            return
        lift, low = _VOLUME[style]
        if style in ("afro", "curly"):
            angle, y = np.meshgrid(_turns(-150, 180, 12), np.linspace(-1.6, low, 5))
            size = 0.36 if style == "afro" else 0.26
            for curl in self.head.around(angle.ravel(), y.ravel() + 0.1 * np.cos(5 * angle.ravel()), lift):
                self._fill(self._oval(curl, size, size, 14), self.hair, part=1)
        back = self.head.around(_turns(68, 292, 25)[:, None], _heights(low, 14)[None], lift, hang=True)
        top = self.head.around(_turns(-180, 180, 25)[:, None], _heights(-0.95, 8)[None], lift)
        volume = hull(np.concatenate([back.reshape(-1, 3), top.reshape(-1, 3)]))
        self._fill(volume, self.cover, part=1)
        if style == "quiff":
            at = [(-0.85, -1.25), (-0.8, -1.85), (-0.2, -2.2), (0.5, -2.15), (1.0, -1.75), (0.9, -1.2)]
            self._fill(smooth(self.head.project(np.array([(x, y, -0.3) for x, y in at]))), self.hair, part=1)
        elif style == "spiky":
            for i in range(-5, 6):
                for depth in (-1.0, -0.35):
                    base, low, tip = 0.17 * i, -1.32 + 0.02 * i * i, (0.23 * i, -2.3 + 0.03 * i * i, depth)
                    spike = np.array([(base - 0.2, low, depth), tip, (base + 0.2, low, depth)])
                    self._fill(self.head.project(spike), self.hair, part=1)
        if not covered:
            self._ears(behind=False)

    def _crest(self) -> None:
        """Paint a mohawk: spikes over the skull's middle, from the back to the forehead."""
        for degrees in range(150, 20, -12):
            turn = np.radians([degrees - 11, degrees - 11, degrees, degrees, degrees + 11, degrees + 11])
            far = np.array([0.95, 0.95, 1.36, 1.36, 0.95, 0.95])
            x = np.array([-0.2, 0.2, -0.07, 0.07, -0.2, 0.2])
            spike = np.column_stack([x, -0.55 - 1.17 * far * np.sin(turn), -0.75 + 1.12 * far * np.cos(turn)])
            color = mix(self.hair, self.hair_shade, 0.0 if degrees % 24 else 0.5)
            self._fill(hull(self.head.project(spike)), color, part=1)

    def _ears(self, behind: bool = True) -> None:
        """Paint both ears; or, over the hair's volume (`behind` off), the one that is turned to the viewer."""
        size = 1 + 0.2 * self.person.ears
        for side in (-1, 1):
            if not behind and side * self.head.motion.yaw > 3:
                continue
            turn = np.linspace(0, 2 * math.pi, 18, endpoint=False)
            out = np.array([side * 0.15, 0, -0.17]) * size
            middle = np.array([side * 1.07, -0.02, -0.85])
            rim = middle + np.sin(turn)[:, None] * np.array([0, 0.29 * size, 0]) + np.cos(turn)[:, None] * out
            self._fill(self.head.project(rim), self.skin, part=1)
            self._fill(self.head.project(middle + (rim - middle) * 0.58 + [side * 0.02, 0, 0.02]), self.shade, 0.8)

    def _fringe(self) -> None:
        style = self.person.hair
        u = np.linspace(-1, 1, 41)
        side = np.abs(u)
        if style == "mohawk":
            self._crest()
        if style in ("bald", "mohawk"):
            return
        temple = 0.62 * np.clip((side - 0.6) / 0.4, 0, 1) ** 1.5
        edges = {
            "buzz": -0.98 + temple,
            "short": -1.08 + 0.3 * np.clip(u + 0.45, 0, 1) ** 0.7 + 0.5 * np.clip(-u - 0.45, 0, 1) + 0.5 * temple,
            "quiff": -1.0 + temple,
            "spiky": -0.86 + 0.12 * np.where(np.arange(41) % 8 < 4, 1, -1) * (1 - side) + temple,
            "curly": -0.9 + 0.07 * np.sin(u * 22) + 0.25 * side**3,
            "afro": -0.95 + 0.05 * np.sin(u * 26) + 0.25 * side**3,
            "bob": -0.74 + 0.02 * np.sin(u * 40) + 0.3 * temple,
            "long": -1.12 + 0.75 * side**1.2 + 0.3 * temple,
            "bun": -1.04 + 0.5 * side**2.4 + 0.2 * temple,
            "pigtails": -1.06 + 0.34 * np.sqrt(side) + 0.4 * temple,
        }
        lift = 0.02 if style == "buzz" else 0.05
        angle = u * math.radians(92)
        edge = self.head.seen(angle, edges[style], lift)
        band = np.concatenate([edge, self.head.seen(angle[::-1], np.full(41, -1.45), lift)])
        self._fill(band, self.cover, part=1)
        self._line(edge[5:-5], mix(self.cover, self.hair_shade, 0.8), 0.045, 0.7)
        if style in ("bob", "long"):
            for sign in (-1, 1):
                y = np.linspace(-1.1, 0.8 if style == "bob" else 2.15, 14)
                inner = self.head.seen(np.radians(sign * (62 + 9 * np.sin(y + 0.6))), y, 0.06, hang=True)
                outer = self.head.seen(np.full(14, sign * math.radians(104)), y[::-1], 0.3, hang=True)
                self._fill(smooth(np.concatenate([inner, outer]), 1), self.hair, part=1)
                self._line(inner[4:], self.hair_shade, 0.05, 0.7)
        if style not in ("buzz", "spiky"):
            shine, arc = _turns(-75, 15, 17), np.sin(np.linspace(0, math.pi, 17))
            middle = (-1.3 if style != "quiff" else -1.38) + 0.05 * arc
            high, low = (self.head.seen(shine, middle + half * arc, lift + 0.04) for half in (-0.06, 0.07))
            self._fill(np.concatenate([high, low[::-1]]), mix(self.hair, WHITE, 0.55), 0.55)

    # --- face ---------------------------------------------------------------------------------------------------------

    def _face(self) -> None:
        outline = hull(self.head.face_outline(-1.45 if self.person.hair in ("bald", "mohawk") else -1.05))
        self._fill(outline, self.skin, part=1)
        with self.canvas.inside(outline):
            self._fill(outline, self.shade, 0.6)
            self._fill(outline - self.unit * np.array([0.1, 0.07]), self.skin)
        warm = {"happy": 0.75, "anger": 0.7}.get(self.head.motion.expression, 0.3)
        warm += 0.3 if self.person.marks == "blush" else 0
        for side in (-1, 1):
            self._fill(self._spot(side * 0.62, 0.2, 0.2, 0.14), mix(self.skin, (226, 58, 70), 0.55), warm)
        if self.person.marks == "freckles":
            for x, y in ((0.5, 0.06), (0.64, 0.1), (0.42, 0.16), (0.57, 0.2), (0.7, 0.2)):
                for side in (-1, 1):
                    self._fill(self._spot(side * x, y, 0.032, 0.032), mix(self.skin, (120, 50, 20), 0.55))
        elif self.person.marks == "mole":
            self._fill(self._spot(0.46, 0.42, 0.055, 0.055), (60, 34, 30))
        if self.person.hair in ("bald", "mohawk"):
            self._fill(self._oval(self.head.project(np.array([-0.4, -1.35, 0.0])), 0.22, 0.12), WHITE, 0.35)

    def _beard(self) -> None:
        style = self.person.beard
        if style == "none":
            return
        color, alpha = mix(self.hair, (30, 18, 24), 0.22), 1.0
        if style == "stubble":
            color, alpha = mix(self.skin, (40, 34, 48), 0.55), 0.55
        over, *_ = self.head.lips(np.linspace(-1, 1, 13))
        if style in ("stubble", "full"):
            angle, y = (along[4:29] for along in self.head.jaw)
            jaw = self.head.seen(angle, y, 0.09 if style == "full" else 0.0)
            cheek = [(0.86, 0.22), (0.66, 0.4), (0.45, 0.42), (0.24, 0.36), (0.0, 0.34)]
            line = cheek + [(-x, y) for x, y in reversed(cheek[:-1])]
            edge = smooth(self._on_face(line, 0.03), 2, closed=False)
            self._fill(np.concatenate([jaw, edge]), color, alpha)
            return
        out, x = np.abs(np.linspace(-1, 1, 13)), over[:, 0] * 1.18
        top = np.column_stack([x, 0.37 + 0.12 * out**1.6 + 0.5 * (over[:, 1] - 0.5) * out])
        low = np.column_stack([x, over[:, 1] + 0.02 + 0.12 * out**2])
        self._fill(self._on_face(np.concatenate([top, low[::-1]]), 0.08), color)
        if style == "goatee":
            patch = smooth(np.array([(-0.3, 0.74), (0.0, 0.8), (0.3, 0.74), (0.34, 1.0), (0.0, 1.12), (-0.34, 1.0)]))
            self._fill(self._on_face(patch, 0.08, jaw=True), color)
            for side in (-1, 1):
                stroke = [(side * 0.42, 0.52), (side * 0.42, 0.7), (side * 0.26, 0.84)]
                self._line(self._on_face(stroke, 0.06, jaw=True), color, 0.1)

    def _nose(self) -> None:
        points = self.head.project(self.head.nose_points())[:, :2]
        shape = smooth(hull(points[[1, 2, 5, 6, 7, 8, 10, 11, 12, 13, 14]]))
        self._fill(shape + self.unit * np.array([0.06, 0.05]), self.shade, 0.55)
        self._fill(shape, mix(self.skin, WHITE, 0.07), part=1)
        self._line(smooth(points[[6, 7, 8, 13, 12]], closed=False), mix(self.shade, DARK, 0.35), 0.06)
        for i in (7, 13):
            self._fill(self._oval(0.8 * points[i] + 0.2 * points[8], 0.05, 0.035, 12), DARK, 0.7)
        self._fill(self._oval(points[14] - 0.05 * self.unit, 0.07, 0.05, 12), WHITE, 0.4)
        wrinkle = self.head.expression.wrinkle
        for side in (-1, 1):
            if wrinkle > 0.7:
                for y in (-0.3, -0.16, -0.02):
                    mark = self._on_face([(side * 0.03, y - 0.04), (side * 0.15, y + 0.02)], 0.12)
                    self._line(mark, mix(self.shade, DARK, 0.4), 0.045)
            elif wrinkle > 0.2:
                self._line(self._on_face([(side * 0.07, -0.66), (side * 0.09, -0.45)], 0.03), DARK, 0.05, 0.6)

    def _mouth(self) -> None:
        e = self.head.expression
        lip = mix(self.skin, (186, 44, 62), 0.52)
        curves = self.head.lips(np.linspace(-1, 1, 21))
        over, upper, lower, under = (self._on_face(curve, 0.06) for curve in curves)
        self._fill(np.concatenate([over, under[::-1]]), lip, part=1)
        if e.open_up + e.open_down > 0.04:
            opening = np.concatenate([upper, lower[::-1]])
            self._fill(opening, (92, 22, 34))
            with self.canvas.inside(opening):
                if 0 < e.tongue <= 1:
                    self._fill(self._oval(lower[10], 0.26, 0.17), (232, 100, 110), e.tongue + 0.4)
                if e.upper_teeth > 0.02:
                    self._fill(np.concatenate([upper, (upper + e.upper_teeth * (lower - upper))[::-1]]), WHITE)
                if e.lower_teeth > 0.02:
                    self._fill(np.concatenate([lower, (lower - e.lower_teeth * (lower - upper))[::-1]]), WHITE)
                if e.square > 0.8:
                    for i in range(3, 18, 2):
                        self._line(np.stack([upper[i], lower[i]]), (150, 120, 130), 0.03, 0.7)
        else:
            self._line(upper, mix(lip, DARK, 0.65), 0.07)
        if e.tongue > 1:
            y, out = curves[1][10, 1] + 0.05, 0.3 * (e.tongue - 0.6)
            half = [(0.16, y), (0.18, y + out), (0.08, y + out + 0.12)]
            shape = half + [(-x, at) for x, at in reversed(half)]
            self._fill(smooth(self._on_face(shape, 0.12)), (236, 92, 112))
            self._line(self._on_face([(0, y + 0.06), (0, y + out)], 0.12), (180, 50, 76), 0.04)

    def _eye(self, side: int) -> None:
        t = np.linspace(-1, 1, 15)
        e = self.head.expression
        upper_flat, lower_flat = self.head.lids(side, t)
        upper, lower = self._on_face(upper_flat, 0.03), self._on_face(lower_flat, 0.03)
        lidded = upper_flat - np.column_stack([0 * t, (1 - t**2) * (0.07 + 0.1 * max(0.0, 1 - e.lid))])
        self._fill(np.concatenate([upper, self._on_face(lidded, 0.03)[::-1]]), self.shade, 0.55)
        white = np.concatenate([upper, lower[::-1]])
        self._fill(white, (252, 252, 250), part=1)
        (x, y), radius = self.head.iris(side)
        with self.canvas.inside(white):
            iris = IRIS[self.person.eye_colour]
            rings = ((radius, mix(iris, DARK, 0.35)), (radius * 0.82, iris), (radius * 0.5 * e.pupil, (16, 12, 18)))
            for size, color in rings:
                self._fill(self._spot(x, y, size, size, 0.03), color)
            self._fill(self._spot(x - 0.05, y - 0.05, 0.045, 0.045, 0.03), WHITE)
            self._line(upper + np.array([0, 0.03 * self.unit, 0]), (90, 80, 110), 0.05, 0.35)
        self._line(upper, DARK, 0.065)
        self._line(lower, mix(self.shade, DARK, 0.5), 0.035, 0.8)
        outer = upper[-1 if side > 0 else 0]
        self._line(np.stack([outer, outer + np.array([side * 0.06, -0.05, 0]) * self.unit]), DARK, 0.045)
        if self.head.motion.expression == "sad":
            tear = np.array([(0.6, 0.0), (0.69, 0.18), (0.6, 0.28), (0.51, 0.18)])
            self._fill(smooth(self._on_face(tear * [side, 1])), (116, 196, 250))

    def _brow(self, side: int) -> None:
        upper, lower = (self._on_face(p, 0.05) for p in self.head.brow(side, np.linspace(-1, 1, 11)))
        self._fill(smooth(np.concatenate([upper, lower[::-1]]), 1), mix(self.hair, (36, 20, 24), 0.42))

    # --- glasses ------------------------------------------------------------------------------------------------------

    def _glasses(self) -> None:
        frame, style = FRAMES[self.person.glasses_colour], self.person.glasses
        turn = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        power = 1.0 if style == "round" else 0.55
        across = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
        along = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
        rx, ry = (0.37, 0.36) if style == "round" else (0.38, 0.3)
        for side in (-1, 1):
            x = side * (0.45 + 0.03 * self.person.eye_spacing) + rx * across
            rim = np.column_stack([x, -0.22 + ry * along, 0.55 - 0.14 * x * x])
            outline = self.head.project(rim)
            hinge = self.head.project(np.array([(side * 0.8, -0.3, 0.45), (side * 1.06, -0.24, -0.7)]))
            if side * self.head.motion.yaw < 12:
                self._line(hinge, frame, 0.08)
            self._fill(outline, (224, 240, 255), 0.12)
            self._line(outline, frame, 0.08, closed=True)
            if style == "browline":
                self._line(outline[15:28], frame, 0.16)
        bridge = self.head.project(np.array([(-0.1, -0.27, 0.56), (0.0, -0.31, 0.6), (0.1, -0.27, 0.56)]))
        self._line(bridge, frame, 0.085)
        glare = np.array([(-0.6, -0.38, 0.5), (-0.48, -0.38, 0.5), (-0.62, -0.14, 0.5), (-0.72, -0.14, 0.5)])
        self._fill(self.head.project(glare), WHITE, 0.4)
