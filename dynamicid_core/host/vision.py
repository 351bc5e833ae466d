"""CLIP's penultimate states of pictures, by the host's CLIP vision models."""

import comfy.model_management as memory
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

# The host resizes pictures bicubically with antialiasing in floating point, transformers' CLIPImageProcessor by Pillow,
# in 8 bits from axis to axis: pixels differ by 0.7 % between the two.


def states(model: ClipVisionModel, images: Tensor) -> Tensor:
    """Pictures (n, H, W, 3) in [0, 1], their shorter side to the model's and the middle cut out, to (n, N, width)."""
    return model.encode_image(images[..., :3], crop=True)["penultimate_hidden_states"].float().cpu()


def blank_states(model: ClipVisionModel) -> Tensor:
    """(1, N, width): the states of pixels that are zero after preprocessing, as nobody's identity is made from."""
    memory.load_model_gpu(model.patcher)
    size = model.image_size
    pixels = torch.zeros((1, 3, size, size), device=model.load_device)
    return model.model(pixel_values=pixels, intermediate_output=-2)[1].float().cpu()
