"""Places: what is behind the people, as flat shapes."""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Color, ellipse, mix
from .palette import PLAIN, WHITE


def _box(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def _sky(canvas: Canvas, top: Color, bottom: Color) -> None:
    rows = np.linspace(np.array(top, float), np.array(bottom, float), canvas.pixels.shape[0])
    canvas.pixels[:] = np.repeat(np.rint(rows).astype(np.uint8)[:, None], canvas.pixels.shape[1], axis=1)


def _cloud(canvas: Canvas, x: float, y: float, size: float) -> None:
    for dx, dy, r in ((-1.0, 0.1, 0.6), (0.0, -0.2, 0.9), (0.9, 0.05, 0.7)):
        canvas.fill(ellipse(x + dx * size, y + dy * size, r * size * 1.2, r * size * 0.75), WHITE, 0.85)


def _hills(canvas: Canvas, rng: random.Random, y: float, rise: float, color: Color) -> None:
    start, steps = rng.uniform(0, 6), np.linspace(0, canvas.width, 40)
    line = y - rise * (np.sin(start + steps / 23) + 0.5 * np.sin(2 * start + steps / 11))
    ends = np.array([(canvas.width, canvas.height), (0, canvas.height)], float)
    canvas.fill(np.concatenate([np.column_stack([steps, line]), ends]), color)


def _gradient(canvas: Canvas, rng: random.Random) -> None:
    pairs: list[tuple[Color, Color]] = [
        ((255, 140, 120), (110, 80, 190)), ((90, 200, 210), (250, 210, 140)), ((120, 110, 220), (250, 160, 190)),
    ]  # fmt: skip
    _sky(canvas, *rng.choice(pairs))


def _room(canvas: Canvas, rng: random.Random) -> None:
    wall = rng.choice([(238, 220, 196), (214, 224, 214), (226, 210, 220)])
    canvas.pixels[:] = wall
    canvas.fill(_box(0, 104, canvas.width, 128), (168, 122, 86))
    canvas.fill(_box(0, 101, canvas.width, 105), (250, 246, 238))
    for left in range(0, canvas.width, 128):
        flip = rng.random() < 0.5
        window, shelf = (left + 8, left + 88) if flip else (left + 88, left + 6)
        canvas.fill(_box(window, 16, window + 32, 62), (252, 250, 244))
        canvas.fill(_box(window + 3, 19, window + 29, 59), (164, 214, 244))
        canvas.fill(_box(window + 15, 19, window + 17, 59), (252, 250, 244))
        canvas.fill(_box(window + 3, 38, window + 29, 40), (252, 250, 244))
        canvas.fill(_box(shelf, 44, shelf + 34, 48), (132, 92, 64))
        at = shelf + 2.0
        while at < shelf + 28:
            wide, high = rng.uniform(4, 6), rng.uniform(13, 20)
            canvas.fill(_box(at, 44 - high, at + wide, 44), rng.choice([(204, 84, 70), (70, 124, 160), (228, 180, 80)]))
            at += wide + 0.8


def _park(canvas: Canvas, rng: random.Random) -> None:
    _sky(canvas, (140, 204, 246), (222, 242, 250))
    _cloud(canvas, rng.uniform(10, canvas.width - 10), rng.uniform(14, 30), 9)
    _hills(canvas, rng, 78, 5, (150, 206, 120))
    for left in range(0, canvas.width, 42):
        x, top = left + rng.uniform(4, 34), rng.uniform(40, 54)
        canvas.fill(_box(x - 2.5, top, x + 2.5, 98), (124, 88, 60))
        leaf = rng.choice([(74, 152, 84), (96, 170, 88), (58, 134, 84)])
        for dx, dy, r in ((-8, 4, 10), (8, 4, 10), (0, -6, 12)):
            canvas.fill(ellipse(x + dx, top + dy, r, r), leaf)
    _hills(canvas, rng, 98, 2, (110, 184, 94))


def _beach(canvas: Canvas, rng: random.Random) -> None:
    _sky(canvas, (104, 190, 244), (206, 238, 250))
    canvas.fill(ellipse(rng.uniform(12, canvas.width - 12), rng.uniform(14, 26), 9, 9), (255, 240, 160))
    canvas.fill(_box(0, 62, canvas.width, 96), (40, 152, 200))
    for y in (68, 76, 84):
        x = rng.uniform(0, canvas.width)
        canvas.fill(_box(x - 22, y, x + 22, y + 1.4), (140, 214, 236))
    _hills(canvas, rng, 94, 1.5, (246, 222, 166))
    x = rng.choice([14.0, canvas.width - 14.0])
    canvas.line(np.array([(x, 40.0), (x + 3, 108.0)]), (250, 250, 250), 2)
    turn = np.linspace(np.pi, 2 * np.pi, 13)
    shade = np.column_stack([x + 24 * np.cos(turn), 48 + 20 * np.sin(turn)])
    for i in range(6):  # a parasol's segments, red and white
        segment = np.concatenate([shade[2 * i : 2 * i + 3], [[x, 48.0]]])
        canvas.fill(segment, (236, 84, 78) if i % 2 else (255, 246, 232))


def _city(canvas: Canvas, rng: random.Random) -> None:
    _sky(canvas, (176, 196, 222), (246, 226, 206))
    for distance, color, low, high in ((0, (158, 166, 190), 14, 46), (1, (104, 114, 146), 34, 66)):
        x = -4.0
        while x < canvas.width:
            wide, top = rng.uniform(16, 26), rng.uniform(low, high)
            canvas.fill(_box(x, top, x + wide, 128), color)
            for row in range(int(top) + 5, 120, 8) if distance else ():
                for column in range(3):
                    light = (255, 226, 140) if rng.random() < 0.5 else (134, 146, 176)
                    at = x + wide * (0.2 + 0.28 * column)
                    canvas.fill(_box(at, row, at + 2.6, row + 3.6), light)
            x += wide + rng.uniform(0, 3)
    canvas.fill(_box(0, 112, canvas.width, 128), (92, 94, 104))


def _mountains(canvas: Canvas, rng: random.Random) -> None:
    _sky(canvas, (150, 196, 236), (240, 236, 240))
    for back in (True, False):
        for left in range(-30, canvas.width, 58):
            x, top, half = left + rng.uniform(20, 44), rng.uniform(14, 30) + (0 if back else 26), rng.uniform(38, 50)
            color = (146, 154, 190) if back else (100, 116, 150)
            peak = np.array([(x, top), (x + half, 104.0), (x - half, 104.0)])
            canvas.fill(peak, color)
            canvas.fill(peak[0] + (peak - peak[0]) * 0.27, (250, 252, 255))
    _hills(canvas, rng, 98, 3, (96, 148, 112))


def _night(canvas: Canvas, rng: random.Random) -> None:
    _sky(canvas, (18, 22, 58), (70, 62, 118))
    for _ in range(canvas.width // 4):
        size = rng.uniform(0.4, 1.0)
        canvas.fill(ellipse(rng.uniform(0, canvas.width), rng.uniform(0, 90), size, size, 8), (255, 250, 220))
    x, y = rng.choice([20.0, canvas.width - 20.0]), rng.uniform(18, 26)
    canvas.fill(ellipse(x, y, 11, 11), (255, 244, 196))
    canvas.fill(ellipse(x + 5, y - 3, 10, 10), (28, 30, 70))
    _hills(canvas, rng, 104, 3, (30, 34, 66))


_SCENES: dict[str, Callable[[Canvas, random.Random], None]] = {
    "on a gradient background": _gradient,
    "in a room": _room,
    "in a park": _park,
    "at the beach": _beach,
    "in a city": _city,
    "in the mountains": _mountains,
    "at night": _night,
}


def paint_place(canvas: Canvas, place: str, seed: int) -> None:
    """Cover the canvas with `place` (one of caption.PLACES), a little out of focus; `seed` draws its details."""
    rng = random.Random(f"place {seed}")
    if place.startswith("on a plain "):
        base = PLAIN[place.split()[3]]
        _sky(canvas, mix(base, WHITE, 0.12), mix(base, (60, 60, 80), 0.08))
        return
    _SCENES[place](canvas, rng)
    if place != "on a gradient background":
        canvas.soften(0.7)
