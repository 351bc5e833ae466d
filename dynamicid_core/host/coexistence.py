"""Living with other packs: sharing an attention with theirs, the batches they expand, what they replaced."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from comfy.model_patcher import ModelPatcher

if TYPE_CHECKING:
    from .identity_attention import IdentityAttention
    from .sampling_run import AppliedScene, Run, Step

logger = logging.getLogger("DynamicID")

# What packs agree to take for the noise level where none is told: higher than any.
NO_SIGMA = 999999999.9

_ALWAYS = {"sigma_start": NO_SIGMA, "sigma_end": 0.0}

# Rows of a batch are drawn with a person's tokens or, in the negative half, with the encoder's tokens of nobody.
POSITIVE, NEGATIVE = 0, 1


def fork(patch: Any) -> Any:
    """A copy of an attention object that others may add to without changing the original."""
    copied = copy.copy(patch)
    for name, value in vars(patch).items():
        if isinstance(value, list):
            setattr(copied, name, list(value))
    if hasattr(copied, "multigpu_kwargs"):
        # Made per device from kwargs as they were: they must be made again.
        copied.multigpu_kwargs = {}
    return copied


def patch_block(model: ModelPatcher, patch: IdentityAttention) -> None:
    """Put the patch in place beside whatever another pack has put there before."""
    block, number = patch.block.key
    present = _attn2_patches(model.model_options)
    # The host prefers the longer key, so a patch registered under it must be met there.
    index = 0 if (block, number, 0) in present else None
    there = present.get((block, number, 0)) if index == 0 else present.get((block, number))
    if there is not None and hasattr(there, "add"):
        shared = fork(there)
        shared.add(patch.as_callback, **_ALWAYS)
        model.set_model_attn2_replace(shared, block, number, index)
    else:
        patch.base = there
        model.set_model_attn2_replace(patch, block, number, index)


def _attn2_patches(model_options: dict[str, Any]) -> dict[Any, Any]:
    return model_options.get("transformer_options", {}).get("patches_replace", {}).get("attn2", {})


def fork_patches(_: ModelPatcher, clone: ModelPatcher) -> None:
    """Give a clone of a patched model its own attention objects: packs add to the ones they find."""
    patches = _attn2_patches(clone.model_options)
    for key, patch in patches.items():
        if hasattr(patch, "add"):
            patches[key] = fork(patch)


def batch_roles(step: Step, rows: int, options: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    """The roles of a batch's equal chunks and the rows of each, whatever other packs did to the batch.

    Attention-couple packs repeat every chunk but number 1, once per regional prompt, while `cond_or_uncond` still
    tells the chunks of before; they tell the chunks of after in a key of their own, or not at all.

    Args:
        rows: rows of this layer's queries.
        options: the layer's extra_options.
    """
    chunks = list(options.get("cond_or_uncond") or [0])
    roles = step.run.roles(chunks, options.get("uuids") or ())
    for key in ("cond_or_uncond_couple", "cond_or_uncond_hook_couple"):
        coupled = options.get(key)
        if coupled and rows % len(coupled) == 0:
            role_of = dict(zip(chunks, roles, strict=True))
            return tuple(role_of.get(c, NEGATIVE if c == 1 else POSITIVE) for c in coupled), rows // len(coupled)
    batch = (options.get("original_shape") or [rows])[0]
    per_chunk = max(batch // len(chunks), 1)
    if rows != per_chunk * len(chunks):
        roles = _expanded(roles, chunks, rows // per_chunk)
    return (roles, per_chunk) if len(roles) * per_chunk == rows else (_row_by_row(roles, rows), 1)


def _expanded(roles: tuple[int, ...], chunks: Sequence[int], total: int) -> tuple[int, ...]:
    """The roles after every chunk but number 1 was repeated equally often, so that there are `total` chunks."""
    repeated = sum(chunk != 1 for chunk in chunks)
    times, left = divmod(total - (len(chunks) - repeated), repeated or 1)
    if left or times < 1:
        return roles
    return tuple(role for role, chunk in zip(roles, chunks, strict=True) for _ in range(1 if chunk == 1 else times))


def _row_by_row(roles: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Spread the roles over rows that don't divide evenly: nothing known fits, and sampling must go on."""
    return tuple(roles[row * len(roles) // rows] for row in range(rows))


def warn_if_replaced(applied: AppliedScene, run: Run) -> None:
    """After a run's first call of the UNet: another pack may have taken our place instead of wrapping us."""
    lost = [block.key for block in applied.blocks if block.key not in run.called_blocks]
    if lost:
        names = ", ".join(f"{block} {number}" for block, number in lost)
        logger.warning(
            "Another node replaced DynamicID's attention in %d of %d layers (%s): people will be missing or weak. "
            "Place Apply DynamicID after that node.",
            len(lost),
            len(applied.blocks),
            names,
        )
