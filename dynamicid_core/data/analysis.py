"""First stage: find and describe the face of each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..box import Box
from ..identity.analyzer import FaceAnalyzer
from ..identity.faces import in_order
from ..image_inputs import CropBox, Image, crop_box, face_crop
from .expression import from_name, from_sidecar
from .images import RejectedError, read_image
from .quality import perceptual_hash, quality, sharpness
from .settings import BuildSettings
from .sources import Source, sidecar

Classify = Callable[[Image, Box], str]


@dataclass(frozen=True)
class FaceRecord:
    """An image that may be used. The face is described as it is in the crop, unless said otherwise.

    Attributes:
        source: the image's file, relative to the source folder, with /.
        stamp: see `sources.Source`.
        crop: the part of the image that the crop is.
        box: in pixels of the crop.
        side: pixels of the face's longer side in the image.
        score: the detector's, 0..1.
        pose: (pitch, yaw, roll) in degrees.
        embedding: 512 numbers, of length 1.
        landmarks: 106 points (x, y) as `faces.Face` has them: of the crop resized to 512 x 512.
        sharpness, quality, hash: see `quality`; sharpness in the image, hash of the crop.
        expression: one of motion.EXPRESSIONS.
        expression_from: sidecar, name, model or nothing.
    """

    source: str
    stamp: str
    crop: CropBox
    box: Box
    side: float
    score: float
    pose: Sequence[float]
    embedding: Sequence[float]
    landmarks: Sequence[Sequence[float]]
    sharpness: float
    quality: float
    hash: str
    expression: str
    expression_from: str

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FaceRecord:
        """Return the record of `to_json`'s values."""
        return cls(**values | {"crop": CropBox(**values["crop"]), "box": Box(*values["box"])})


@dataclass(frozen=True)
class Rejected:
    """An image that is not in the set, for one of settings.REASONS; `detail` is for people to read."""

    source: str
    reason: str
    detail: str


def to_json(value: Any) -> str:
    """Return JSON of values and dataclasses. Text of any bytes is escaped, so that it comes back as it was."""
    return json.dumps(value, default=vars)


def analyze(
    sources: Sequence[Source], root: Path, settings: BuildSettings, analyzer: FaceAnalyzer, classify: Classify | None
) -> bytes:
    """Analyze some images. `read_analysis` reads what this returns."""
    records: list[FaceRecord] = []
    rejected: list[Rejected] = []
    for source in sources:
        try:
            records.append(_analyze(source, root, settings, analyzer, classify))
        except RejectedError as error:
            rejected.append(Rejected(source.path, error.reason, error.detail))
    return to_json({"records": records, "rejected": rejected}).encode()


def read_analysis(content: bytes) -> tuple[list[FaceRecord], list[Rejected]]:
    """Return the images that may be used, and the others, of `analyze`."""
    values = json.loads(content)
    return list(map(FaceRecord.from_json, values["records"])), [Rejected(**image) for image in values["rejected"]]


def _analyze(
    source: Source, root: Path, settings: BuildSettings, analyzer: FaceAnalyzer, classify: Classify | None
) -> FaceRecord:
    image = read_image(root / source.path, settings.max_pixels)
    size = (image.shape[0], image.shape[1])
    faces = in_order(analyzer.detect(image, in_tiles=False), "largest", size)
    if not faces:
        raise RejectedError("no face")
    detection, side = faces[0], faces[0].box.longer_side
    if side < settings.min_face:
        raise RejectedError("too small", f"a face of {side:.0f} pixels, expected {settings.min_face}")
    sharp = sharpness(image, detection.box)
    if sharp < settings.min_sharpness:
        raise RejectedError("blurred", f"a sharpness of {sharp:.1f}, expected {settings.min_sharpness:g}")

    square = crop_box(detection.box, settings.margin, size)
    crop = face_crop(image, square, settings.size)
    face = analyzer.describe(crop, detection.in_crop(square, settings.size))
    assert face.embedding is not None and face.landmarks is not None and face.pose is not None and face.box is not None
    expression, expression_from = _expression(source, root, settings, crop, face.box, classify)
    return FaceRecord(
        source.path, source.stamp, square, face.box, side, detection.score, face.pose, face.embedding.tolist(),
        face.landmarks.tolist(), sharp, quality(detection.score, side, sharp), perceptual_hash(crop), expression,
        expression_from,
    )  # fmt: skip


def _expression(
    source: Source, root: Path, settings: BuildSettings, crop: Image, box: Box, classify: Classify | None
) -> tuple[str, str]:
    """Return the expression, and what tells it: the sidecar before the name before the classifier."""
    expression = from_sidecar(sidecar(root / source.path))
    if expression:
        return expression, "sidecar"
    if settings.expression_from == "name":
        person = 0 if settings.unsorted else source.path.index("/") + 1
        expression = from_name(source.path[person:])
        if expression:
            return expression, "name"
    return (classify(crop, box), "model") if classify else ("neutral", "nothing")
