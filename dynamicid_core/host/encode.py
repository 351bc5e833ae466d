"""Images of a person to an identity: a face selected and described, CLIP's states, the face encoder's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ..box import Box
from ..expression_classifier import ExpressionClassifier
from ..identity.analyzer import FaceAnalyzer, aligned_face
from ..identity.assignment import MIN_SIMILARITY
from ..identity.faces import Detection, Face, in_order
from ..identity.identity import Identity
from ..image_inputs import Image, as_pixels, crop_box
from ..image_inputs import crop as crop_image
from ..imr.motion import NEUTRAL, source_motion
from . import vision
from .lru_cache import LRUCache
from .models import DynamicID

COMBINATIONS = ("average", "normalised average", "best only")
AUTO, WHOLE, FACE = CROPS = ("auto", "whole picture", "face")
MARGIN = 0.6  # of the face's longer side, around it in a crop
# Of the side of what CLIP sees of a whole picture, below which auto shows it the face alone, where it is 0.45 of the
# side. Tokens of drawn people whose face is 0.49 are alike to a portrait's by 0.95 (whole) and 0.87 (face); of 0.42 by
# 0.84 and 0.84; of 0.38 by 0.71 and 0.82; of 0.22 by 0.56 and 0.90.
MIN_FACE = 0.4
ALIGNED = 224  # pixels a side of the upright face that FaceID's CLIP sees
THUMBNAIL, THUMBNAIL_MARGIN = 128, 0.3  # pixels a side; as MARGIN
MIN_SEEN = 0.9  # of a face's box, that CLIP's centered square must hold


@dataclass(frozen=True)
class Choice:
    """Which face of an image is meant: the `index`th of an order (see `faces.ORDERS`)."""

    order: str = "largest"
    index: int = 0


@dataclass(frozen=True, eq=False)
class Reference:
    """One image of a person, encoded."""

    face: Face
    tokens: Tensor = field(repr=False)
    """(T, D)"""
    thumbnail: Tensor = field(repr=False)
    """(THUMBNAIL, THUMBNAIL, 3) uint8: the face"""
    note: str
    """What the user should know of the image's faces; "" where it shows one, large enough."""
    aligned: Image | None = field(repr=False)
    """(ALIGNED, ALIGNED, 3): the upright face that CLIP saw; None where it saw a part of the image as it is."""
    expression: str = ""
    """One of EXPRESSIONS, as the expression model reads the face; "" without one."""

    @property
    def embedding(self) -> Tensor:
        """(512,)"""
        assert self.face.embedding is not None
        return self.face.embedding


@dataclass(frozen=True, eq=False)
class Encoded:
    """An identity, warnings about images that were left out, and what was used of each image (or None).

    Attributes:
        faces: the face.
        aligned: what CLIP saw, where that is the upright face.
    """

    identity: Identity
    notes: list[str]
    faces: list[Face | None]
    aligned: list[Image | None]


class NoFaceError(ValueError):
    """No image shows the requested face."""


_references, _negative_tokens = LRUCache(64), LRUCache(4)
_driving_faces = LRUCache(256)  # frames of a driving video, a few kB each


def encode(
    images: Tensor,
    dynamicid: DynamicID,
    choice: Choice = Choice(),
    crop: str = WHOLE,
    combine: str = COMBINATIONS[0],
    clip_vision: ClipVisionModel | None = None,
    analyzer: FaceAnalyzer | None = None,
) -> Encoded:
    """Encode the person in one or several images as an identity.

    Args:
        images: (n, H, W, 3) in [0, 1].
        crop: what CLIP sees, one of CROPS. AUTO: the whole image where it shows one face that is large enough, else
            the face. FaceID's encoders see the upright face alone, or nothing.
        clip_vision, analyzer: used instead of DynamicID's own.

    Raises:
        NoFaceError: none of the images shows a face (or not so many).
        ValueError: images that are none, or a model that does not fit.
    """
    encoding, analyzer = dynamicid.adapter.encoding, analyzer or dynamicid.faces
    model = None if encoding.crop == "none" else clip_vision or dynamicid.vision
    classifier = dynamicid.expression_classifier
    arrays = as_pixels(images)
    references: dict[int, Reference] = {}
    notes: list[str] = []
    if encoding.crop != "image" and crop != AUTO:
        sees = "the face, turned upright" if model else "nothing"
        notes.append(f"crop does not act on {encoding.kind}, whose CLIP sees {sees}.")
    errors: list[str] = []
    for number, image in enumerate(arrays):
        try:
            references[number] = _reference(image, dynamicid, choice, crop, model, analyzer, classifier)
            note = references[number].note
        except NoFaceError as error:
            note = str(error)
            errors.append(note)
        if note:
            notes.append(f"picture {number + 1} of {len(arrays)}: {note}" if len(arrays) > 1 else note)
    if not references:
        everywhere = f"in none of {len(arrays)} pictures: " if len(arrays) > 1 else ""
        raise NoFaceError(everywhere + " ".join(dict.fromkeys(errors)))
    for number in _outliers(references):
        notes.append(f"picture {number + 1} seems to show another person, and was left out")
        del references[number]
    kept = [*references.values()]
    mean = torch.stack([reference.embedding for reference in kept]).mean(0)
    best = max(kept, key=lambda reference: _quality(reference, mean))
    fingerprint = dynamicid.adapter.encoder_fingerprint
    identity = Identity(
        _combined(kept, best, combine),
        _negative_tokens.get((fingerprint,), _there(model, dynamicid), lambda: _negative(dynamicid, model)),
        fingerprint,
        face_prompt=source_motion(best.face, best.expression or NEUTRAL).prompt,
        face=best.face,
        thumbnail=best.thumbnail,
        encoding=encoding,
        expression=best.expression,
    )
    used = [references.get(number) for number in range(len(arrays))]
    return Encoded(
        identity,
        notes,
        [reference.face if reference else None for reference in used],
        [reference.aligned if reference else None for reference in used],
    )


def face_of(images: Tensor, analyzer: FaceAnalyzer) -> tuple[Face, int]:
    """Return the largest face of the first of images (n, H, W, 3), and how many others it shows.

    Remembered as references are: who moves a slider waits for no face of the same driving image.

    Raises NoFaceError when there is none.
    """
    image = as_pixels(images[:1])[0]

    def described() -> tuple[Face, int]:
        detection, others = _selected(image, Choice(), analyzer)
        return analyzer.describe(image, detection), others

    return _driving_faces.get((_content(image), analyzer.embeds_rgb), [analyzer.analysis], described)


def _reference(
    image: Image,
    dynamicid: DynamicID,
    choice: Choice,
    crop: str,
    model: ClipVisionModel | None,
    analyzer: FaceAnalyzer,
    classifier: ExpressionClassifier | None,
) -> Reference:
    """Encode one image; what the same models made of the same pixels is remembered while the host runs."""
    encoding = dynamicid.adapter.encoding

    def encoded() -> Reference:
        detection, others = _selected(image, choice, analyzer)
        face = analyzer.describe(image, detection)
        assert face.embedding is not None
        if encoding.crop == "image":
            shows_face, note = _clip_view(image, detection, others, crop)
            clip_view = crop_image(image, crop_box(detection.box, MARGIN)) if shows_face else image
        else:
            note = f"{others + 1} faces are in this picture; the one that is framed is used." if others else ""
            clip_view = aligned_face(image, detection.keypoints, ALIGNED)
        states = model and vision.states(model, torch.from_numpy(clip_view).float().div(255)[None])
        tokens = dynamicid.face_encoder(face.embedding[None], states, encoding.shortcut)[0]
        thumbnail = torch.from_numpy(crop_image(image, crop_box(detection.box, THUMBNAIL_MARGIN))).float()
        thumbnail = torch.nn.functional.interpolate(
            thumbnail.movedim(-1, 0)[None],  # (H, W, 3) -> (1, 3, H, W)
            (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True, align_corners=False,
        )  # fmt: skip
        aligned = clip_view if encoding.crop == "aligned" else None
        shown = thumbnail[0].movedim(0, -1).round().clamp(0, 255).byte()
        expression = classifier(image, detection.box) if classifier else ""
        return Reference(face, tokens, shown, note, aligned, expression)

    key = (_content(image), dynamicid.adapter.encoder_fingerprint, encoding, choice, crop)
    return _references.get(key, _there(model, analyzer.analysis, classifier), encoded)


def _content(image: Image) -> str:
    return sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _there(*models: Any) -> list[Any]:
    return [model for model in models if model is not None]


def _negative(dynamicid: DynamicID, model: ClipVisionModel | None) -> Tensor:
    """Return the negative tokens (T, D): no face, and pixels that are zero after preprocessing."""
    encoder, shortcut = dynamicid.face_encoder, dynamicid.adapter.encoding.shortcut
    states = model and vision.negative_states(model)
    return encoder(torch.zeros(1, encoder.network.embedding_dim), states, shortcut)[0]


def _selected(image: Image, choice: Choice, analyzer: FaceAnalyzer) -> tuple[Detection, int]:
    """Return the face that is meant, and how many others there are. Raises NoFaceError where there is none."""
    detections = in_order(analyzer.detect(image), choice.order, (image.shape[0], image.shape[1]))
    if not detections:
        raise NoFaceError("no face was found. Take a picture in which the face is larger and seen from the front.")
    if choice.index >= len(detections):
        raise NoFaceError(
            f"face number {choice.index} was requested, but there are {len(detections)} (counted from 0)."
        )
    return detections[choice.index], len(detections) - 1


def _clip_view(image: Image, detection: Detection, others: int, crop: str) -> tuple[bool, str]:
    """Return whether CLIP sees the face instead of the whole image, and what the user should know; "" for nothing.

    Args:
        others: how many other faces the image shows.
    """
    if crop not in CROPS:
        raise ValueError(f"CLIP can be shown {', '.join(CROPS)}, got {crop!r}.")
    size = _size_in_clip(image, detection.box)
    shows_face = crop == FACE or (crop == AUTO and (others > 0 or size < MIN_FACE))
    if others:
        seen = "CLIP sees the face that is framed in the output faces, not the others"
        if not shows_face:
            seen = "CLIP sees the whole picture, so this person becomes partly the others: set crop to auto or face"
        return shows_face, f"{others + 1} faces are in this picture; {seen}."
    if crop == AUTO and shows_face:
        return (
            True,
            f"the face is small or at the edge of this picture ({size:.0%} of what CLIP sees): CLIP sees it alone.",
        )
    return shows_face, ""


def _size_in_clip(image: Image, box: Box) -> float:
    """Return a face's longer side as a part of the centered square that CLIP sees; 0 where that cuts the face off."""
    height, width = image.shape[:2]
    side = min(height, width)
    square = Box.from_xywh((width - side) / 2, (height - side) / 2, side, side)
    return box.longer_side / side if box.overlap(square) > MIN_SEEN * box.area else 0.0


def _outliers(references: Mapping[int, Reference]) -> list[int]:
    """Return the numbers of references unlike most others; none where fewer than three can tell, or all are."""
    if len(references) < 3:
        return []
    embeddings = torch.stack([reference.embedding for reference in references.values()])
    similarity = (embeddings @ embeddings.T).fill_diagonal_(float("nan"))
    unlike = (similarity.nanmedian(1).values < MIN_SIMILARITY).tolist()
    return [] if all(unlike) else [number for number, out in zip(references, unlike, strict=True) if out]


def _quality(reference: Reference, mean: Tensor) -> float:
    """Rate how well a reference stands for all: its similarity to their mean embedding, and its detection score."""
    return float(reference.embedding @ mean) + 0.1 * (reference.face.score or 0.0)


def _combined(references: Sequence[Reference], best: Reference, method: str) -> Tensor:
    """Return the references' tokens (T, D), combined by one of COMBINATIONS."""
    if method == "best only" or len(references) == 1:
        return best.tokens
    tokens = torch.stack([reference.tokens for reference in references])
    mean: Tensor = tokens.mean(0)
    if method == "average":
        return mean
    if method == "normalised average":  # as long as the tokens of one image
        scale: Tensor = tokens.norm(dim=-1).mean(0) / mean.norm(dim=-1).clamp(min=1e-6)
        return mean * scale[:, None]
    raise ValueError(f"References can be combined by {', '.join(COMBINATIONS)}, got {method!r}.")
