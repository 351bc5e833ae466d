"""The first stage: what is seen in one picture, whoever it shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..box import Box
from ..identity.analyzer import FaceAnalyzer
from ..identity.faces import in_order
from ..image_inputs import CropBox, Image, crop_box, face_crop
from .expression import from_name, from_sidecar
from .picture import DroppedError, read_picture
from .quality import perceptual_hash, quality, sharpness
from .settings import Settings
from .sources import Source, sidecar

Classify = Callable[[Image, Box], str]


@dataclass(frozen=True)
class Seen:
    """A picture that may be used. All that is said of the face holds for the cut, unless it says otherwise.

    Attributes:
        source: the picture's file, relative to the source folder, with /.
        stamp: see `sources.Source`.
        square: what of the picture the cut shows: x, y, side in its pixels.
        box: (x0, y0, x1, y1) in pixels of the cut.
        side: pixels of the face's longer side in the picture.
        score: the detector's, 0..1.
        pose: (pitch, yaw, roll) in degrees.
        embedding: 512 numbers of length 1.
        landmarks: 106 points (x, y) as `faces.Face` has them: the cut brought to 512 x 512.
        sharpness, quality, hash: see `quality`; sharpness in the picture, hash of the cut.
        expression: one of motion.EXPRESSIONS; expression_from: sidecar, name, model or nothing.
    """

    source: str
    stamp: str
    square: tuple[int, int, int]
    box: Box
    side: float
    score: float
    pose: tuple[float, float, float]
    embedding: tuple[float, ...]
    landmarks: tuple[tuple[float, float], ...]
    sharpness: float
    quality: float
    hash: str
    expression: str
    expression_from: str


@dataclass(frozen=True)
class Dropped:
    """A picture that is not in the set, for one of settings.REASONS; `detail` is for people to read."""

    source: str
    reason: str
    detail: str


def examine(
    sources: Sequence[Source], root: Path, settings: Settings, analyzer: FaceAnalyzer, classify: Classify | None
) -> bytes:
    """What is seen in some pictures, as `from_bytes` reads it."""
    seen: list[Seen] = []
    dropped: list[Dropped] = []
    for source in sources:
        try:
            seen.append(_examine(source, root, settings, analyzer, classify))
        except DroppedError as error:
            dropped.append(Dropped(source.path, error.reason, error.detail))
    return json.dumps({"seen": [asdict(s) for s in seen], "dropped": [asdict(d) for d in dropped]}).encode()


def from_bytes(content: bytes) -> tuple[list[Seen], list[Dropped]]:
    """What `examine` wrote."""
    found = json.loads(content)
    return [seen_from(values) for values in found["seen"]], [Dropped(**values) for values in found["dropped"]]


def seen_from(values: dict[str, object]) -> Seen:
    """A Seen that went through JSON."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Seen(**plain | {"box": Box.of(values["box"])})  # type: ignore[arg-type]


def _examine(source: Source, root: Path, settings: Settings, analyzer: FaceAnalyzer, classify: Classify | None) -> Seen:
    image = read_picture(root / source.path, settings.most_pixels)
    size = (image.shape[0], image.shape[1])
    faces = in_order(analyzer.detect(image), "largest", size)
    if not faces:
        raise DroppedError("no face")
    found = faces[0]
    side = found.box.longer_side
    if side < settings.least_face:
        raise DroppedError("too small", f"a face of {side:.0f} pixels, expected {settings.least_face}")
    sharp = sharpness(image, found.box)
    if sharp < settings.least_sharpness:
        raise DroppedError("blurred", f"a sharpness of {sharp:.1f}, expected {settings.least_sharpness:g}")

    square = crop_box(found.box, settings.margin, within=size)
    crop = face_crop(image, square, settings.size)
    face = analyzer.describe(crop, found.in_crop(square, settings.size))
    assert face.embedding is not None and face.landmarks is not None and face.pose is not None and face.box is not None
    expression, said_by = _expression(source, root, settings, crop, face.box, classify)
    return Seen(
        source.path, source.stamp, (square.x, square.y, square.side), face.box, side, found.score, face.pose,
        tuple(face.embedding.tolist()), tuple((x, y) for x, y in face.landmarks.tolist()), sharp,
        quality(found.score, side, sharp), perceptual_hash(crop), expression, said_by,
    )  # fmt: skip


def _expression(
    source: Source, root: Path, settings: Settings, crop: Image, box: Box, classify: Classify | None
) -> tuple[str, str]:
    said = from_sidecar(sidecar(root / source.path))
    if said:
        return said, "sidecar"
    if settings.names:
        person = 0 if settings.unsorted else source.path.index("/") + 1
        said = from_name(source.path[person:])
        if said:
            return said, "name"
    return (classify(crop, box), "model") if classify else ("neutral", "nothing")


def square_of(seen: Seen) -> CropBox:
    return CropBox(*seen.square)
