"""The door: images, masks, numbers and choices of other nodes, taken as they are meant, or refused in one line.

What is clear is mended: another floating-point type, bytes, gray, transparency, a number in a tensor. What has no clear
meaning raises ValueError: what was expected, what came, what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .messages import quoted

_BYTE = 255


def as_images(images: Any, name: str = "image") -> Tensor:
    """Return ComfyUI's images as (n, H, W, 3) float32 in [0, 1] on the CPU.

    Args:
        images: (n, H, W, 1 to 4): gray, gray with alpha, RGB or RGBA, in [0, 1] (what lies beyond is cut off) or
            bytes. Gray gets three equal channels; what is transparent stands on white.
        name: of the input, for the error.

    Raises ValueError for another value or shape, an empty batch, NaN and infinity.
    """
    expected = f"{name} must be pictures of shape (n, height, width, channels) with 1 to 4 channels"
    values = _finite(images, expected)
    if values.ndim != 4 or values.shape[-1] not in (1, 2, 3, 4) or 0 in values.shape:
        raise ValueError(f"{expected}, got shape {tuple(values.shape)}. Connect an IMAGE output, such as Load Image's.")
    values = values.clamp(0, 1)
    if values.shape[-1] in (2, 4):
        alpha = values[..., -1:]
        values = values[..., :-1] * alpha + 1 - alpha
    return values.expand(-1, -1, -1, 3).contiguous()


def as_masks(masks: Any, name: str = "mask") -> Tensor:
    """Return ComfyUI's masks as (H, W) or (n, H, W) float32 in [0, 1] on the CPU.

    Args:
        masks: in [0, 1] (what lies beyond is cut off), true and false, or bytes: 0 and 1, or 0 to 255.
        name: of the input, for the error.

    Raises ValueError for another value or shape, an empty batch, NaN and infinity.
    """
    expected = f"{name} must be masks of shape (n, height, width), or one of shape (height, width)"
    values = _finite(masks, expected)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"{expected}, got shape {tuple(values.shape)}. Connect a MASK output, such as Load Image's.")
    if masks.dtype == torch.uint8 and int(masks.max()) <= 1:
        values = masks.to("cpu", torch.float32)
    return values.clamp(0, 1)


def as_latent(latent: Any, name: str = "latent") -> dict[str, Any]:
    """Return ComfyUI's latent. Raises ValueError where its `samples` aren't finite numbers (n, channels, h, w)."""
    expected = f"{name} must be a latent with samples of shape (n, channels, height, width)"
    samples = _finite(latent.get("samples") if isinstance(latent, Mapping) else latent, expected)
    if not isinstance(latent, Mapping) or samples.ndim != 4 or 0 in samples.shape:
        raise ValueError(f"{expected}, got shape {tuple(samples.shape)}. Connect a KSampler's output.")
    return dict(latent)


def as_conditioning(conditioning: Any, name: str) -> list[Any]:
    """Return ComfyUI's conditioning. Raises ValueError where it isn't [[text (n, tokens, dim), {...}], ...]."""
    pairs = conditioning if isinstance(conditioning, (list, tuple)) else ()
    texts = [pair[0] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]
    if not texts or len(texts) < len(pairs) or not all(isinstance(text, Tensor) and text.ndim == 3 for text in texts):
        raise ValueError(f"{name} must be a prompt, got {kind_of(conditioning)}. Connect CLIP Text Encode.")
    return list(pairs)


def _finite(value: Any, expected: str) -> Tensor:
    """Return a tensor as float32 on the CPU, bytes in [0, 1]; refuse NaN, infinity and what is no tensor of pixels."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{expected}, got {kind_of(value)}. Connect another output.")
    if value.dtype not in (torch.uint8, torch.bool) and not value.is_floating_point():
        raise ValueError(f"{expected} of floating-point numbers or bytes, got {value.dtype}. Connect another output.")
    pixels = value.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError(f"{expected} of finite numbers, got NaN or infinity. Look at the node that made it.")
    return pixels / _BYTE if value.dtype == torch.uint8 else pixels


def as_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number from `low` to `high`: also of a tensor that holds one, and of a text that is one."""
    span = "" if low == -math.inf and high == math.inf else f" from {low:g} to {high:g}"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(f"{name} must be a number{span}, got {kind_of(value)}. Give another.") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{name} must be a number{span}, got {number:g}. Give another.")
    return number


def as_whole_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> int:
    """Return a whole number from `low` to `high`."""
    number = as_number(value, name, low, high)
    if number != int(number):
        raise ValueError(f"{name} must be a whole number, got {number:g}. Give another.")
    return int(number)


def as_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return one of the choices. Raises ValueError for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {kind_of(value)}. Choose another.")
    return value


def kind_of(value: Any) -> str:
    """Return what a value is, for an error: a short one itself, the shape of a tensor, the class of anything else."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if value is None or isinstance(value, (str, int, float)):
        return quoted(value)
    return f"a value of type {quoted(type(value).__name__)[1:-1]}"
