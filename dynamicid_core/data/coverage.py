"""An image of how many samples show what: expressions in rows, yaws in columns."""

from collections.abc import Mapping

from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from ..imr.motion import EXPRESSIONS
from .selection import YAWS, Cell

_CELL_WIDTH, _CELL_HEIGHT, _LEFT, _TOP, _GAP = 112, 48, 104, 72, 2  # pixels
_EMPTY, _FULL = (244, 244, 244), (31, 119, 180)  # RGB


def coverage_image(counts: Mapping[Cell, int], title: str) -> PillowImage.Image:
    """Draw the 7 x 5 grid with each cell's number. A cell is the darker the more it has; empty cells are gray."""
    size = (_LEFT + _CELL_WIDTH * len(YAWS) + 16, _TOP + _CELL_HEIGHT * len(EXPRESSIONS) + 16)
    image = PillowImage.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    draw.text((16, 12), title, "black", font)
    most = max([1, *counts.values()])
    for column, yaw in enumerate(YAWS):
        draw.text((_LEFT + _CELL_WIDTH * (column + 0.5), _TOP - 14), yaw, "black", small, anchor="mm")
    for row, expression in enumerate(EXPRESSIONS):
        y = _TOP + _CELL_HEIGHT * row
        draw.text((_LEFT - 12, y + _CELL_HEIGHT / 2), expression, "black", small, anchor="rm")
        for column, yaw in enumerate(YAWS):
            count = counts.get((expression, yaw), 0)
            share = 0.15 + 0.85 * count / most if count else 0.0
            color = tuple(round(a + (b - a) * share) for a, b in zip(_EMPTY, _FULL, strict=True))
            x = _LEFT + _CELL_WIDTH * column
            draw.rectangle((x, y, x + _CELL_WIDTH - _GAP, y + _CELL_HEIGHT - _GAP), color)
            ink = "white" if share > 0.5 else "black"
            draw.text((x + _CELL_WIDTH / 2, y + _CELL_HEIGHT / 2), str(count), ink, font, anchor="mm")
    return image
