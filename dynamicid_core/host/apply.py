"""Applying a scene to a model: identities checked and projected, the LoRA merged, every cross-attention patched."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.weight_adapter import LoRAAdapter

from ..identity.identity import Identity
from ..saa.adapter import Adapter, AttentionWeights, LowRank
from ..saa.scene import Placement
from .blocks import TransformerBlock, paired_layers
from .coexistence import fork_patches, patch_block
from .identity_attention import IdentityAttention, LayerTokens
from .sampling_run import AppliedScene, AttentionSettings, run_wrapper, step_wrapper

# The key of our wrappers, callbacks and attachment on a ModelPatcher.
KEY = "dynamicid"


def apply_scene(
    model: ModelPatcher,
    adapter: Adapter,
    scene: Sequence[Placement],
    settings: AttentionSettings,
    lora_strength: float = 1.0,
) -> ModelPatcher:
    """Patch a clone of an SD1.5 model so that it draws the people of a scene; the given model is not changed.

    Args:
        scene: people who are present (see `scene.adjusted`); with nobody, only the LoRA is applied.
        lora_strength: factor on the adapter's LoRA, which is merged into the weights; 0 leaves them alone.

    Raises:
        ValueError: not a model that the adapter fits, DynamicID is applied to it already, or an identity was made by
            another face encoder.
    """
    if model.get_attachment(KEY) is not None:
        raise ValueError(
            "DynamicID is applied to this model already. Connect all people to one Apply DynamicID node: only people "
            "who share one node keep out of each other's regions."
        )
    layers = paired_layers(model, adapter)
    for person in scene:
        _check_identity(person.identity, adapter)
    drawn = tuple(scene) if any(person.weight for person in scene) else ()
    if not lora_strength and not drawn:
        return model

    patched = model.clone()
    blocks = tuple(block for block, _, _ in layers)
    applied = AppliedScene(drawn, settings, blocks, model.get_model_object("model_sampling"))
    patched.set_attachments(KEY, applied)
    if lora_strength:
        _merge_lora(patched, adapter, layers, lora_strength)
    if drawn:
        for block, _, cross in layers:
            patch_block(patched, IdentityAttention(applied, block, _project(scene, cross)))
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, run_wrapper(applied))
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, step_wrapper(applied))
        patched.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, fork_patches)
    return patched


def _check_identity(identity: Identity, adapter: Adapter) -> None:
    if identity.width != adapter.token_dim:
        raise ValueError(
            f"The identity {identity.name!r} has tokens of width {identity.width}, this adapter needs "
            f"{adapter.token_dim}. Encode the person again with this Load DynamicID."
        )
    if identity.encoder and adapter.encoder_fingerprint and identity.encoder != adapter.encoder_fingerprint:
        raise ValueError(
            f"The identity {identity.name!r} was made by another face encoder ({identity.encoder[:12]}) than this "
            f"adapter's ({adapter.encoder_fingerprint[:12]}). Encode the person again with this Load DynamicID."
        )


def _merge_lora(
    model: ModelPatcher,
    adapter: Adapter,
    layers: Iterable[tuple[TransformerBlock, AttentionWeights, AttentionWeights]],
    strength: float,
) -> None:
    patches = {}
    for block, own, cross in layers:
        for attention, weights in (("attn1", own), ("attn2", cross)):
            for linear, pair in (
                ("to_q", weights.to_q),
                ("to_k", weights.to_k),
                ("to_v", weights.to_v),
                ("to_out.0", weights.to_out),
            ):
                patches[f"{block.path}.{attention}.{linear}.weight"] = _host_lora(pair)
    before = model.patches_uuid
    missed = patches.keys() - set(model.add_patches(patches, strength))
    if missed:
        raise ValueError(f"This model has no weights named {sorted(missed)[:3]}, which the adapter's LoRA changes.")
    # The host merges weights again whenever this id changes. Derived from what is merged, it stays the same for the
    # next clone with the same adapter, so that moving a box or a weight merges nothing.
    model.patches_uuid = uuid.uuid5(before, f"{KEY}:{adapter.fingerprint}:{strength!r}")


def _host_lora(pair: LowRank) -> LoRAAdapter:
    # alpha None: a number would be divided by the rank.
    return LoRAAdapter(set(), (pair.up, pair.down, None, None, None, None))


def _project(scene: Sequence[Placement], layer: AttentionWeights) -> LayerTokens:
    """k_id and v_id of everybody for one layer; they don't change during sampling."""
    if layer.to_k_ip is None or layer.to_v_ip is None:
        raise ValueError("A cross-attention layer of the adapter has no to_k_ip and to_v_ip weights.")
    to_k, to_v = layer.to_k_ip.float(), layer.to_v_ip.float()
    keys, values, gate_keys = [], [], []
    for person in scene:
        tokens = torch.stack([person.identity.tokens, person.identity.negative_tokens])
        key = tokens @ to_k.T
        keys.append(key * person.identity.token_shares[:, None])
        values.append(tokens @ to_v.T * person.weight)
        gate_keys.append(key.sum(dim=1))
    return LayerTokens(tuple(keys), tuple(values), torch.stack(gate_keys, dim=1))
