"""SAA to be trained: its weights as a module, and diffusers' attention with them.

What an attention layer computes is the core's own `saa`, as in the host's patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from ..saa.bases import ALL_BLOCKS
from .flux_attention import FluxSAAProcessor, flux_adapters, flux_layers, prepare_flux
from .unet_attention import SAAProcessor, unet_adapters, unet_layers

Network = UNet2DConditionModel | FluxTransformer2DModel


class SAA(nn.ModuleList):
    """The adapter of a whole network: `{i}.to_q_lora.down.weight` and so on, its layers numbered as in `saa/bases.py`.

    `state_dict()` is what `adapter.adapter_from_weights` reads.
    """

    @classmethod
    def of(
        cls, network: Network, rank: int = 128, token_dim: int | None = None, identity_blocks: str = ALL_BLOCKS
    ) -> SAA:
        """Return SAA as training begins: the LoRA changes nothing.

        A UNet's identity keys and values are the text's own, Flux's values are zero.

        Args:
            token_dim: channels of identity tokens; None: those of `default_token_dim`.
            identity_blocks: which of Flux's blocks people enter, of `bases.IDENTITY_BLOCKS`.

        Raises ValueError when a UNet's attention is of another kind than SD1.5's.
        """
        token_dim = token_dim or default_token_dim(network)
        if isinstance(network, FluxTransformer2DModel):
            return cls(flux_adapters(network, rank, token_dim, identity_blocks))
        assert isinstance(network, UNet2DConditionModel)
        return cls(unet_adapters(network, rank, token_dim))

    @contextmanager
    def installed(self, network: Network) -> Iterator[None]:
        """Make the network attend with this adapter for a while, then with the one that it had."""
        before = [layer.processor for layer in _layers(network)]
        self.install(network)
        try:
            yield
        finally:
            for layer, processor in zip(_layers(network), before, strict=True):
                layer.set_processor(processor)

    def install(self, network: Network) -> None:
        """Make the network attend with this adapter; people come by its attentions' argument `identity`."""
        kind: Any = SAAProcessor
        if isinstance(network, FluxTransformer2DModel):
            kind = FluxSAAProcessor
            prepare_flux(network)
        for adapter, layer in zip(self, _layers(network), strict=True):
            layer.set_processor(kind(adapter))


def default_token_dim(network: Network) -> int:
    """Return the channels of an identity token where nobody says otherwise: a UNet's text's, Flux's pooled text's."""
    flux = isinstance(network, FluxTransformer2DModel)
    return int(network.config["pooled_projection_dim" if flux else "cross_attention_dim"])


def _layers(network: Network) -> list[Any]:
    if isinstance(network, FluxTransformer2DModel):
        return [*flux_layers(network).values()]
    assert isinstance(network, UNet2DConditionModel)
    return [*unet_layers(network).values()]
