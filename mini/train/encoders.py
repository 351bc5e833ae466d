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
    tokens = words()
    own = {"vocab_size": len(tokens.ids) + 1, "eos_token_id": tokens.end, "bos_token_id": tokens.start}
    return CLIPTextModelWithProjection(CLIPTextConfig(**TEXT | own | _EAGER, pad_token_id=tokens.end))


def vision_model() -> nn.Module:
    """Return a fresh image encoder."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION | _EAGER))


def read(text: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the text's states (n, 77, 128) and vectors (n, 128) of token numbers (n, 77)."""
    output = text(input_ids=tokens)
    return output.last_hidden_state, output.text_embeds


def read_pooled(text: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the text's states (n, 77, 128) and pooled states (n, 128), its end's, of token numbers (n, 77)."""
    states = text(input_ids=tokens).last_hidden_state
    ends = (tokens == words().end).int().argmax(1)
    return states, states[torch.arange(len(tokens), device=tokens.device), ends]


def see(vision: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return penultimate states (n, 65, 192) and vectors (n, 128) of images (n, 3, H, W) in [0, 1]."""
    mean, std = (
        torch.tensor(VISION[name], device=images.device)[:, None, None] for name in ("image_mean", "image_std")
    )
    inputs = clip_input(images, VISION["image_size"], mean, std, to_bytes=False)
    output = vision(pixel_values=inputs, output_hidden_states=True)
    return output.hidden_states[-2], output.image_embeds


def load_text(context: TrainContext) -> nn.Module:
    return context.load("text", text_model(), ignore=ROW_IDS)


def load_vision(context: TrainContext) -> nn.Module:
    return context.load("vision", vision_model())
