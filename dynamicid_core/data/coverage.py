"""How many pictures show what, as a picture: expressions in rows, yaws in columns."""

from collections.abc import Mapping

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from ..imr.motion import EXPRESSIONS
from .choose import YAWS, Cell

_WIDE, _HIGH, _LEFT, _TOP, _GAP = 112, 48, 104, 72, 2  # pixels
_EMPTY, _FULL = (244, 244, 244), (31, 119, 180)


def coverage_picture(counts: Mapping[Cell, int], title: str) -> Pillow.Image:
    """The 7 x 5 grid with each cell's number, the darker the more; empty cells are grey."""
    size = (_LEFT + _WIDE * len(YAWS) + 16, _TOP + _HIGH * len(EXPRESSIONS) + 16)
    picture = Pillow.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    draw.text((16, 12), title, "black", font)
    most = max([1, *counts.values()])
    for column, yaw in enumerate(YAWS):
        draw.text((_LEFT + _WIDE * (column + 0.5), _TOP - 14), yaw, "black", small, anchor="mm")
    for row, expression in enumerate(EXPRESSIONS):
        y = _TOP + _HIGH * row
        draw.text((_LEFT - 12, y + _HIGH / 2), expression, "black", small, anchor="rm")
        for column, yaw in enumerate(YAWS):
            count = counts.get((expression, yaw), 0)
            share = 0.15 + 0.85 * count / most if count else 0.0
            colour = tuple(round(a + (b - a) * share) for a, b in zip(_EMPTY, _FULL, strict=True))
            x = _LEFT + _WIDE * column
            draw.rectangle((x, y, x + _WIDE - _GAP, y + _HIGH - _GAP), colour)
            ink = "white" if share > 0.5 else "black"
            draw.text((x + _WIDE / 2, y + _HIGH / 2), str(count), ink, font, anchor="mm")
    return picture
