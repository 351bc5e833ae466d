"""Weights as the miniature's files keep them: large ones a byte each, with a scale for every row."""

import torch
from torch import Tensor

LARGE = 4096  # elements, from which on a byte each is kept
ROW_SCALE = ".row_scale"


def quantize(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name in a quarter of their size: large matrices and kernels in int8, the rest in half precision.

    A row (an output's weights) is its bytes times `<name>.row_scale`. What is not floating point stays as it is.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            kept[name] = tensor
        elif tensor.ndim < 2 or tensor.numel() < LARGE:
            kept[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(1).div(127).clamp(min=1e-6).half()  # a row of zeros stays one
            kept[name] = (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).reshape(tensor.shape)
            kept[name + ROW_SCALE] = scale
    return kept


def dequantize(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `quantize`, as near as it kept them: weights in float32."""
    state: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        if name.endswith(ROW_SCALE):
            continue
        scale = kept.get(name + ROW_SCALE)
        if scale is not None:
            state[name] = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
