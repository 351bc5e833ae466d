"""Flux's kind of transformer: the host shows a block's queries to `attn1_patch`, its result to `attn1_output_patch`.

Both are given the same `extra_options`, in which the queries are handed from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..sampling_run import current_step
from .architecture import Block, Weight
from .transformer import Hook, Layers, Transformer, flat_heads, fused, grid_of, separate, with_people

_QUERIES = "dynamicid_queries"


class FluxLike(Transformer):
    """Flux.1, Flux.2 and Chroma: double-stream blocks, whose text has weights of its own, then single-stream ones."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.class_name = "Chroma" if base == "chroma" else "Flux"

    def is_of(self, model: ModelPatcher) -> bool:
        if not super().is_of(model):
            return False
        # Flux.2 is the same class with one modulation for all its blocks
        is_second = getattr(model.model.diffusion_model.params, "global_modulation", False)
        return bool(is_second) == (self.base == "flux2")

    def blocks(self, network: Any) -> Sequence[Block]:
        dim, blocks = network.hidden_size, []
        for i in range(len(network.double_blocks)):
            path = f"diffusion_model.double_blocks.{i}.img_attn"
            maps = fused(f"{path}.qkv.weight", Weight(f"{path}.proj.weight"), dim)
            blocks.append(Block(("double", i), (maps,)))
        for i in range(len(network.single_blocks)):
            path = f"diffusion_model.single_blocks.{i}"
            maps = fused(f"{path}.linear1.weight", Weight(f"{path}.linear2.weight", (1, 0, dim)), dim)
            blocks.append(Block(("single", i), (maps,)))
        return blocks

    def hooks(self, network: Any) -> Iterable[Hook]:
        blocks = (*network.double_blocks[:1], *network.single_blocks[:1])
        return [(type(block).forward, name) for block in blocks for name in ("attn1_patch", "attn1_output_patch")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        patches = JointPatches(layers, self.patch_size(model.model.diffusion_model))
        model.set_model_attn1_patch(patches.keep_queries)
        model.set_model_attn1_output_patch(patches.add_people)


class Krea2(FluxLike):
    """Krea 2: single-stream blocks alone; several heads of queries share one of keys and values."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.class_name = "SingleStreamDiT"

    def is_of(self, model: ModelPatcher) -> bool:
        return Transformer.is_of(self, model)

    def blocks(self, network: Any) -> Sequence[Block]:
        names = ("wq", "wk", "wv", "wo")
        return [
            Block(("single", i), (separate(f"diffusion_model.blocks.{i}.attn", *names),))
            for i in range(len(network.blocks))
        ]

    def hooks(self, network: Any) -> Iterable[Hook]:
        attention = type(network.blocks[0].attn)
        return [(attention.forward, name) for name in ("attn1_patch", "attn1_output_patch")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch, network.patch


class JointPatches:
    """The two patches of a model, with all its layers that people enter. Nothing in it changes after it is built."""

    def __init__(self, layers: Layers, patch: tuple[int, int, int]) -> None:
        self.layers = layers
        self.patch = patch

    def keep_queries(self, q: Tensor, *_: Any, extra_options: dict[str, Any], **__: Any) -> dict[str, Any]:
        """Keep q (b, h, tokens, d), normalized and not yet rotated, for `add_people`; change nothing."""
        extra_options[_QUERIES] = q
        return {}

    def add_people(self, out: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Return a block's attention (b, tokens, h * d), text before image, with people in the image."""
        q: Tensor | None = extra_options.pop(_QUERIES, None)
        layer = self.layers.get((extra_options.get("block_type", ""), extra_options.get("block_index", -1)))
        if q is None or layer is None:
            return out
        step = current_step(layer.applied, extra_options)
        if not layer.is_entered(step):
            return out
        grid, start = grid_of(step, self.patch), extra_options["img_slice"][0]
        end = start + grid.depth * grid.height * grid.width  # reference images follow
        of_image = flat_heads(q[:, :, start:end])
        return with_people(layer, out, of_image, start, step, q.shape[1], grid, extra_options)
