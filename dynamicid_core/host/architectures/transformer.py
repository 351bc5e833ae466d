"""Diffusion transformers: what they have in common, whichever hook people enter them by."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfyui_version import __version__
from torch import Tensor

from ...saa.adapter import LINEARS, Adapter
from ...saa.bases import BASES, DOUBLE_BLOCKS
from ..blocks import KEY, BlockKey, block_name
from ..identity_attention import Grid, IdentityLayer, PersonTokens
from ..sampling_run import AppliedScene, Step, model_wrapper
from .architecture import Architecture, Block, Weight

Layers = Mapping[BlockKey, IdentityLayer]
Hook = tuple[Callable[..., Any], str]
"""A function of the host's, and a name that it uses where it has the hook."""

HAS_ALL_HOOKS = "0.30.0"
"""A version of ComfyUI with every hook that is used here."""


class Transformer(Architecture):
    """A diffusion transformer, an image being a sequence of tokens: one for each patch of the latent.

    Attributes:
        class_name: the host's class.
        base: its name in `saa.bases.BASES`.
    """

    class_name: str

    def __init__(self, base: str) -> None:
        self.base = base

    def is_of(self, model: ModelPatcher) -> bool:
        kind = type(getattr(model.model, "diffusion_model", None))
        return kind.__name__ == self.class_name and kind.__module__.startswith("comfy.ldm.")

    @abstractmethod
    def blocks(self, network: Any) -> Sequence[Block]:
        """Return all transformer blocks of the host's network, in the order in which it runs them."""

    @abstractmethod
    def hooks(self, network: Any) -> Iterable[Hook]:
        """Return what the host's network must have so that people can enter it."""

    @abstractmethod
    def patch_size(self, network: Any) -> tuple[int, int, int]:
        """Return how many frames, rows and columns of the latent make one token."""

    @abstractmethod
    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        """Register what reads queries and adds people."""

    def match(self, model: ModelPatcher, adapter: Adapter) -> tuple[Block, ...]:
        network, title = model.model.diffusion_model, BASES[self.base].title
        for function, name in self.hooks(network):
            if not _uses(function, name):
                raise ValueError(
                    f"This ComfyUI, {__version__}, gives no access to {title}'s queries ({name} is missing in "
                    f"{function.__qualname__}), so people can't be drawn with it. ComfyUI {HAS_ALL_HOOKS} does: update "
                    "ComfyUI. If yours is as new, another pack has replaced this part of it."
                )
        blocks = self.blocks(network)
        attentions, count = BASES[self.base].attentions, len(adapter.dims)
        carry = [block for block in blocks if adapter.identity_blocks != DOUBLE_BLOCKS or block.key[0] == "double"]
        fits = count in (attentions * len(carry), attentions * len(blocks))
        used = tuple(blocks[: count // attentions])
        theirs = [{name: weight.shape(model) for name, weight in maps.items()} for b in used for maps in b.layers]
        ours = [{name: _shape(adapter, i, name) for name in LINEARS} for i in range(count)]
        if not fits or len(adapter.identity_layers) != len(carry) or ours != theirs:
            dim = blocks[0].layers[0]["to_q"].shape(model)[1]
            raise ValueError(
                f"This model is {title}, as the adapter's is, but of another size: it has {attentions * len(blocks)} "
                f"attention layers, the first of {dim} channels, while this adapter was made for {count}, the first of "
                f"{adapter.dims[0]}, {len(adapter.identity_layers)} of them with people. Load the model that the "
                "adapter was trained for."
            )
        return used

    def attach(
        self, model: ModelPatcher, applied: AppliedScene, tokens: Mapping[BlockKey, Sequence[PersonTokens]]
    ) -> None:
        self.hook_in(model, {key: IdentityLayer(applied, key, tuple(people)) for key, people in tokens.items()})
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, model_wrapper(applied))


def separate(path: str, *names: str) -> dict[str, Weight]:
    """Return maps that have a weight each, under these names for queries, keys, values and output."""
    return {linear: Weight(f"{path}.{name}.weight") for linear, name in zip(LINEARS, names, strict=True)}


def fused(fused_path: str, out: Weight, inner: int, keys: int | None = None) -> dict[str, Weight]:
    """Return maps whose queries, keys and values are the first rows of one weight.

    Args:
        inner: channels of all heads' queries.
        keys: channels of all heads' keys, where they are fewer, and of their values.
    """
    keys = inner if keys is None else keys
    rows = {"to_q": (0, inner), "to_k": (inner, keys), "to_v": (inner + keys, keys)}
    return {name: Weight(fused_path, (0, *part)) for name, part in rows.items()} | {"to_out": out}


def grid_of(step: Step, patch: tuple[int, int, int]) -> Grid:
    """Return the grid of image tokens of a call; the host pads a latent that its patches don't divide.

    Raises:
        ValueError: the model was called around the host's sampling, so that nobody told the latent's size.
    """
    if not step.size:
        raise ValueError(
            "DynamicID needs the latent's size to place people, but another node calls the transformer in a way of its "
            "own. Remove that node, or place it on another model."
        )
    size = (1, *step.size)[-3:]
    return Grid(*(-(-length // cells) for length, cells in zip(size, patch, strict=True)))


def with_people(
    layer: IdentityLayer,
    out: Tensor,
    q: Tensor,
    start: int,
    step: Step,
    heads: int,
    grid: Grid,
    options: dict[str, Any],
) -> Tensor:
    """Return the attention of all tokens (b, tokens, c) with people added to the image's.

    Args:
        q: (b, n, c) queries of the image's tokens, which begin at `start` of all tokens.
    """
    end = start + grid.depth * grid.height * grid.width
    if end > out.shape[1] or start < 0 or q.shape[1] != end - start:
        raise ValueError(
            f"DynamicID needs the real grid of each layer to place people, but block {block_name(layer.key)} has "
            f"{out.shape[1]} tokens where an image of {grid.height} x {grid.width} was to begin at {start}. Another "
            "node changes the tokens; remove it or place it on another model."
        )
    drawn = layer.add_people(out[:, start:end], q, step, heads, grid, options)
    if q.shape[1] == out.shape[1]:
        return drawn
    return torch.cat((out[:, :start], drawn, out[:, end:]), dim=1)


def flat_heads(q: Tensor) -> Tensor:
    """Return (b, h, n, d) as (b, n, h * d)."""
    return q.transpose(1, 2).flatten(2)


def _shape(adapter: Adapter, layer: int, linear: str) -> tuple[int, int]:
    up, down = (adapter.weights[f"{layer}.{linear}_lora.{side}.weight"] for side in ("up", "down"))
    return up.shape[0], down.shape[1]


def _uses(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function's code has a name in it as a string."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and name in code.co_consts
