"""Small pictures of a training: sample grids and loss curves."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_COLOURS = ((200, 60, 40), (40, 110, 200), (40, 150, 70), (190, 130, 20), (130, 60, 170), (90, 90, 90))


def save(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB. Raises OSError when it can't."""
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"could not encode {path}")
    path.write_bytes(data.tobytes())


def as_webp(picture: Path, path: Path) -> None:
    """A picture's file again, small. Raises ValueError when there is no picture."""
    image = cv2.imread(str(picture))
    if image is None:
        raise ValueError(f"expected a picture, got {picture}")
    cv2.imwrite(str(path), image, [cv2.IMWRITE_WEBP_QUALITY, 85])


def grid(images: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures of one size side by side; places left over are white."""
    height, width, _ = images[0].shape
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = image
    return sheet


def curves(history: Sequence[tuple[int, dict[str, float]]], width: int = 640, height: int = 360) -> NDArray[np.uint8]:
    """Loss curves over the steps, the height logarithmic: one line a name, its last value beside it."""
    sheet = np.full((height, width, 3), 255, np.uint8)
    lines = {
        name: [(step, losses[name]) for step, losses in history if losses.get(name, 0) > 0]
        for name in (history[-1][1] if history else ())
    }
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return sheet
    values = np.log10([value for points in lines.values() for _, value in points])
    low, high = float(values.min()), float(values.max()) + 1e-3
    left, right, top, bottom = 46, width - 150, 12, height - 26
    last = history[-1][0]

    def at(step: int, value: float) -> tuple[int, int]:
        y = bottom - (np.log10(value) - low) / (high - low) * (bottom - top)
        return round(left + (right - left) * step / last), round(y)

    def write(text: str, x: int, y: int, colour: tuple[int, int, int] = (40, 40, 40)) -> None:
        cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)

    for power in range(int(np.floor(low)), int(np.ceil(high)) + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if low <= np.log10(value) <= high:
                cv2.line(sheet, at(0, value), at(last, value), (225, 225, 225), 1)
                write(f"{value:g}", 4, at(0, value)[1] + 4)
    write(f"{last} steps", right - 60, height - 8)
    for i, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        cv2.polylines(sheet, [np.array([at(*point) for point in points])], False, colour, 1, cv2.LINE_AA)
        write(f"{name} {points[-1][1]:.4g}", right + 8, 24 + 18 * i, colour)
    return sheet
