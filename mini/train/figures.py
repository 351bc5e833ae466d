"""Small images of a training: loss curves, and the files in which they and sample sheets are kept."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLORS = ((200, 60, 40), (40, 110, 200), (40, 150, 70), (190, 130, 20), (130, 60, 170), (90, 90, 90))
_TEXT, _RULE = (40, 40, 40), (225, 225, 225)
_FACTORS = (1, 2, 5)  # of a power of ten, at which the curves have a horizontal rule


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB without loss, in the format of the path's suffix."""
    Image.fromarray(image).save(path, lossless=True)


def write_webp(image: Path, path: Path) -> None:
    """Write an image's file again, small. Raises ValueError when `image` is not an image."""
    try:
        with Image.open(image) as opened:
            opened.convert("RGB").save(path, "WEBP", quality=85)
    except OSError as error:
        raise ValueError(f"expected an image, got {image}") from error


def curves(history: Sequence[tuple[int, dict[str, float]]], width: int = 640, height: int = 360) -> NDArray[np.uint8]:
    """Return loss curves as a (height, width, 3) image: a line a name over the steps, its last value beside it.

    Heights are logarithmic. Names whose loss was positive fewer than two times are left out.
    """
    sheet = np.full((height, width, 3), 255, np.uint8)
    lines = {
        name: np.array([(step, np.log10(losses[name])) for step, losses in history if losses.get(name, 0) > 0])
        for name in (history[-1][1] if history else ())
    }
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return sheet
    logs = np.concatenate([line[:, 1] for line in lines.values()])
    low, high, last = logs.min(), logs.max() + 1e-3, history[-1][0]
    left, right, top, bottom = 46, width - 150, 12, height - 26

    def pixels(line: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the x and y (n, 2) of steps and logarithms (n, 2)."""
        share = (line - (0, low)) / (last, high - low)
        return np.rint((left, bottom) + share * (right - left, top - bottom)).astype(np.int32)

    def write(text: str, x: int, y: int, color: tuple[int, int, int] = _TEXT) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, color, 1, cv2.LINE_AA)

    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for value in (factor * 10.0**power for power in powers for factor in _FACTORS):
        if low <= (log := np.log10(value)) <= high:
            rule = pixels(np.array([(0, log), (last, log)]))
            cv2.polylines(sheet, [rule], False, _RULE)
            write(f"{value:g}", 4, int(rule[0, 1]) + 4)
    write(f"{last} steps", right - 60, height - 8)
    for i, (name, line) in enumerate(lines.items()):
        color = _COLORS[i % len(_COLORS)]
        cv2.polylines(sheet, [pixels(line)], False, color, 1, cv2.LINE_AA)
        write(f"{name} {10 ** line[-1, 1]:.4g}", right + 8, 24 + 18 * i, color)
    return sheet
