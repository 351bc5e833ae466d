"""Identities with another expression and pose, by IMR and the graph's own text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from comfy.sd import CLIP
from einops import rearrange
from torch import Tensor

from ..identity.curve import Curve, numbered
from ..identity.faces import Face
from ..identity.identity import Identity, check_encoding
from ..imr import mediapipe
from ..imr.landmarks import KEYPOINT_SIDE, keypoint_image
from ..imr.motion import EXPRESSIONS, NEUTRAL, FacialMotion, source_motion, target_motion
from ..imr.motion_text import MotionSpec, motion_in, written_motion
from .encode import face_of
from .models import DynamicID

Item = TypeVar("Item")

ALL = "all"
"""In place of an expression: each of them in turn."""
AUTO = "auto"
"""In place of a source's expression: what is known of it."""
_AT_ONCE = 64  # motions that the networks are given in one call


@dataclass(frozen=True, eq=False)
class MotionRequest:
    """The motions that Edit Facial Motion is to make; fields are named as the node's inputs.

    Attributes:
        expression: one of EXPRESSIONS, or ALL.
        yaw, pitch, roll: degrees to turn further than the reference, or the driving face, does.
        prompt: lines in place of what expression and pose would say, each for a motion of its own: free words, or a
            `MotionSpec` as it is written.
        source_expression, source_prompt: what the reference shows; the expression may be AUTO.
        driving_strength: how far keypoints move towards the driving face's, 0 to 1.
        driving_image: (n, H, W, C) in [0, 1]; the largest face of the first image drives.
        landmarks, source_landmarks: the host's FACE_LANDMARKS of the driving face, and of the reference.
    """

    expression: str
    yaw: float
    pitch: float
    prompt: str
    source_expression: str
    source_prompt: str
    driving_strength: float
    driving_image: Tensor | None = field(default=None, repr=False)
    landmarks: Mapping[str, Any] | None = field(default=None, repr=False)
    source_landmarks: Mapping[str, Any] | None = field(default=None, repr=False)
    roll: float = 0.0

    @property
    def moves_keypoints(self) -> bool:
        """Whether keypoints are to move, which takes 3-D points of the face."""
        turned = self.yaw or self.pitch or self.roll or any(spec and spec.turns for spec in map(motion_in, self._lines))
        return bool(turned) or self.driving_image is not None or self.landmarks is not None

    @property
    def _lines(self) -> list[str]:
        return [line.strip() for line in self.prompt.splitlines() if line.strip()]

    def source(self, identity: Identity) -> tuple[FacialMotion, str]:
        """Return the motion that a person shows, and what the user should know; "" for nothing.

        Raises ValueError for landmarks without a face.
        """
        return shown_motion(identity, self.source_expression, self.source_prompt.strip(), self.source_landmarks)

    def targets(self, face: Face | None, driver: Face | None) -> list[FacialMotion]:
        """Return the motions wanted of a face; the driver is that of `driving_face`."""
        if not self._lines:
            expressions = EXPRESSIONS if self.expression == ALL else (self.expression,)
            return [self._target(face, driver, expression) for expression in expressions]
        return [
            self._target(face, driver, prompt=line) if spec is None else self._written(face, driver, spec)
            for line, spec in ((line, motion_in(line)) for line in self._lines)
        ]

    def _target(self, face: Face | None, driver: Face | None, expression: str = "", prompt: str = "") -> FacialMotion:
        strength = self.driving_strength
        return target_motion(face, expression, self.yaw, self.pitch, prompt, driver, strength, self.roll)

    def _written(self, face: Face | None, driver: Face | None, spec: MotionSpec) -> FacialMotion:
        return written_motion(face, spec, self.yaw, self.pitch, self.roll, driver, self.driving_strength)

    def driving_face(self, dynamicid: DynamicID) -> tuple[Face | None, int]:
        """Return the face that drives, if any, and how many others its picture shows.

        Raises ValueError when the driving image or landmarks show no face.
        """
        if self.landmarks is not None:
            return mediapipe.face_from(self.landmarks), 0
        if self.driving_image is None:
            return None, 0
        try:
            return face_of(self.driving_image, dynamicid.faces)
        except ValueError as error:
            raise ValueError(f"driving_image: {error}") from error


def shown_motion(
    identity: Identity, expression: str, prompt: str = "", landmarks: Mapping[str, Any] | None = None
) -> tuple[FacialMotion, str]:
    """Return the motion that a person shows, which an edit takes out, and what the user should know; "" for nothing.

    Args:
        expression: one of EXPRESSIONS; or AUTO: what the identity knows of it, else what the landmarks tell, else
            neutral.
        prompt: taken instead of what expression and pose would say.
        landmarks: the host's FACE_LANDMARKS of the reference, whose blendshapes go before an expression.

    Raises ValueError for landmarks without a face.
    """
    if expression == AUTO and identity.expression:
        expression = identity.expression
    elif landmarks is not None:
        expression = mediapipe.expression_from(landmarks)
    note = ""
    if expression == AUTO:
        expression = NEUTRAL
        if not prompt:
            note = (
                "nothing tells which expression the photograph shows, so it is taken for neutral: choose an "
                "expression_model in Load DynamicID and encode the person again, or set source_expression."
            )
    return source_motion(identity.face, expression, prompt), note


def edit_motion(
    identity: Identity,
    dynamicid: DynamicID,
    clip: CLIP,
    source: FacialMotion,
    target: FacialMotion,
    strength: float = 1.0,
) -> Identity:
    """Return the identity showing `target` instead of `source`; of a mixed one, all token sets are edited.

    Args:
        clip: SD1.5's text encoder, whose pooled state describes a prompt.
        strength: 0 returns the identity itself, 1 IMR's own tokens; in between, tokens are interpolated.

    Raises:
        ValueError: IMR is not loaded, the identity or the text encoder is not of its dims, or the identity was encoded
            for another kind of weights.
    """
    return identity if strength == 0 else animate(identity, dynamicid, clip, source, [target], strength)


def animate(
    identity: Identity,
    dynamicid: DynamicID,
    clip: CLIP,
    source: FacialMotion,
    targets: Sequence[FacialMotion],
    strength: float = 1.0,
) -> Identity:
    """Return the identity showing a motion in each frame of a batch, instead of `source`; see `edit_motion`.

    Frames whose motion is the same for IMR are edited once. Where all are, the identity is one that doesn't move.

    Args:
        targets: of each frame, 1 to `curve.MAX_FRAMES`.
    """
    if identity.curve is not None:
        raise ValueError(
            f"The motion of {identity.name or 'this person'!r} changes by frame already. Edit and animate the person "
            "once, before: connect the identity that Animate Motion was given."
        )
    imr, keypoint_encoder = dynamicid.imr
    check_encoding(identity, dynamicid.adapter.encoding, "IMR")
    sets = rearrange(identity.tokens, "(s t) d -> s t d", s=len(identity.shares))
    images = [_keypoints(motion) for motion in targets]
    frames, distinct = numbered(
        (motion.texts, image.numpy().tobytes()) for motion, image in zip(targets, images, strict=True)
    )
    pooled: dict[str, Tensor] = {}
    texts = torch.cat([_text_state(clip, motion, pooled) for motion in (source, *(targets[i] for i in distinct))])
    images = [_keypoints(source), *(images[i] for i in distinct)]
    keypoints = torch.cat([keypoint_encoder(torch.stack(part)).flatten(1) for part in _batches(images)])

    def motions(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return what IMR reads of motions for each token set, (S * motions, K) and (S * motions, P); 0: the source."""
        return keypoints[numbers].repeat(len(sets), 1), texts[numbers].repeat(len(sets), 1)

    edited = torch.cat(
        [
            rearrange(imr(sets, motions([0]), motions(part)), "(s n) t d -> n (s t) d", s=len(sets))
            for part in _batches(range(1, len(images)))
        ]
    )
    tokens = torch.lerp(identity.tokens.expand_as(edited), edited, strength)
    curve = Curve(tokens, frames) if len(distinct) > 1 else None
    first = targets[0]
    return replace(identity, tokens=tokens[0], face_prompt=first.prompt, curve=curve, expression=first.expression)


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield items in order, as many at once as a network is given."""
    for start in range(0, len(items), _AT_ONCE):
        yield [*items[start : start + _AT_ONCE]]


def _keypoints(motion: FacialMotion) -> Tensor:
    """Return a keypoint image (1, 96, 96) in [-1, 1]; -1 everywhere where there is no face."""
    if motion.landmarks is None:
        return torch.full((1, KEYPOINT_SIDE, KEYPOINT_SIDE), -1.0)
    return torch.from_numpy(keypoint_image(motion.landmarks)).float()[None] / 127.5 - 1


def _text_state(clip: CLIP, motion: FacialMotion, pooled: dict[str, Tensor]) -> Tensor:
    """Return what IMR reads of a motion's words, (1, P): of a mixture, the sum of its prompts' states by share.

    Args:
        pooled: the prompts' states that are known; others are added.
    """
    for prompt, _ in motion.texts:
        if prompt not in pooled:
            pooled[prompt] = _pooled(clip, prompt)
    return torch.stack([share * pooled[prompt] for prompt, share in motion.texts]).sum(dim=0)


def _pooled(clip: CLIP, prompt: str) -> Tensor:
    """Return the text encoder's state at the end of a prompt (of its first 77 tokens), (1, P)."""
    pooled: Tensor = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)[1]
    return pooled.float().cpu()
