"""Applying a scene to a model: identities checked and projected, the LoRA merged, people let into its attention."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..identity.identity import Identity, check_encoding
from ..saa.adapter import Adapter
from ..saa.scene import Placement
from .architectures import architecture_for
from .architectures.architecture import Block
from .blocks import KEY as KEY
from .blocks import BlockKey
from .identity_attention import PersonTokens
from .lora import WHOLE_LORA, LoraStrength, merge_lora
from .sampling_run import AppliedScene, AttentionSettings, run_wrapper

logger = logging.getLogger("DynamicID")


def apply_scene(
    model: ModelPatcher,
    adapter: Adapter,
    scene: Sequence[Placement],
    settings: AttentionSettings,
    lora: LoraStrength = WHOLE_LORA,
    warn: Callable[[str], None] = logger.warning,
) -> ModelPatcher:
    """Patch a clone of a model so that it draws the people of a scene; the given model is not changed.

    Args:
        scene: people who are present (see `scene.adjusted`); with nobody, only the LoRA is applied.
        lora: strength of the adapter's LoRA, which is merged into the weights.
        warn: told what the user should know of this node, at once or while sampling.

    Raises:
        ValueError: not a model that the adapter fits or that this host lets people into, DynamicID is applied to it
            already, or an identity was made by another face encoder.
    """
    if model.get_attachment(KEY) is not None:
        raise ValueError(
            "DynamicID is applied to this model already. Connect all people to one Apply DynamicID node: only people "
            "who share one node keep out of each other's regions."
        )
    architecture = architecture_for(model, adapter)
    blocks = architecture.match(model, adapter)
    for person in scene:
        _check_identity(person.identity, adapter)
    drawn = tuple(scene) if any(person.weight for person in scene) else ()
    if not lora.overall and not drawn:
        return model

    patched = model.clone()
    layer_of = _identity_layers(blocks, adapter)
    keys = tuple(layer_of)
    applied = AppliedScene(drawn, settings, keys, model.get_model_object("model_sampling"), warn)
    patched.set_attachments(KEY, applied)
    if lora.overall:
        merge_lora(patched, adapter, blocks, lora, warn)
    if drawn:
        architecture.attach(patched, applied, {key: _project(drawn, adapter, n) for key, n in layer_of.items()})
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, run_wrapper(applied))
    return patched


def _identity_layers(blocks: Sequence[Block], adapter: Adapter) -> dict[BlockKey, int]:
    """Return the adapter's layer by which people enter each block that carries them, in order."""
    carried = set(adapter.identity_layers)
    last = [sum(len(block.layers) for block in blocks[: i + 1]) - 1 for i in range(len(blocks))]
    return {block.key: layer for block, layer in zip(blocks, last, strict=True) if layer in carried}


def _check_identity(identity: Identity, adapter: Adapter) -> None:
    if identity.dim != adapter.token_dim:
        raise ValueError(
            f"The identity {identity.name!r} has tokens of dim {identity.dim}, this adapter needs "
            f"{adapter.token_dim}. Encode the person again with this Load DynamicID."
        )
    check_encoding(identity, adapter.encoding, "adapter")  # before the fingerprints, which tell a user less
    if identity.encoder and adapter.encoder_fingerprint and identity.encoder != adapter.encoder_fingerprint:
        raise ValueError(
            f"The identity {identity.name!r} was made by another face encoder ({identity.encoder[:12]}) than this "
            f"adapter's ({adapter.encoder_fingerprint[:12]}). Encode the person again with this Load DynamicID."
        )


def _project(scene: Sequence[Placement], adapter: Adapter, layer: int) -> tuple[PersonTokens, ...]:
    """Return everybody's k_id and v_id for one layer, by its number; they don't change during sampling.

    Of a person who moves, each token set is projected once, however many frames it is drawn in.
    """
    to_k, to_v = (adapter.weights[f"{layer}.{name}.weight"].float() for name in ("to_k_ip", "to_v_ip"))
    projected = []
    for person in scene:
        sets = [person.identity.tokens, person.identity.negative_tokens]
        curve = person.identity.curve
        tokens = torch.stack(sets if curve is None else [*sets, *curve.tokens[1:]])  # (sets, t, token dim)
        keys = tokens @ to_k.T  # (sets, t, c)
        shared = keys * person.identity.token_shares[:, None]
        projected.append(PersonTokens(shared, tokens @ to_v.T * person.weight, keys.sum(dim=1)))
    return tuple(projected)
