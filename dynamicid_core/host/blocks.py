"""Which attention a base model has: the host's transformer blocks, in the order in which an adapter numbers them."""

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher

from ..saa.adapter import Adapter

BlockKey = tuple[str, int]


class TransformerBlock(NamedTuple):
    """One transformer block of the UNet: a self-attention (attn1) followed by a cross-attention (attn2).

    Attributes:
        key: the host's name for the block, such as ("input", 4); replacement patches are looked up by it.
        path: the block's name in the model's state dict.
        dim: channels of the block's queries.
        context_dim: channels of the text context.
    """

    key: BlockKey
    path: str
    dim: int
    context_dim: int


def find_transformer_blocks(model: ModelPatcher) -> tuple[TransformerBlock, ...]:
    """Return all transformer blocks of a UNet with cross-attention in diffusers' processor order: down, up, mid.

    Raises:
        ValueError: the model is not such a UNet (FLUX, SD3, ...), or several of its blocks share a key (SDXL).
    """
    unet = getattr(model.model, "diffusion_model", None)
    if not all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "output_blocks")):
        raise ValueError(_wrong_model(model, "it is not a UNet with cross-attention"))
    blocks: dict[BlockKey, TransformerBlock] = {}
    for part, name in (("input_blocks", "input"), ("output_blocks", "output"), ("middle_block", "middle")):
        for module_name, module in getattr(unet, part).named_modules():
            if getattr(module, "attn2", None) is None:
                continue
            key = (name, 0 if name == "middle" else int(module_name.split(".")[0]))
            if key in blocks:
                raise ValueError(_wrong_model(model, f"its block {name} {key[1]} holds several transformer blocks"))
            dim, context_dim = module.attn2.to_q.weight.shape[0], module.attn2.to_k.weight.shape[1]
            blocks[key] = TransformerBlock(key, f"diffusion_model.{part}.{module_name}", dim, context_dim)
    if not blocks:
        raise ValueError(_wrong_model(model, "it has no cross-attention"))
    return tuple(blocks.values())


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
        raise ValueError(_wrong_model(model, f"it has {theirs}, while this adapter was made for {ours}"))
    return blocks


def _described(layers: list[tuple[int, ...]]) -> str:
    dims, context_dims = (sorted(set(column)) for column in zip(*layers, strict=True))
    return f"{len(layers)} cross-attention layers of dims {dims} with text dim {context_dims}"


def _wrong_model(model: ModelPatcher, reason: str) -> str:
    kind = type(model.model).__name__
    # The host's class for SD1.x and SD2.x is plainly BaseModel; the configuration tells them apart.
    config = type(getattr(model.model, "model_config", None)).__name__
    name = config if kind == "BaseModel" else kind
    return (
        f"DynamicID works on SD1.5 checkpoints, but this model is {name}: {reason}. "
        "Load an SD1.5 checkpoint (such as Realistic Vision V6), or an adapter trained for this model."
    )
