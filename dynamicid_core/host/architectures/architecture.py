"""The interface of a base model: its transformer blocks in order, their weights, and how people get into them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import comfy.utils
from comfy.model_patcher import ModelPatcher

from ...saa.adapter import Adapter
from ..blocks import BlockKey
from ..identity_attention import PersonTokens
from ..sampling_run import AppliedScene

Part = tuple[int, int, int]
"""A part of a weight: axis, start, length."""


class Weight(NamedTuple):
    """A linear map of the model, which the adapter's LoRA changes.

    Attributes:
        path: its name in the model's state dict.
        part: where maps are fused into one weight, the part that is this one.
    """

    path: str
    part: Part | None = None

    @property
    def key(self) -> str | tuple[str, Part]:
        """What `ModelPatcher.add_patches` calls it."""
        return self.path if self.part is None else (self.path, self.part)

    def shape(self, model: ModelPatcher) -> tuple[int, ...]:
        """Return the map's shape, (out, in)."""
        shape = list(comfy.utils.get_attr(model.model, self.path).shape)
        if self.part is not None:
            axis, _, shape[axis] = self.part
        return tuple(shape)


class Block(NamedTuple):
    """A transformer block.

    Attributes:
        key: its name among the model's blocks.
        layers: its attention layers in the order in which an adapter numbers them, each with its maps by the names of
            `adapter.LINEARS`. People enter the last.
    """

    key: BlockKey
    layers: tuple[Mapping[str, Weight], ...]


class Architecture(ABC):
    """A kind of base model.

    A noise schedule it needs not tell: the host's own `model_sampling` turns parts of sampling into noise levels for
    all. Nor its text: identity tokens have a width of their own, and nothing of ours is in the text.
    """

    @abstractmethod
    def is_of(self, model: ModelPatcher) -> bool:
        """Return whether a model is of this kind."""

    @abstractmethod
    def match(self, model: ModelPatcher, adapter: Adapter) -> tuple[Block, ...]:
        """Return the blocks that an adapter's layers belong to, in order.

        Raises:
            ValueError: the adapter does not fit the model, or this host has no hook that people could enter by.
        """

    @abstractmethod
    def attach(
        self, model: ModelPatcher, applied: AppliedScene, tokens: Mapping[BlockKey, Sequence[PersonTokens]]
    ) -> None:
        """Let people enter a model, which is ours to change.

        Args:
            tokens: by block, everybody's tokens for the layer of it that people enter.
        """
