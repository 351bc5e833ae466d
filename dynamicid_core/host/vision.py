"""CLIP's penultimate hidden states of images, by the host's CLIP vision models."""

from pathlib import Path

import comfy.clip_vision
import comfy.model_management as memory
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ..image_inputs import negative_clip_input
from ..messages import printable
from ..tensor_file import open_tensors

# The host resizes images bicubically with antialiasing in floating point, transformers' CLIPImageProcessor by Pillow,
# in 8 bits from axis to axis: pixels differ by 0.7 % between the two.


def load_vision(path: Path) -> ClipVisionModel:
    """Load a CLIP vision model. Raises ValueError for a file of another kind, or one that is damaged."""
    with open_tensors(path):  # names what is wrong with a file, which the host's reader does not
        pass
    reason = ""
    try:
        if model := comfy.clip_vision.load(str(path)):
            return model
    except memory.OOM_EXCEPTION:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:  # shapes of something else
        reason = f" ({printable(str(error))})"
    raise ValueError(
        f"{printable(path.name)} is not a CLIP vision model{reason}. Choose CLIP ViT-H (laion2B-s32B-b79K) as "
        "clip_vision."
    )


def states(model: ClipVisionModel, images: Tensor) -> Tensor:
    """Return the states (n, N, D) of images (n, H, W, 3) in [0, 1], resized to the model's size and center-cropped."""
    hidden: Tensor = model.encode_image(images[..., :3], crop=True)["penultimate_hidden_states"]
    return hidden.float().cpu()


def negative_states(model: ClipVisionModel) -> Tensor:
    """Return the states (1, N, D) of pixels that are zero after preprocessing: negative tokens are made of them."""
    memory.load_model_gpu(model.patcher)
    pixels = negative_clip_input(model.image_size, model.load_device)
    hidden: Tensor = model.model(pixel_values=pixels, intermediate_output=-2)[1]
    return hidden.float().cpu()
