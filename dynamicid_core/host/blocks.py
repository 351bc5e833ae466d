"""Where attention happens in the host's UNet, in the order in which an adapter numbers its layers."""

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher

from ..saa.adapter import Adapter, AttentionWeights

BlockKey = tuple[str, int]


class TransformerBlock(NamedTuple):
    """One transformer block of the UNet: a self-attention (attn1) followed by a cross-attention (attn2).

    Attributes:
        key: the host's name for the place, such as ("input", 4); replacement patches are looked up by it.
        path: the block's name in the model's state dict.
        dim: channels of the block's queries.
        context_dim: channels of the text context.
    """

    key: BlockKey
    path: str
    dim: int
    context_dim: int


def find_transformer_blocks(model: ModelPatcher) -> tuple[TransformerBlock, ...]:
    """All transformer blocks of a UNet with cross-attention in diffusers' processor order: down, up, mid.

    Raises:
        ValueError: the model is no such UNet (FLUX, SD3, ...) or has several transformer blocks in one place (SDXL).
    """
    unet = getattr(model.model, "diffusion_model", None)
    if not all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "output_blocks")):
        raise ValueError(_wrong_model(model, "it is not a UNet with cross-attention"))
    blocks: list[TransformerBlock] = []
    for part, name in (("input_blocks", "input"), ("output_blocks", "output"), ("middle_block", "middle")):
        for module_name, module in getattr(unet, part).named_modules():
            if getattr(module, "attn2", None) is None:
                continue
            number = 0 if name == "middle" else int(module_name.split(".")[0])
            if any(block.key == (name, number) for block in blocks):
                raise ValueError(_wrong_model(model, f"its block {name} {number} holds several transformer blocks"))
            to_k = module.attn2.to_k.weight
            path = f"diffusion_model.{part}.{module_name}"
            blocks.append(TransformerBlock((name, number), path, module.attn2.to_q.weight.shape[0], to_k.shape[1]))
    if not blocks:
        raise ValueError(_wrong_model(model, "it has no cross-attention"))
    return tuple(blocks)


def paired_layers(
    model: ModelPatcher, adapter: Adapter
) -> tuple[tuple[TransformerBlock, AttentionWeights, AttentionWeights], ...]:
    """Each block of the model with the adapter's weights for its self- and its cross-attention.

    Raises:
        ValueError: number of layers or their widths differ: the adapter is for another base model.
    """
    blocks = find_transformer_blocks(model)
    own, cross = adapter.layers[0::2], adapter.layers[1::2]
    expected = [(layer.to_k_ip.shape[0], layer.to_k_ip.shape[1]) for layer in cross if layer.to_k_ip is not None]
    found = [(block.dim, block.context_dim) for block in blocks]
    if expected != found:
        raise ValueError(
            _wrong_model(
                model,
                f"it has {_described(found)}, while this adapter was made for {_described(expected)}",
            )
        )
    return tuple(zip(blocks, own, cross, strict=True))


def _described(layers: list[tuple[int, int]]) -> str:
    widths = sorted({width for width, _ in layers})
    contexts = sorted({context for _, context in layers})
    return f"{len(layers)} cross-attention layers of widths {widths} with text width {contexts}"


def _wrong_model(model: ModelPatcher, found: str) -> str:
    kind = type(model.model).__name__
    # The host's class for SD1.x and SD2.x is plainly BaseModel; the configuration tells them apart.
    config = type(getattr(model.model, "model_config", None)).__name__
    name = config if kind == "BaseModel" else kind
    return (
        f"DynamicID works on SD1.5 checkpoints, but this model is {name}: {found}. "
        "Load an SD1.5 checkpoint (such as Realistic Vision V6), or an adapter trained for this model."
    )
