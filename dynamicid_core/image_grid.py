"""Sheets of images for a person to look at: a plain grid, and rows with their names above them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

_NAME_HEIGHT = 16  # pixels


def image_grid(images: Iterable[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Return images (H, W, 3) of one size as one (rows * H, columns * W, 3) image; places left over are white."""
    filled = list(images)
    filled += [np.full_like(filled[0], 255)] * (-len(filled) % columns)
    grid: NDArray[np.uint8] = rearrange(filled, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    return grid


def named_rows(rows: Sequence[tuple[str, Sequence[Image.Image]]], height: int = 128) -> Image.Image:
    """Return a sheet with a line of images for each row, all `height` pixels high, under the row's name."""
    lanczos = Image.Resampling.LANCZOS
    fitted = [
        [ImageOps.scale(image.convert("RGB"), height / image.height, lanczos) for image in images] for _, images in rows
    ]
    width = max([height, *(sum(image.width for image in images) for images in fitted)])
    sheet = Image.new("RGB", (width, (_NAME_HEIGHT + height) * max(1, len(rows))), "white")
    pen = ImageDraw.Draw(sheet)
    for i, ((name, _), images) in enumerate(zip(rows, fitted, strict=True)):
        x, y = 0, i * (_NAME_HEIGHT + height)
        pen.text((2, y + 2), name, fill="black")
        for image in images:
            sheet.paste(image, (x, y + _NAME_HEIGHT))
            x += image.width
    return sheet
