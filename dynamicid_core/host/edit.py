"""An identity with another expression and pose, by IMR and the graph's own text encoder."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy.sd import CLIP
from torch import Tensor

from ..identity.identity import Identity
from ..imr.landmarks import KEYPOINT_SIDE, keypoint_image
from ..imr.motion import FacialMotion
from .models import DynamicID


def edit_motion(
    identity: Identity,
    dynamicid: DynamicID,
    clip: CLIP,
    source: FacialMotion,
    target: FacialMotion,
    strength: float = 1.0,
) -> Identity:
    """The identity showing `target` instead of `source`; of a mixed one, all its token sets.

    Args:
        clip: SD1.5's text encoder, whose pooled state tells a prompt.
        strength: 0 returns the identity itself, 1 is IMR's own; in between the tokens are.

    Raises:
        ValueError: IMR is not loaded, or the identity or the text encoder is not of its widths.
    """
    if strength == 0:
        return identity
    imr, keypoint_encoder = dynamicid.imr
    sets = identity.tokens.unflatten(0, (len(identity.shares), -1))
    pictures = torch.stack([_keypoints(motion) for motion in (source, target)])
    keypoints = keypoint_encoder(pictures).flatten(1)
    texts = torch.cat([_pooled(clip, motion.prompt) for motion in (source, target)])
    motions = [(keypoints[i : i + 1].repeat(len(sets), 1), texts[i : i + 1].repeat(len(sets), 1)) for i in (0, 1)]
    edited = imr(sets, *motions).flatten(0, 1)
    return replace(identity, tokens=torch.lerp(identity.tokens, edited, strength), face_prompt=target.prompt)


def _keypoints(motion: FacialMotion) -> Tensor:
    """(1, 96, 96) in [-1, 1]; -1 everywhere where there is no face."""
    if motion.landmarks is None:
        return torch.full((1, KEYPOINT_SIDE, KEYPOINT_SIDE), -1.0)
    return torch.from_numpy(keypoint_image(motion.landmarks)).float()[None] / 127.5 - 1


def _pooled(clip: CLIP, prompt: str) -> Tensor:
    """(1, P): the text encoder's state at the end of the prompt (of its first 77 tokens)."""
    _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    return pooled.float().cpu()
