"""Which attention a base model has: the host's transformer blocks, in the order in which an adapter numbers them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from comfy.model_patcher import ModelPatcher

from ..saa.adapter import Adapter

Place = tuple[str, int]
"""A place of the UNet as the host names it: ("input", 4)."""

BlockKey = Place | tuple[str, int, int]
"""A transformer block: its place, and its number there where the place holds several, as SDXL's do."""


_BASES = {(16, 768): "SD1.5", (70, 2048): "SDXL"}  # by number of cross-attentions and channels of the text


class TransformerBlock(NamedTuple):
    """One transformer block of the UNet: a self-attention (attn1) followed by a cross-attention (attn2).

    Attributes:
        key: the host's name for the block, such as ("input", 4) or ("input", 4, 1); replacement patches are looked up
            by it.
        path: the block's name in the model's state dict.
        dim: channels of the block's queries.
        context_dim: channels of the text context.
    """

    key: BlockKey
    path: str
    dim: int
    context_dim: int


def block_name(key: BlockKey) -> str:
    """Return a block's name for messages: "input 4", or "input 4.1" for the second block of a place."""
    return f"{key[0]} {'.'.join(map(str, key[1:]))}"


def find_transformer_blocks(model: ModelPatcher) -> tuple[TransformerBlock, ...]:
    """Return all transformer blocks of a UNet with cross-attention in diffusers' processor order: down, up, mid.

    Raises:
        ValueError: the model is not such a UNet (FLUX, SD3, ...).
    """
    unet = getattr(model.model, "diffusion_model", None)
    if not all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "output_blocks")):
        raise ValueError(_wrong_model(model, "it is not a UNet with cross-attention"))
    layers = tuple(_cross_attentions(unet))
    if not layers:
        raise ValueError(_wrong_model(model, "it has no cross-attention"))
    at_place = Counter(place for place, _, _, _ in layers)
    return tuple(
        TransformerBlock(
            place if at_place[place] == 1 else (*place, index),
            f"diffusion_model.{path}",
            attention.to_q.weight.shape[0],
            attention.to_k.weight.shape[1],
        )
        for place, index, path, attention in layers
    )


def _cross_attentions(unet: Any) -> Iterator[tuple[Place, int, str, Any]]:
    """Yield each block's place, its number there, its name in the UNet and its cross-attention."""
    for part, name in (("input_blocks", "input"), ("output_blocks", "output"), ("middle_block", "middle")):
        for path, module in getattr(unet, part).named_modules():
            if getattr(module, "attn2", None) is not None:
                number, *_, index = path.split(".")  # 4.1.transformer_blocks.0; in the middle 1.transformer_blocks.0
                yield (name, 0 if name == "middle" else int(number)), int(index), f"{part}.{path}", module.attn2


def matching_blocks(model: ModelPatcher, adapter: Adapter) -> tuple[TransformerBlock, ...]:
    """Return the model's transformer blocks; the adapter's layers 2i and 2i + 1 are block i's two attentions.

    Raises:
        ValueError: number of layers or their dims differ: the adapter is for another base model.
    """
    blocks = find_transformer_blocks(model)
    of_adapter = [tuple(adapter.weights[f"{i}.to_k_ip.weight"].shape) for i in range(1, len(adapter.dims), 2)]
    of_model: list[tuple[int, ...]] = [(block.dim, block.context_dim) for block in blocks]
    if of_adapter != of_model:
        ours, theirs = _described(of_adapter), _described(of_model)
        if base := known_base(adapter):
            ours = f"{base}: {ours}"
        raise ValueError(_wrong_model(model, f"it has {theirs}, while this adapter was made for {ours}"))
    return blocks


def known_base(adapter: Adapter) -> str | None:
    """Return the name of the base model that an adapter was made for; None where its sizes are no known one's."""
    return None if adapter.text_dim is None else _BASES.get((len(adapter.dims) // 2, adapter.text_dim))


def _described(layers: list[tuple[int, ...]]) -> str:
    dims, context_dims = (sorted(set(column)) for column in zip(*layers, strict=True))
    return f"{len(layers)} cross-attention layers of dims {dims} with text dim {context_dims}"


def _wrong_model(model: ModelPatcher, reason: str) -> str:
    kind = type(model.model).__name__
    # The host's class for SD1.x and SD2.x is plainly BaseModel; the configuration tells them apart.
    config = type(getattr(model.model, "model_config", None)).__name__
    name = config if kind == "BaseModel" else kind
    return (
        f"DynamicID works on Stable Diffusion's UNets, with an adapter trained for the one at hand, but this model is "
        f"{name}: {reason}. Load a checkpoint of the adapter's base model (SD1.5, such as Realistic Vision V6, for "
        "DynamicID's release), or an adapter trained for this model."
    )
