"""The text's and the pictures' encoder, as their stages leave them: CLIP's architectures, in transformers' classes.

Those classes' names for weights are the host's.
"""

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ..networks import ROW_IDS, TEXT, VISION
from .core import clip_input
from .stage import TrainContext
from .words import words

# torch's fused attention is slow backwards on a CPU.
_EAGER = {"attn_implementation": "eager"}


def text_model() -> nn.Module:
    """Return a fresh text encoder for the words that captions use."""
    said = words()
    own = {"vocab_size": len(said.ids) + 1, "eos_token_id": said.end, "bos_token_id": said.start}
    return CLIPTextModelWithProjection(CLIPTextConfig(**TEXT | own | _EAGER, pad_token_id=said.end))


def vision_model() -> nn.Module:
    """Return a fresh image encoder."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION | _EAGER))


def read(text: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the text's states (n, 77, 128) and vectors (n, 128) of token numbers (n, 77)."""
    found = text(input_ids=tokens)
    return found.last_hidden_state, found.text_embeds


def see(vision: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return penultimate states (n, 65, 192) and vectors (n, 128) of images (n, 3, H, W) in [0, 1]."""
    mean, std = (
        torch.tensor(VISION[name], device=images.device)[:, None, None] for name in ("image_mean", "image_std")
    )
    inputs = clip_input(images, VISION["image_size"], mean, std, to_bytes=False)
    found = vision(pixel_values=inputs, output_hidden_states=True)
    return found.hidden_states[-2], found.image_embeds


class Encoders(nn.Module):
    """Both."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.vision = text_model(), vision_model()

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `read` does."""
        return read(self.text, tokens)

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `see` does."""
        return see(self.vision, images)


def kept(network: nn.Module) -> dict[str, Tensor]:
    """Return an encoder's weights as they are stored: those that the host asks for."""
    state = network.state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if "position_ids" not in name}


def load_vision(context: TrainContext) -> nn.Module:
    network = vision_model()
    network.load_state_dict(context.stored("vision"))
    return network.to(context.device).eval().requires_grad_(False)


def load(context: TrainContext) -> Encoders:
    network = Encoders()
    text = context.stored("text")
    network.text.load_state_dict({name: tensor for name, tensor in text.items() if name != ROW_IDS})
    network.vision.load_state_dict(context.stored("vision"))
    return network.to(context.device).eval().requires_grad_(False)
