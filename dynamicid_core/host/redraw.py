"""Redraw People: each person's face drawn anew, alone in a crop of its own, by the host's own sampling and VAE."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import comfy.model_management as memory
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from numpy.typing import NDArray
from torch import Tensor

import nodes as host_nodes

from ..identity.analyzer import FaceAnalyzer
from ..identity.assignment import NO_MATCH, assign_people
from ..identity.faces import Detection, in_order
from ..image_inputs import Image, as_pixels
from ..redraw.conditioning import Entry, cut_conditioning
from ..redraw.crops import FaceCrop, cut, face_crops, paste
from ..redraw.passes import PersonResult, is_better, is_due
from ..saa.regions import Region
from ..saa.scene import Placement, names_of
from .apply import KEY, apply_scene
from .models import DynamicID
from .sampling_run import AttentionSettings

logger = logging.getLogger("DynamicID")

_CELL = 8  # pixels a side of a latent's cell: what sizes are multiples of
_SEEDS = 2**64


@dataclass(frozen=True)
class Sampling:
    """The host's sampler widgets, and the prompts of the whole image."""

    positive: Sequence[Entry] = field(repr=False)
    negative: Sequence[Entry] = field(repr=False)
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float


@dataclass(frozen=True)
class RedrawSettings:
    """How faces are cropped, and who is drawn how often.

    Attributes:
        size: pixels a side at which a crop is drawn; 0: the base model's own.
        margin, feather: see `redraw.crops.face_crops`.
        only_below: likeness under which somebody is drawn; 1: everybody.
        passes: how often at most, each with another seed.
    """

    size: int
    margin: float
    feather: float
    only_below: float
    passes: int


@dataclass(frozen=True, eq=False)
class Redrawn:
    """One image with its faces drawn anew.

    Attributes:
        image: (H, W, 3) in [0, 1].
        faces: of the image as it came, from left to right.
        people: what became of each.
        left_out: names of what the conditioning held and no crop could have.
    """

    image: Tensor = field(repr=False)
    faces: Sequence[Detection]
    people: Sequence[PersonResult]
    left_out: set[str] = field(default_factory=set)

    @property
    def strangers(self) -> int:
        """How many faces belong to none of the people."""
        return len(self.faces) - sum(person.face is not None for person in self.people)


class Redraw:
    """The people of a scene, ready to be drawn one by one with one model.

    The model's clones for all people share the merged LoRA: its weights are the same, and so is the id by which the
    host knows that (see `apply.apply_scene`).

    Args:
        scene: everybody; a region that is the whole image tells nothing of where somebody is.

    Raises:
        ValueError: DynamicID is applied to the model already, or as `apply_scene` does.
    """

    def __init__(
        self,
        model: ModelPatcher,
        vae: VAE,
        dynamicid: DynamicID,
        scene: Sequence[Placement],
        sampling: Sampling,
        settings: RedrawSettings,
        warn: Callable[[str], None] = logger.warning,
    ):
        if model.get_attachment(KEY) is not None:
            raise ValueError(
                "DynamicID is applied to this model already, and Redraw People draws each person alone. Connect the "
                "model from before Apply DynamicID."
            )
        self._vae, self._scene, self._sampling, self._settings = vae, scene, sampling, settings
        self._analyzer: FaceAnalyzer = dynamicid.faces
        method = AttentionSettings(layout_steps=dynamicid.layout_steps, gate=dynamicid.gate)
        self._alone = [replace(person, region=Region()) for person in scene]
        self._applied = partial(apply_scene, model, dynamicid.adapter, settings=method, warn=warn)
        self._models = [self._applied(scene=[person]) for person in self._alone]
        size = settings.size or dynamicid.size
        self._size = max(_CELL, round(size / _CELL) * _CELL)

    def __call__(self, image: Tensor, number: int = 0) -> Redrawn:
        """Draw the people of an image (H, W, 3) in [0, 1].

        Args:
            number: the image's in its batch, from 0.
        """
        height, width = image.shape[:2]
        pixels, faces = self._faces(image)
        boxes = [face.box.to_fractions(width, height) for face in faces]
        similarity = self._similarity([self._analyzer.embed(pixels, face) for face in faces])
        regions = [person.region.at(number) for person in self._scene]
        face_of = assign_people(regions, similarity, boxes)
        crops = face_crops([face.box for face in faces], height, width, self._settings.margin, self._settings.feather)
        people = []
        for person, (name, face) in enumerate(zip(names_of(self._scene), face_of, strict=True)):
            likeness = None if face is None or np.isnan(similarity[person, face]) else float(similarity[person, face])
            note = "no face is left" if face is None else "" if self._scene[person].weight else "weight 0"
            people.append(PersonResult(name, face, likeness, likeness, note=note))
        left_out: set[str] = set()
        for attempt in range(self._settings.passes):
            for person, result in enumerate(people):
                if result.face is None or not self._is_due(result, person, attempt):
                    continue
                detection = faces[result.face]
                seed = (self._sampling.seed + attempt + number * self._settings.passes) % _SEEDS
                drawn, names = self._draw(image, detection, crops[result.face], person, seed, number)
                left_out |= names
                likeness, count = self._look(drawn, detection, person)
                kept = is_better(result.after, likeness, len(faces), count)
                image = drawn if kept else image
                after = likeness if kept else result.after
                people[person] = replace(result, after=after, drawn=result.drawn + 1, kept=result.kept or kept)
        return Redrawn(image, faces, people, left_out)

    def _model(self, person: int, number: int) -> ModelPatcher:
        """Return the model that draws a person alone, with the motion of an image's number in its batch."""
        placed = self._alone[person]
        if placed.identity.frames == 1:
            return self._models[person]
        return self._applied(scene=[replace(placed, identity=placed.identity.at(number))])

    def _is_due(self, result: PersonResult, person: int, attempt: int) -> bool:
        """Return whether a person is drawn in this pass; who can't be measured is drawn once."""
        if not self._scene[person].weight or (attempt and result.before is None):
            return False
        return is_due(result.after, self._settings.only_below)

    def _faces(self, image: Tensor) -> tuple[Image, list[Detection]]:
        """Return the pixels of an image, and its faces from left to right."""
        (pixels,) = as_pixels(image[None])
        return pixels, in_order(self._analyzer.detect(pixels), "left to right", (pixels.shape[0], pixels.shape[1]))

    def _similarity(self, embeddings: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return `_likeness` of everybody and each face, (people, faces)."""
        rows = [[self._likeness(person, embedding) for embedding in embeddings] for person in range(len(self._scene))]
        return np.array(rows, np.float64).reshape(len(self._scene), len(embeddings))

    def _likeness(self, person: int, embedding: Tensor) -> float:
        """Return the cosine of a person's reference and a face's embedding (512,); NaN where there is no reference."""
        face = self._scene[person].identity.face
        return np.nan if face is None or face.embedding is None else float(face.embedding @ embedding)

    def _draw(
        self, image: Tensor, face: Detection, crop: FaceCrop, person: int, seed: int, number: int
    ) -> tuple[Tensor, set[str]]:
        """Return the image with one face drawn anew, and the names of what its conditioning had to leave out."""
        memory.throw_exception_if_processing_interrupted()
        height, width = image.shape[:2]
        window, box = crop.window(height, width), face.box.to_fractions(width, height)
        positive, negative = (
            cut_conditioning(prompt, window, box, height, width, number)
            for prompt in (self._sampling.positive, self._sampling.negative)
        )
        latent = {
            "samples": self._vae.encode(cut(image, crop.square, self._size)),
            "noise_mask": (crop.mask > 0).float()[None],
        }
        s = self._sampling
        (sampled,) = host_nodes.common_ksampler(
            self._model(person, number), seed, s.steps, s.cfg, s.sampler, s.scheduler, positive.entries,
            negative.entries, latent, denoise=s.denoise,
        )  # fmt: skip
        drawn = self._vae.decode(sampled["samples"])
        drawn = drawn.reshape(-1, *drawn.shape[-3:])[0].to("cpu", torch.float32).clamp(0, 1)
        return paste(image, drawn, crop), positive.left_out | negative.left_out

    def _look(self, drawn: Tensor, face: Detection, person: int) -> tuple[float | None, int]:
        """Return a drawn face's likeness, NO_MATCH where it is gone, None where not measurable; and how many faces."""
        pixels, faces = self._faces(drawn)
        near = [other for other in faces if face.box.contains(*other.box.center)]
        if not near:
            return NO_MATCH, len(faces)
        largest = max(near, key=lambda other: other.box.area)
        likeness = self._likeness(person, self._analyzer.embed(pixels, largest))
        return None if np.isnan(likeness) else likeness, len(faces)
