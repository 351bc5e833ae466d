"""An adapter's LoRA, which the host merges into a model's weights."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter

from ..saa.adapter import Adapter
from .architectures.architecture import Block, Part
from .blocks import KEY, MIDDLE, BlockKey

Patches = dict[str | tuple[str, Part], LoRAAdapter]


class LoraStrength(NamedTuple):
    """How strong an adapter's LoRA is.

    Attributes:
        overall: factor on all of it; 0 leaves the model's weights alone.
        middle: further factor in a UNet's middle block, the deepest. How many faces there are is decided there, which a
            LoRA that has seen one person in each picture does not know (mini/RESULTS.md, "How much of the LoRA").
    """

    overall: float = 1.0
    middle: float = 1.0

    def in_block(self, key: BlockKey) -> float:
        return self.overall * (self.middle if key[0] == MIDDLE else 1.0)


WHOLE_LORA = LoraStrength()
IN_GROUPS = (LoraStrength(middle=0.0), LoraStrength(0.75, 0.0))
"""What suits two people, and three or more, where each image of the LoRA's training had one: mini/RESULTS.md."""


def merge_lora(
    model: ModelPatcher,
    adapter: Adapter,
    blocks: Sequence[Block],
    strength: LoraStrength,
    warn: Callable[[str], None],
) -> None:
    """Hand the LoRA of every attention layer to the host as weight patches, which it merges into the model."""
    by_strength: dict[float, Patches] = {}
    layers = ((block.key, maps) for block in blocks for maps in block.layers)
    for number, (key, maps) in enumerate(layers):
        patches = by_strength.setdefault(strength.in_block(key), {})
        for linear, weight in maps.items():
            up, down = (adapter.weights[f"{number}.{linear}_lora.{side}.weight"] for side in ("up", "down"))
            # The first None is alpha: a number would be divided by the rank.
            patches[weight.key] = LoRAAdapter(set(), (up, down, None, None, None, None))
    by_strength.pop(0.0, None)
    before = model.patches_uuid
    if any(_holds(model, patches) for patches in by_strength.values()):
        warn(
            "this model has the adapter's own LoRA from a LoRA loader already, so it is merged twice. Remove that "
            "loader: Apply DynamicID brings the LoRA that is in the adapter's file."
        )
    for factor, patches in by_strength.items():
        missed = patches.keys() - set(model.add_patches(patches, factor))
        if missed:
            raise ValueError(
                f"This model has no weights named {sorted(map(str, missed))[:3]}, which the adapter's LoRA changes."
            )
    # The host merges weights again whenever this id changes. Derived from what is merged, it stays the same for the
    # next clone with the same adapter, so that moving a box or a weight merges nothing.
    model.patches_uuid = uuid.uuid5(before, f"{KEY}:{adapter.fingerprint}:{strength!r}")


def _holds(model: ModelPatcher, patches: Patches) -> bool:
    """Return whether a loader has put the same low-rank change on the first of the weights."""
    key, ours = next(iter(patches.items()))
    path, part = (key, None) if isinstance(key, str) else key
    there = [getattr(patch[1], "weights", ()) for patch in model.patches.get(path, ()) if patch[3] == part]
    return any(
        len(theirs) > 1
        and all(
            torch.is_tensor(a) and a.shape == b.shape and torch.allclose(a.float(), b.float())
            for a, b in zip(theirs, ours.weights[:2], strict=False)
        )
        for theirs in there
    )
