"""How a face encoder is shown a person: what its weights don't tell, by the family that they are of.

Kinds: the release's DynamicID, and IP-Adapter's FaceID, FaceID Plus and FaceID Plus v2, whose files hold the same
networks. Read from the files' own publisher (h94/IP-Adapter-FaceID) and its inference code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

DYNAMICID, FACEID, FACEID_PLUS, FACEID_PLUS_V2 = "DynamicID", "FaceID", "FaceID Plus", "FaceID Plus v2"


@dataclass(frozen=True)
class Encoding:
    """What a face encoder reads of an image.

    Attributes:
        kind: a name of ENCODINGS.
        channels: order in which the recognition network sees the image, "RGB" or "BGR" (as it was trained).
        crop: what CLIP sees: "image" (the whole one, or as Encode Identity's `crop` says), "aligned" (the face turned
            upright by its five keypoints) or "none".
        shortcut: factor on what CLIP's part adds to the tokens of the embedding alone; None: it replaces them.
    """

    kind: str = DYNAMICID
    channels: str = "RGB"
    crop: str = "image"
    shortcut: float | None = None

    @property
    def embeds_rgb(self) -> bool:
        """Whether the recognition network is shown RGB, see `FaceAnalyzer`."""
        return self.channels == "RGB"

    def __str__(self) -> str:
        shortcut = "" if self.shortcut is None else f", shortcut {self.shortcut:g}"
        return f"{self.kind} ({self.channels}, CLIP sees: {self.crop}{shortcut})"

    def to_text(self) -> str:
        """Return it as an identity's file holds it: "" for DynamicID's own, else JSON."""
        return "" if self.kind == DYNAMICID else json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Encoding:
        """Read what `to_text` wrote. Raises ValueError for anything else."""
        if not text:
            return cls()
        try:
            values = json.loads(text)
            encoding = cls(**values)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"`encoding` must be JSON with kind, channels, crop, shortcut ({error}).") from None
        fits = encoding.shortcut is None or (isinstance(encoding.shortcut, float) and 0 <= encoding.shortcut <= 10)
        if (
            not fits
            or encoding.kind not in ENCODINGS
            or encoding.channels not in ("RGB", "BGR")
            or encoding.crop not in ("image", "aligned", "none")
        ):
            raise ValueError(f"`encoding` holds values that no encoding has, kinds are {', '.join(ENCODINGS)}.")
        return encoding


ENCODINGS = {
    encoding.kind: encoding
    for encoding in (
        Encoding(),
        Encoding(FACEID, "BGR", "none"),
        Encoding(FACEID_PLUS, "BGR", "aligned"),
        Encoding(FACEID_PLUS_V2, "BGR", "aligned", 1.0),
    )
}
"""Kind -> its encoding."""


def kind_of(name: str, is_faceid: bool, reads_images: bool) -> str:
    """Return the kind of a file: by its content where that tells, Plus and Plus v2 (equal in shape) by its name.

    Args:
        name: the file's.
        is_faceid: its halves are called `image_proj` and `ip_adapter`.
        reads_images: its face encoder has a perceiver resampler.
    """
    if not is_faceid:
        return DYNAMICID
    if not reads_images:
        return FACEID
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return FACEID_PLUS_V2 if "plusv2" in plain else FACEID_PLUS
