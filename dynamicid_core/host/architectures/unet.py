"""UNets with cross-attention (SD1.5, SDXL): each block's second attention is replaced, which the host calls attn2."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...saa.adapter import LINEARS, Adapter
from ..blocks import KEY, MIDDLE, BlockKey, Place, known_base
from ..coexistence import fork_patches, replace_attention
from ..identity_attention import IdentityAttention, PersonTokens
from ..sampling_run import AppliedScene, step_wrapper
from .architecture import Architecture, Block, Weight


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


class UNet(Architecture):
    """Stable Diffusion's UNets."""

    def is_of(self, model: ModelPatcher) -> bool:
        unet = getattr(model.model, "diffusion_model", None)
        return all(hasattr(unet, part) for part in ("input_blocks", "middle_block", "output_blocks"))

    def match(self, model: ModelPatcher, adapter: Adapter) -> tuple[Block, ...]:
        """Return the model's blocks; the adapter's layers 2i and 2i + 1 are block i's two attentions."""
        blocks = find_transformer_blocks(model)
        of_adapter = [tuple(adapter.weights[f"{i}.to_k_ip.weight"].shape) for i in range(1, len(adapter.dims), 2)]
        of_model: list[tuple[int, ...]] = [(block.dim, block.context_dim) for block in blocks]
        if of_adapter != of_model:
            ours, theirs = _described(of_adapter), _described(of_model)
            if base := known_base(adapter):
                ours = f"{base}: {ours}"
            raise ValueError(_wrong_model(model, f"it has {theirs}, while this adapter was made for {ours}"))
        return tuple(
            Block(block.key, tuple(_linears(f"{block.path}.{attention}") for attention in ("attn1", "attn2")))
            for block in blocks
        )

    def attach(
        self, model: ModelPatcher, applied: AppliedScene, tokens: Mapping[BlockKey, Sequence[PersonTokens]]
    ) -> None:
        for key, of_people in tokens.items():
            replace_attention(model, key, IdentityAttention(applied, key, tuple(of_people)))
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, step_wrapper(applied))
        model.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, fork_patches)


def find_transformer_blocks(model: ModelPatcher) -> tuple[TransformerBlock, ...]:
    """Return all transformer blocks of a UNet with cross-attention in diffusers' processor order: down, up, mid.

    Raises:
        ValueError: the model is not such a UNet (FLUX, SD3, ...).
    """
    if not UNet().is_of(model):
        raise ValueError(_wrong_model(model, "it is not a UNet with cross-attention"))
    layers = tuple(_cross_attentions(model.model.diffusion_model))
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
    for part, name in (("input_blocks", "input"), ("output_blocks", "output"), ("middle_block", MIDDLE)):
        for path, module in getattr(unet, part).named_modules():
            if getattr(module, "attn2", None) is not None:
                number, *_, index = path.split(".")  # 4.1.transformer_blocks.0; in the middle 1.transformer_blocks.0
                yield (name, 0 if name == MIDDLE else int(number)), int(index), f"{part}.{path}", module.attn2


def _linears(attention: str) -> dict[str, Weight]:
    return {name: Weight(f"{attention}.{'to_out.0' if name == 'to_out' else name}.weight") for name in LINEARS}


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
