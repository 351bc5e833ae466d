"""Transformers whose attention offers no patch for its result: people enter by `optimized_attention_override`.

The host calls it in place of every attention of a model. It is one slot for all packs, so what was there is called. A
block's attentions are told from each other by their order: a joint attention comes first, a cross-attention second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from comfy.ldm.flux.math import apply_rope1
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..identity_attention import Grid
from ..sampling_run import STEP, Step
from .architecture import Block, Weight
from .transformer import Hook, Layers, Transformer, flat_heads, fused, grid_of, separate, with_people

OVERRIDE = "optimized_attention_override"


class Overridden(Transformer):
    """A transformer that people enter by the override.

    Attributes:
        path: of its blocks in the network.
        attention: which of a block's attentions people enter, from 0.
    """

    path: str
    attention = 0

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        """Return the maps of a block's attention layers; `path` is the block's name in the state dict."""
        raise NotImplementedError

    def first_token(self, network: Any, tokens: int, grid: Grid, options: Mapping[str, Any]) -> int:
        """Return where the image's tokens begin among all tokens of a block."""
        return 0

    def queries(self, q: Tensor, start: int, end: int, key: int, step: Step, network: Any) -> Tensor | None:
        """Return the image's queries without their positions: (b, n, h * d); None where they can't be had.

        Args:
            q: (b, h, tokens, d) or (b, tokens, h * d), as the attention is given them.
            key: the block's number.
        """
        return flat_heads(q[:, :, start:end]) if q.ndim == 4 else q[:, start:end]

    def blocks(self, network: Any) -> Sequence[Block]:
        return [
            Block(("block", i), self.linears(network, f"diffusion_model.{self.path}.{i}"))
            for i in range(len(getattr(network, self.path)))
        ]

    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        options = model.model_options["transformer_options"]
        network = model.model.diffusion_model
        options[OVERRIDE] = Override(self, network, layers, options.get(OVERRIDE))


class Override:
    """The override of a model, with all its layers that people enter. Nothing in it changes after it is built."""

    def __init__(self, kind: Overridden, network: Any, layers: Layers, previous: Callable[..., Tensor] | None) -> None:
        self.kind = kind
        self.network = network
        self.layers = layers
        self.previous = previous

    def __call__(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return what an attention of the model returns, with people where it is one that they enter."""
        attend = func if self.previous is None else partial(self.previous, func)
        out = attend(*args, **kwargs)
        options = kwargs.get("transformer_options") or {}
        number, step = options.get("block_index", -1), options.get(STEP)
        layer = self.layers.get(("block", number))
        if layer is None or step is None or step.run.applied is not layer.applied:
            return out
        attention = step.handed[number] = step.handed.get(number, -1) + 1
        if attention != self.kind.attention:
            return out
        q = args[0]
        grid = grid_of(step, self.kind.patch_size(self.network))
        start = self.kind.first_token(self.network, out.shape[1], grid, options)
        end = start + grid.depth * grid.height * grid.width
        of_image = self.kind.queries(q, start, end, number, step, self.network)
        if of_image is None or not layer.is_entered(step):
            return out
        heads = kwargs["heads"] if "heads" in kwargs else args[3]
        return with_people(layer, out, of_image, start, step, heads, grid, options)


class QwenImage(Overridden):
    """Qwen-Image: joint attention, text, image, then references. Its `attn1_patch` shows queries before rotation."""

    class_name = "QwenImageTransformer2DModel"
    path = "transformer_blocks"

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        return (separate(f"{path}.attn", "to_q", "to_k", "to_v", "to_out.0"),)

    def hooks(self, network: Any) -> Iterable[Hook]:
        return [(type(network.transformer_blocks[0].attn).forward, "attn1_patch")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

    def first_token(self, network: Any, tokens: int, grid: Grid, options: Mapping[str, Any]) -> int:
        references: int = sum(options.get("reference_image_num_tokens", ()))
        return tokens - references - grid.depth * grid.height * grid.width

    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        super().hook_in(model, layers)
        model.set_model_attn1_patch(_keep_queries)

    def queries(self, q: Tensor, start: int, end: int, key: int, step: Step, network: Any) -> Tensor | None:
        unrotated = step.handed.pop(("queries", key), None)
        return None if unrotated is None else flat_heads(unrotated[:, :, start:end])


class Lumina2(Overridden):
    """Lumina 2 and Z-Image: joint attention on rotated queries, text before image, the image padded at its end.

    The rotation is undone by what `noise_refiner` shows of it.
    """

    class_name = "NextDiT"
    path = "layers"

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        attention = network.layers[0].attention
        inner, keys = (n * attention.head_dim for n in (attention.n_local_heads, attention.n_local_kv_heads))
        out = Weight(f"{path}.attention.out.weight")
        return (fused(f"{path}.attention.qkv.weight", out, inner, keys),)

    def hooks(self, network: Any) -> Iterable[Hook]:
        return [(type(network).patchify_and_embed, "noise_refiner"), (type(network)._forward, "block_index")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

    def first_token(self, network: Any, tokens: int, grid: Grid, options: Mapping[str, Any]) -> int:
        return tokens - self._padded(network, grid.height * grid.width)

    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        super().hook_in(model, layers)
        model.set_model_noise_refiner_patch(_keep_rotation)

    def queries(self, q: Tensor, start: int, end: int, key: int, step: Step, network: Any) -> Tensor | None:
        rotation: Tensor | None = step.handed.get("rotation")  # (1, tokens of images, 1, d / 2, 2, 2)
        if rotation is None:
            return None

        def inverse() -> Tensor:
            first = rotation.shape[1] - self._padded(network, end - start)
            return rotation[:, first : first + end - start].mT.contiguous()

        unrotated: Tensor = apply_rope1(q[:, :, start:end].transpose(1, 2), step.once(("inverse", start, end), inverse))
        return unrotated.flatten(2)  # (b, n, h, d) -> (b, n, h * d)

    @staticmethod
    def _padded(network: Any, cells: int) -> int:
        multiple = network.pad_tokens_multiple or 1
        return -(-cells // multiple) * multiple


class StableDiffusion3(Overridden):
    """Stable Diffusion 3 and 3.5: joint attention, text before image, without rotation.

    The host does not say which block calls: what replaces a block ("dit") notes its number and runs it.
    """

    class_name = "OpenAISignatureMMDITWrapper"
    path = "joint_blocks"

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        attention = f"{path}.x_block.attn"
        return (fused(f"{attention}.qkv.weight", Weight(f"{attention}.proj.weight"), network.hidden_size),)

    def hooks(self, network: Any) -> Iterable[Hook]:
        return [(type(network).forward_core_with_concat, "double_block")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return 1, network.patch_size, network.patch_size

    def first_token(self, network: Any, tokens: int, grid: Grid, options: Mapping[str, Any]) -> int:
        return tokens - grid.height * grid.width

    def hook_in(self, model: ModelPatcher, layers: Layers) -> None:
        super().hook_in(model, layers)
        there = model.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
        for _, number, *_ in layers:
            block = NumberedBlock(number, there.get(("double_block", number)))
            model.set_model_patch_replace(block, "dit", "double_block", number)


class NumberedBlock:
    """A block that tells its number to its attention, and runs what was there before."""

    def __init__(self, number: int, previous: Callable[..., dict[str, Any]] | None) -> None:
        self.number = number
        self.previous = previous

    def __call__(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        args = {**args, "transformer_options": {**args["transformer_options"], "block_index": self.number}}
        if self.previous is not None:
            return self.previous(args, extra)
        result: dict[str, Any] = extra["original_block"](args)
        return result


class Wan(Overridden):
    """Wan, text or image to video: cross-attention of a video's tokens, all frames in one row."""

    class_name = "WanModel"
    path = "blocks"
    attention = 1

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        return tuple(separate(f"{path}.{name}", "q", "k", "v", "o") for name in ("self_attn", "cross_attn"))

    def hooks(self, network: Any) -> Iterable[Hook]:
        return [(type(network).forward_orig, "block_index")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        depth, height, width = network.patch_size
        return depth, height, width

    def first_token(self, network: Any, tokens: int, grid: Grid, options: Mapping[str, Any]) -> int:
        frame = grid.height * grid.width
        # a reference image comes first where the model has a place for one
        return frame if network.ref_conv is not None and tokens >= (grid.depth + 1) * frame else 0


class Anima(Overridden):
    """Anima (Cosmos): cross-attention of an image's tokens."""

    class_name = "Anima"
    path = "blocks"
    attention = 1

    def linears(self, network: Any, path: str) -> tuple[Mapping[str, Weight], ...]:
        names = ("q_proj", "k_proj", "v_proj", "output_proj")
        return tuple(separate(f"{path}.{name}", *names) for name in ("self_attn", "cross_attn"))

    def hooks(self, network: Any) -> Iterable[Hook]:
        return [(type(network)._forward, "block_index")]

    def patch_size(self, network: Any) -> tuple[int, int, int]:
        return network.patch_temporal, network.patch_spatial, network.patch_spatial


def _keep_queries(q: Tensor, *_: Any, extra_options: dict[str, Any], **__: Any) -> dict[str, Any]:
    """Keep a block's queries, normalized and not yet rotated, for the override; change nothing."""
    step: Step | None = extra_options.get(STEP)
    if step is not None:
        step.handed["queries", extra_options["block_index"]] = q
    return {}


def _keep_rotation(args: dict[str, Any]) -> dict[str, Any]:
    """Keep the rotation of the images' tokens for the override; change nothing."""
    step: Step | None = args["transformer_options"].get(STEP)
    if step is not None:
        step.handed["rotation"] = args["pe"]
    return {}
