"""Read images from files that may be broken or hostile."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from ..image_inputs import Image

# Decoders of images alone: Pillow also knows formats whose reading starts other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


class RejectedError(Exception):
    """An image is not for the set.

    Attributes:
        reason: one of settings.REASONS.
        detail: what was seen instead, for people to read.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_image(path: Path, max_pixels: int) -> Image:
    """Read an image as (H, W, 3) RGB, turned as the camera was held; what is transparent stands on white.

    Raises RejectedError for a file that is broken or not an image, or has more than `max_pixels`: it is not decoded.
    """
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's of large images: `max_pixels` bounds them; and of odd metadata
            with PillowImage.open(path, formats=_FORMATS) as opened:
                if opened.width * opened.height > max_pixels:
                    size = f"{opened.width} x {opened.height}, expected {max_pixels}"
                    raise RejectedError("too many pixels", size)
                return _to_rgb(ImageOps.exif_transpose(opened))
    except (RejectedError, MemoryError):
        raise
    except PillowImage.DecompressionBombError as error:
        raise RejectedError("too many pixels", str(error)) from error
    except UnidentifiedImageError as error:
        if start and not start.startswith(_SIGNATURES):
            raise RejectedError("not a picture", f"it begins with {start!r}") from error
        raise RejectedError("unreadable", "the file is empty" if not start else "its beginning is broken") from error
    except Exception as error:  # a broken file makes a decoder raise anything
        raise RejectedError("unreadable", (str(error).splitlines() or [type(error).__name__])[0]) from error


def _to_rgb(opened: PillowImage.Image) -> Image:
    if opened.mode.startswith("I"):  # 16 bits of gray, which Pillow would cut off at 255
        gray = np.clip(np.asarray(opened, np.float64) / 257, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, 2)
    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        layer = opened.convert("RGBA")
        opened = PillowImage.alpha_composite(PillowImage.new("RGBA", layer.size, "white"), layer)
    return np.array(opened.convert("RGB"), np.uint8)
