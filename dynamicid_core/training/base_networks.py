"""What a frozen base model is to the trainings: networks, latents, text, and what the network is to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from ..image_inputs import clip_input, negative_clip_input
from ..saa.bases import BASES
from .config import TrainingConfig
from .layers import IdentityInput
from .saa import default_token_dim

Predict = Callable[[Tensor, Tensor], Tensor]
"""Makes of noisy latents (n, C, h, w) and timesteps (n,) what the network predicts of them."""


class TextStates(NamedTuple):
    """What a network reads of prompts: states (n, T, D), and pooled text (n, P), which IMR reads, too."""

    states: Tensor
    pooled: Tensor

    def expand(self, rows: int) -> TextStates:
        """Return one prompt's for so many rows."""
        return TextStates(self.states.expand(rows, -1, -1), self.pooled.expand(rows, -1))


@dataclass(frozen=True, eq=False)
class BaseNetworks(ABC):
    """The networks, frozen, in evaluation mode, on one device.

    Attributes:
        network: what draws.
        mean, std: of the image encoder's input, by channel.
        base: its name in `saa.bases.BASES`.
        unused_options: those of a configuration that this base model has no use for.
        guidance: scale of classifier-free guidance for images that are only looked at.
    """

    network: Any
    vae: nn.Module
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    image_encoder: CLIPVisionModelWithProjection
    scheduler: Any
    mean: Tensor
    std: Tensor

    base: ClassVar[str]
    guidance: ClassVar[float]
    unused_options: ClassVar[frozenset[str]]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def token_dim(self) -> int:
        """Channels of an identity token."""
        return default_token_dim(self.network)

    @property
    @abstractmethod
    def pooled_dim(self) -> int:
        """Channels of pooled text."""

    def check(self, config: TrainingConfig) -> None:
        """Raise ValueError when a configuration asks for what this base model has not."""
        unused = sorted(config.model_fields_set & self.unused_options)
        if unused:
            raise ValueError(f"{', '.join(unused)}: not for {BASES[self.base].title}, as the base is; remove it.")

    @abstractmethod
    def text(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts."""

    @abstractmethod
    def noise(
        self, latents: Tensor, generators: Sequence[torch.Generator], config: TrainingConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents (n, C, h, w) with noise added, what is to be predicted of them, and the timesteps (n,).

        Each row's follow from its generator.
        """

    @abstractmethod
    def timestep_weights(self, timesteps: Tensor, config: TrainingConfig) -> Tensor:
        """Return the weights (n,) of timesteps (n,) in a loss on what is predicted."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput | None) -> Tensor:
        """Return what the network predicts (n, C, h, w); without `identity` nobody takes part, and of SAA its LoRA."""

    @abstractmethod
    def sample(self, noise: Tensor, predict: Predict, steps: int) -> Tensor:
        """Return latents (n, C, h, w) drawn from noise."""

    def guided(self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput) -> Tensor:
        """Predict with guidance, for images that are looked at; text and people: (2n), the negative ones first."""
        both = torch.cat([noisy, noisy])
        unconditional, conditional = self.predict(both, timesteps.repeat(2), text, identity).chunk(2)
        # eps = eps_u + s (eps_c - eps_u) (arXiv 2207.12598, equation 6).
        return unconditional + self.guidance * (conditional - unconditional)

    def checkpoint_activations(self) -> None:
        """Make the network compute activations again when they are needed, for less memory."""
        self.network.enable_gradient_checkpointing()
        self.network.train()  # diffusers checkpoints UNets only then; there is no dropout that this would wake

    # --- latents ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the means (n, C, H/8, W/8) of the latents of images (n, 3, H, W) in [0, 1], and standard deviations.

        The latter are None where the encoder is not variational.
        """
        pixels = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        scale, shift = self._latent_scale
        encoded = self.vae.encode(pixels)  # type: ignore[operator]
        if hasattr(encoded, "latents"):
            return (encoded.latents.float() - shift) * scale, None
        distribution = encoded.latent_dist
        return (distribution.mean.float() - shift) * scale, distribution.std.float() * scale

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Return the images (n, 3, 8h, 8w) in [0, 1] of latents (n, C, h, w)."""
        scale, shift = self._latent_scale
        decoded: Tensor = self.vae.decode(latents / scale + shift).sample  # type: ignore[operator]
        return ((decoded + 1) / 2).clamp(0, 1)

    @property
    def _latent_scale(self) -> tuple[float, float]:
        """Factor and shift of what the network sees of the autoencoder's latents."""
        config: Any = self.vae.config
        return config["scaling_factor"], config.get("shift_factor") or 0.0

    # --- what the face encoder reads --------------------------------------------------------------------------------

    @torch.no_grad()
    def image_states(self, images: Tensor) -> Tensor:
        """Return CLIP's penultimate states (n, N, W) of square images (n, 3, S, S) in [0, 1]."""
        return self._states(clip_input(images, self._clip_size, self.mean, self.std))

    @torch.no_grad()
    def negative_states(self) -> Tensor:
        """Return the states (1, N, W) that negative tokens are encoded from."""
        return self._states(negative_clip_input(self._clip_size, self.mean.device))

    def _states(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return states

    @property
    def _clip_size(self) -> int:
        """Pixels a side of the image encoder's input."""
        size = self.image_encoder.config.image_size
        if not isinstance(size, int):
            raise ValueError(f"expected an image encoder for square images, got {size}.")
        return size


def token_ids(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Return the token numbers (n, length) of prompts."""
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids
