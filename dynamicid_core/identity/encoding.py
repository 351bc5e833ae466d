"""How a face encoder is shown a person: what its weights don't tell, by the family that they are of.

Kinds: the release's DynamicID, and IP-Adapter's FaceID, FaceID Plus and FaceID Plus v2, whose files hold the same
networks. Read from the files' own publisher (h94/IP-Adapter-FaceID) and its inference code.

In one thing that code is not followed: its demo, and diffusers' guide after it, hand CLIP the aligned face as cv2 reads
it, in BGR. CLIP was trained with RGB, the publisher's published training of image adapters opens its files in RGB, and
users of the demo report blue hair (tencent-ailab/IP-Adapter, discussion 430): the weights read colors as RGB. ComfyUI's
users are used to that, too: ComfyUI_IPAdapter_plus turns the aligned face back to RGB before CLIP.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from ..messages import quoted

DYNAMICID, FACEID, FACEID_PLUS, FACEID_PLUS_V2 = "DynamicID", "FaceID", "FaceID Plus", "FaceID Plus v2"


@dataclass(frozen=True)
class Encoding:
    """What a face encoder reads of an image.

    Attributes:
        kind: a name of ENCODINGS.
        channels: order in which the recognition network sees the image, "RGB" or "BGR" (as it was trained). CLIP sees
            RGB in every kind.
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
        """Return it as an identity's file holds it: JSON, "" for DynamicID's own."""
        return "" if self == RELEASE else json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Encoding:
        """Read what `to_text` wrote. Raises ValueError for anything else."""
        if not text:
            return RELEASE
        try:
            values = json.loads(text)
            encoding = cls(**values)
            known = ENCODINGS[encoding.kind]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = encoding = cls(kind="")
        scale = encoding.shortcut is None or (type(encoding.shortcut) is float and 0 <= encoding.shortcut <= 10)
        if not scale or encoding != replace(known, shortcut=encoding.shortcut) or not encoding.kind:
            raise ValueError(
                f"the metadata `encoding` is {quoted(text)}, expected JSON with kind, channels, crop and shortcut of "
                f"one of {', '.join(ENCODINGS)}. Encode the person again."
            )
        return encoding


RELEASE = Encoding()
"""DynamicID's release's."""

ENCODINGS = {
    encoding.kind: encoding
    for encoding in (
        RELEASE,
        Encoding(FACEID, "BGR", "none"),
        Encoding(FACEID_PLUS, "BGR", "aligned"),
        Encoding(FACEID_PLUS_V2, "BGR", "aligned", 1.0),
    )
}
"""Kind -> its encoding."""


def kind_of(faceid_name: str, reads_images: bool) -> str:
    """Return the kind of a file: by its content where that tells, Plus and Plus v2 (equal in shape) by its name.

    Args:
        faceid_name: name of a file whose halves are called as FaceID's, or the kind that it says it is; "": no such.
        reads_images: its face encoder has a perceiver resampler.
    """
    if not faceid_name:
        return DYNAMICID
    if not reads_images:
        return FACEID
    plain = "".join(letter for letter in faceid_name.lower() if letter.isalnum())
    return FACEID_PLUS_V2 if "plusv2" in plain else FACEID_PLUS
