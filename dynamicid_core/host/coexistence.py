"""Living with other packs: one attention shared with theirs, and what they replaced."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .blocks import BlockKey, block_name

logger = logging.getLogger("DynamicID")

Patch = TypeVar("Patch")

# What packs agree to take for the noise level where none is told: higher than any.
NO_SIGMA = 999999999.9


class SharedAttention(ABC):
    """The replacement of one cross-attention that other packs may add to.

    It computes what was there before (or the text attention), adds our own part, then every callback's. Packs that
    share a place (IP-Adapter, InstantID, PuLID) find this object and call `add`; a callback is then run with
    `(out, q, k, v, extra_options, **kwargs)` while sigma_start >= sigma >= sigma_end, and its result is added.
    Nothing in it changes after it is built but these two lists, which every clone of the model gets copies of.
    """

    def __init__(self) -> None:
        self.base: Any = None  # the replacement that was there before; None: the host's own attention
        self.callback: list[Callable[..., Any]] = []
        self.kwargs: list[dict[str, Any]] = []

    @abstractmethod
    def draw(self, out: Tensor | None, q: Tensor, extra_options: dict[str, Any]) -> Tensor | None:
        """Return `out` (b, n, c) with our own part added, or that part alone without `out`; None where we have none."""

    @abstractmethod
    def sigma(self, extra_options: dict[str, Any]) -> float:
        """Return the noise level of this call of the UNet."""

    def add(self, callback: Callable[..., Any], **kwargs: Any) -> None:
        """Add another pack's attention; see the class."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Return the attention of the queries to all there is: (b, n, c) in q's dtype."""
        if self.base is not None:
            out: Tensor = self.base(q, k, v, extra_options)
        else:
            heads, precision = extra_options["n_heads"], extra_options.get("attn_precision")
            out = optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra_options)
        drawn = self.draw(out, q, extra_options)
        out = out if drawn is None else drawn
        if self.callback:
            sigma = self.sigma(extra_options)
            for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
                if kwargs.get("sigma_start", sigma) >= sigma >= kwargs.get("sigma_end", sigma):
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out.to(q.dtype)

    def as_callback(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: Any, **_: Any) -> Tensor | int:
        """Return what we add to an attention object of another pack that was there first; 0 for nothing."""
        drawn = self.draw(None, q, extra_options)
        return 0 if drawn is None else drawn

    def to(self, *args: Any, **kwargs: Any) -> SharedAttention:
        """Return this with `base` on another device or dtype; our own tensors move with each run by themselves."""
        base = self.base.to(*args, **kwargs) if hasattr(self.base, "to") else self.base
        if base is self.base:
            return self
        moved = fork(self)
        moved.base = base
        return moved

    def models(self) -> list[ModelPatcher]:
        """Return the models that the host must load for `base`."""
        return self.base.models() if hasattr(self.base, "models") else []

    def cleanup(self) -> None:
        """Clean `base` up after a run, when the host asks for it."""
        if hasattr(self.base, "cleanup"):
            self.base.cleanup()

    def __deepcopy__(self, memo: Any) -> SharedAttention:
        return fork(self)


def fork(patch: Patch) -> Patch:
    """Return a copy of an attention object that others may add to without changing the original."""
    copied = copy.copy(patch)
    for name, value in vars(patch).items():
        if isinstance(value, list):
            setattr(copied, name, list(value))
    if hasattr(copied, "multigpu_kwargs"):
        # Made per device from kwargs as they were: they must be made again.
        copied.multigpu_kwargs = {}
    return copied


def fork_patches(_: ModelPatcher, clone: ModelPatcher) -> None:
    """Give a clone of a patched model its own attention objects: packs add to the ones they find."""
    patches = _attn2_patches(clone)
    for key, patch in patches.items():
        if hasattr(patch, "add"):
            patches[key] = fork(patch)


def replace_attention(model: ModelPatcher, key: BlockKey, patch: SharedAttention) -> None:
    """Put our attention in place beside whatever another pack has put there before."""
    patches = _attn2_patches(model)
    place, indexed = key[:2], key if len(key) == 3 else (*key, 0)
    # The host prefers the key with a number at its place, so a patch registered under it must be met there.
    there = patches.get(indexed, patches.get(place))
    if hasattr(there, "add"):
        shared: Any = fork(there)
        shared.add(patch.as_callback, sigma_start=NO_SIGMA, sigma_end=0.0)
    else:
        patch.base, shared = there, patch
    index = indexed[2] if len(key) == 3 or indexed in patches else None
    model.set_model_attn2_replace(shared, *place, index)


def warn_if_replaced(keys: Sequence[BlockKey], called: Collection[BlockKey]) -> None:
    """Warn of our attentions that were not called: another pack has taken their place instead of wrapping them."""
    lost = [key for key in keys if key not in called]
    if lost:
        logger.warning(
            "Another node replaced DynamicID's attention in %d of %d layers (%s): people will be missing or weak. "
            "Place Apply DynamicID after that node.",
            len(lost),
            len(keys),
            ", ".join(map(block_name, lost)),
        )


def _attn2_patches(model: ModelPatcher) -> Any:
    return model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
