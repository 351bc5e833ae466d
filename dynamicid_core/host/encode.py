"""A photograph to an identity: a face chosen and described, CLIP's view of the picture, the face encoder's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ..identity.analyzer import FaceAnalyzer
from ..identity.faces import Detection, Face, in_order
from ..identity.identity import Identity
from ..image_inputs import as_pixels, crop_box
from ..image_inputs import crop as cut
from ..imr.motion import source_motion
from . import vision
from .lru_cache import LRUCache
from .models import DynamicID

COMBINATIONS = ("average", "normalised average", "best only")
CROPS = ("whole picture", "face")
MARGIN = 0.6  # of the face's longer side, around it in a crop
THUMBNAIL = 128  # pixels
OUTLIER = 0.25  # similarity to the other references, below which one is another person's


@dataclass(frozen=True)
class Choice:
    """Which face of a picture is meant: the `index`th of an order (see `faces.ORDERS`)."""

    order: str = "largest"
    index: int = 0


@dataclass(frozen=True, eq=False)
class Reference:
    """One picture of a person, read."""

    face: Face
    tokens: Tensor
    """(T, D)"""
    crop: Tensor
    """(THUMBNAIL, THUMBNAIL, 3) uint8: the face"""


@dataclass(frozen=True, eq=False)
class Encoded:
    """An identity, what is to be told of pictures that were left out, and the face used of each picture (or None)."""

    identity: Identity
    notes: list[str]
    faces: list[Face | None]


class NoFaceError(ValueError):
    """No picture shows the face that is asked for."""


_references, _nobody = LRUCache(64), LRUCache(4)


def encode(
    images: Tensor,
    dynamicid: DynamicID,
    choice: Choice = Choice(),
    crop: str = CROPS[0],
    combine: str = COMBINATIONS[0],
    clip_vision: ClipVisionModel | None = None,
    analyzer: FaceAnalyzer | None = None,
) -> Encoded:
    """An identity of the person in one or several pictures.

    Args:
        images: (n, H, W, 1, 3 or 4) in [0, 1].
        clip_vision, analyzer: taken instead of DynamicID's own.

    Raises:
        NoFaceError: none of the pictures shows a face (or not so many).
        ValueError: pictures that are none, or a model that does not fit.
    """
    model, analyzer = clip_vision or dynamicid.vision, analyzer or dynamicid.faces
    pictures = as_pixels(images)
    read: dict[int, Reference] = {}
    notes: list[str] = []
    for number, picture in enumerate(pictures):
        try:
            read[number] = _recalled(picture, dynamicid, choice, crop, model, analyzer)
        except NoFaceError as error:
            notes.append(f"picture {number + 1} of {len(pictures)}: {error}" if len(pictures) > 1 else str(error))
    if not read:
        raise NoFaceError("; ".join(notes))
    strangers = _strangers(read)
    notes += [f"picture {number + 1} seems to show another person, and was left out" for number in strangers]
    kept = [reference for number, reference in read.items() if number not in strangers]
    best = max(kept, key=lambda reference: _quality(reference, kept))
    tokens = _combined(kept, best, combine)
    key = (dynamicid.adapter.encoder_fingerprint,)
    nobody = _nobody.get(key, [model, dynamicid], lambda: _tokens_of_nobody(dynamicid, model))
    identity = Identity(
        tokens, nobody, dynamicid.adapter.encoder_fingerprint,
        face_prompt=source_motion(best.face).prompt, face=best.face, thumbnail=best.crop,
    )  # fmt: skip
    used = [read[n].face if n in read and n not in strangers else None for n in range(len(pictures))]
    return Encoded(identity, notes, used)


def face_of(image: Tensor, analyzer: FaceAnalyzer) -> Face:
    """The largest face of the first of pictures (n, H, W, C). Raises NoFaceError when there is none."""
    picture = as_pixels(image)[0]
    return analyzer.describe(picture, _chosen(picture, Choice(), analyzer))


def _recalled(
    picture: np.ndarray, dynamicid: DynamicID, choice: Choice, crop: str, model: ClipVisionModel, analyzer: FaceAnalyzer
) -> Reference:
    """A picture that was read before, with the same models, is not read again while the host runs."""
    content = sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    key, models = (content, dynamicid.adapter.encoder_fingerprint, choice, crop), [model, analyzer.analysis]
    return _references.get(key, models, lambda: _read(picture, dynamicid, choice, crop, model, analyzer))


def _read(
    picture: np.ndarray, dynamicid: DynamicID, choice: Choice, crop: str, model: ClipVisionModel, analyzer: FaceAnalyzer
) -> Reference:
    chosen = _chosen(picture, choice, analyzer)
    face = analyzer.describe(picture, chosen)
    assert face.embedding is not None
    shown = cut(picture, crop_box(chosen.box, MARGIN)) if crop == "face" else picture
    states = vision.states(model, torch.from_numpy(shown).float().div(255)[None])
    tokens = dynamicid.face_encoder(face.embedding[None], states)[0]
    thumbnail = torch.from_numpy(cut(picture, crop_box(chosen.box, 0.3))).float()[None]
    thumbnail = torch.nn.functional.interpolate(
        thumbnail.permute(0, 3, 1, 2), (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True, align_corners=False
    )
    return Reference(face, tokens, thumbnail[0].permute(1, 2, 0).round().clamp(0, 255).byte())


def _tokens_of_nobody(dynamicid: DynamicID, model: ClipVisionModel) -> Tensor:
    """(T, D): no face, and pixels that are zero after preprocessing."""
    encoder = dynamicid.face_encoder
    return encoder(torch.zeros(1, encoder.network.embedding_dim), vision.blank_states(model))[0]


def _chosen(picture: np.ndarray, choice: Choice, analyzer: FaceAnalyzer) -> Detection:
    found = in_order(analyzer.detect(picture), choice.order, (picture.shape[0], picture.shape[1]))
    if not found:
        raise NoFaceError("no face was found. Take a picture in which the face is larger and seen from the front.")
    if choice.index >= len(found):
        raise NoFaceError(f"face number {choice.index} was asked for, and there are {len(found)} (counted from 0).")
    return found[choice.index]


def _strangers(references: Mapping[int, Reference]) -> list[int]:
    """The numbers of references that most others don't resemble; none where fewer than three can tell."""
    if len(references) < 3:
        return []
    embeddings = torch.stack([reference.face.embedding for reference in references.values()])  # type: ignore[misc]
    alike = embeddings @ embeddings.T
    alike.fill_diagonal_(float("nan"))
    fits = alike.nanmedian(1).values >= OUTLIER
    return (
        [number for number, fit in zip(references, fits.tolist(), strict=True) if not fit] if bool(fits.any()) else []
    )


def _quality(reference: Reference, others: Sequence[Reference]) -> float:
    """How well a reference stands for all: its face's likeness to the others', and how surely it was found."""
    embedding = reference.face.embedding
    assert embedding is not None
    mean = torch.stack([other.face.embedding for other in others]).mean(0)  # type: ignore[misc]
    return float(embedding @ mean) + 0.1 * (reference.face.score or 0.0)


def _combined(references: Sequence[Reference], best: Reference, how: str) -> Tensor:
    """(T, D): one of COMBINATIONS of the references' tokens."""
    if how == "best only" or len(references) == 1:
        return best.tokens
    tokens = torch.stack([reference.tokens for reference in references])
    mean = tokens.mean(0)
    if how == "average":
        return mean
    if how == "normalised average":  # as long as tokens of one picture are
        return mean * (tokens.norm(dim=-1).mean(0) / mean.norm(dim=-1).clamp(min=1e-6))[:, None]
    raise ValueError(f"References can be combined by {', '.join(COMBINATIONS)}, got {how!r}.")
