"""Read an image from a file that nobody vouches for."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from ..image_inputs import Image

# Decoders of pictures alone: Pillow also knows formats whose reading starts other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_STARTS = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


class DroppedError(Exception):
    """A picture is not for the set.

    Attributes:
        reason: one of settings.REASONS.
        detail: what was found, for people to read.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_picture(path: Path, most_pixels: int) -> Image:
    """(H, W, 3) RGB, turned as the camera was held, what is transparent on white.

    Raises DroppedError for a file that is broken or no picture, or has more than `most_pixels`: it is not decoded.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        with _quietly(), Pillow.open(path, formats=_FORMATS) as opened:
            pixels = opened.width * opened.height
            if pixels > most_pixels:
                raise DroppedError("too many pixels", f"{opened.width} x {opened.height}, expected {most_pixels}")
            return _as_rgb(ImageOps.exif_transpose(opened))
    except (DroppedError, MemoryError):
        raise
    except Pillow.DecompressionBombError as error:
        raise DroppedError("too many pixels", str(error)) from error
    except UnidentifiedImageError as error:
        if start and not start.startswith(_STARTS):
            raise DroppedError("not a picture", f"it begins with {start!r}") from error
        raise DroppedError("unreadable", "the file is empty" if not start else "its beginning is broken") from error
    except Exception as error:  # what a broken file makes a decoder raise is anyone's guess
        raise DroppedError("unreadable", str(error).splitlines()[0] if str(error) else type(error).__name__) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of large pictures and odd metadata; the bound here is ours, and the rest doesn't matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _as_rgb(opened: Pillow.Image) -> Image:
    if opened.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.clip(np.asarray(opened, np.float64) / 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        shown = opened.convert("RGBA")
        white = Pillow.new("RGBA", shown.size, (255, 255, 255, 255))
        opened = Pillow.alpha_composite(white, shown)
    return np.array(opened.convert("RGB"), np.uint8)
