"""Weights in int8 with a half-precision scale for every row, as the miniature's files hold them."""

import torch
from torch import Tensor

LARGE = 4096  # elements, from which on a tensor is quantized
ROW_SCALE = ".row_scale"


def quantize(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by name in a quarter of their size: large matrices and kernels in int8, the rest in float16.

    A row (an output's weights) is its int8 values times `<name>.row_scale`. What is not floating point stays as it is.
    """
    quantized: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < LARGE:
            quantized[name] = tensor.half() if tensor.is_floating_point() else tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1, keepdim=True).div(127).clamp(min=1e-6).half()  # a row of zeros stays one
        quantized[name] = (rows / scale.float()).round().clamp(-127, 127).to(torch.int8).reshape(tensor.shape)
        quantized[name + ROW_SCALE] = scale[:, 0]
    return quantized


def dequantize(quantized: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 weights that `quantize` was given, as near as int8 holds them."""
    state = {
        name: tensor.float() if tensor.is_floating_point() or name + ROW_SCALE in quantized else tensor
        for name, tensor in quantized.items()
        if not name.endswith(ROW_SCALE)
    }
    for name in state:
        if (scale := quantized.get(name + ROW_SCALE)) is not None:
            state[name] *= scale.float().reshape(-1, *[1] * (state[name].ndim - 1))
    return state
