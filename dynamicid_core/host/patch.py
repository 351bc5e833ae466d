"""The model patch: SAA's identity attention at every cross-attention, its LoRA as the host's own weight patches."""

from __future__ import annotations

import copy
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.weight_adapter import LoRAAdapter
from einops import rearrange
from torch import Tensor

from ..identity.identity import Identity
from ..saa.adapter import Adapter, AttentionWeights, LowRank
from ..saa.attention import (
    LayoutTerms,
    activation_gate,
    activation_scores,
    added,
    identity_attention,
    layout_gate,
    layout_terms,
    person_activation,
    split_heads,
)
from ..saa.scene import Placement
from .blocks import Site, paired_layers
from .sampling_run import (
    NO_SIGMA,
    RECORDER,
    RUN,
    STEP,
    Run,
    Settings,
    Step,
    batch_roles,
    begin_run,
    begin_step,
    grid_terms,
    rows_of,
    to_device,
)

logger = logging.getLogger("DynamicID")

# The key of our wrappers, callbacks and attachment on a ModelPatcher.
KEY = "dynamicid"

_ALWAYS = {"sigma_start": NO_SIGMA, "sigma_end": 0.0}


@dataclass(frozen=True, eq=False)
class AppliedScene:
    """What a patched model carries, the same object in all its layers."""

    scene: tuple[Placement, ...]
    settings: Settings
    sites: tuple[Site, ...]
    model_sampling: Any

    def begin_run(self) -> Run:
        """A run as far as it can be known where no sampler tells of one: no layout phase, chunk 1 is negative."""
        return begin_run(self.scene, self.settings, self.model_sampling)


@dataclass(frozen=True, eq=False)
class LayerTokens:
    """All people's identity tokens projected for one layer: CPU, float32; axis 0 is (POSITIVE, NEGATIVE).

    Attributes:
        keys: one (2, tokens, channels) per person, scaled by the shares of mixed identities.
        values: one (2, tokens, channels) per person, scaled by the person's weight.
        gate_keys: (2, people, channels) sum of each person's keys, unscaled.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    gate_keys: Tensor


class IdentityAttention:
    """The patch at one cross-attention: what is there already, plus the people, plus what other packs add later.

    Other packs that share a place find this object and call `add`; a callback is then run with
    `(out, q, k, v, extra_options, **kwargs)` while sigma_start >= sigma >= sigma_end, and its result is added.
    Apart from these two lists, which every clone of the model gets copies of, nothing ever changes in it; tensors
    go to the GPU once per sampling run and leave with it.
    """

    def __init__(self, applied: AppliedScene, site: Site, tokens: LayerTokens, base: Any = None) -> None:
        self.applied = applied
        self.site = site
        self.tokens = tokens
        self.base = base
        self.callback: list[Callable] = []
        self.kwargs: list[dict[str, Any]] = []

    def add(self, callback: Callable, **kwargs: Any) -> None:
        """Add another pack's attention; see the class."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Attention of the queries to the text and to the people: (rows, queries, channels) in q's dtype."""
        if self.base is not None:
            out = self.base(q, k, v, extra_options)
        else:
            out = optimized_attention(
                q,
                k,
                v,
                extra_options["n_heads"],
                attn_precision=extra_options.get("attn_precision"),
                transformer_options=extra_options,
            )
        people = self._people(q, extra_options)
        if people is not None:
            out = added(out, *people)
        if self.callback:
            sigma = self._step(extra_options).sigma
            for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
                if kwargs.get("sigma_start", sigma) >= sigma >= kwargs.get("sigma_end", sigma):
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out.to(q.dtype)

    def as_callback(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict, **_: Any) -> Tensor | int:
        """What the people add, for an attention object of another pack that was there first; 0: nobody is active."""
        people = self._people(q, extra_options)
        return 0 if people is None else added(None, *people)

    def _people(self, q: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, Tensor | None] | None:
        """Attention to the active people (rows, queries, channels) and its gate (rows, queries); None: nobody is."""
        step = self._step(extra_options)
        step.run.reached.add(self.site.block)
        if not step.active:
            return None
        height, width = self._grid(q, extra_options)
        keys, values, mean_key = self._rows(q, step, extra_options)
        log_share, layout = self._terms(q, step, height, width)
        settings = self.applied.settings

        gate = None
        if settings.gate:
            gate = activation_gate(activation_scores(q, mean_key), settings.gate_threshold)
        if RECORDER in extra_options:
            counts = tuple(self.tokens.keys[i].shape[1] for i in step.active)
            shown = torch.ones(q.shape[:2], device=q.device) if gate is None else gate
            activation = person_activation(q, keys, log_share, shown, counts)
            maps = rearrange(activation, "rows people (h w) -> rows people h w", h=height)
            extra_options[RECORDER].record(self.site, step.active, maps)
        if gate is not None and step.in_layout:
            gate = layout_gate(gate, layout)
        return identity_attention(q, keys, values, log_share), gate

    def to(self, *args: Any, **kwargs: Any) -> IdentityAttention:
        """The host moves patches between devices. Ours moves with each run by itself; what is underneath moves here."""
        base = self.base.to(*args, **kwargs) if hasattr(self.base, "to") else self.base
        if base is self.base:
            return self
        moved = fork(self)
        moved.base = base
        return moved

    def models(self) -> list[ModelPatcher]:
        """Models that the host must load for this patch: those of the attention underneath."""
        return self.base.models() if hasattr(self.base, "models") else []

    def cleanup(self) -> None:
        """The host calls this after a run, for the attention underneath."""
        if hasattr(self.base, "cleanup"):
            self.base.cleanup()

    def __deepcopy__(self, memo: dict) -> IdentityAttention:
        return fork(self)

    def _step(self, options: dict[str, Any]) -> Step:
        """The step as the wrapper has read it; read here only where something calls this layer in a way of its own."""
        step: Step | None = options.get(STEP)
        if step is not None and step.run.scene is self.applied.scene:
            return step
        run: Run | None = options.get(RUN)
        if run is None or run.scene is not self.applied.scene:
            run = self.applied.begin_run()
        return begin_step(run, options.get("sigmas"))

    def _grid(self, q: Tensor, options: dict[str, Any]) -> tuple[int, int]:
        height, width = options["activations_shape"][-2:]
        if height * width != q.shape[1]:
            raise ValueError(
                f"DynamicID needs the real grid of each layer to place people, but layer {self.site.block} has "
                f"{q.shape[1]} queries on a grid of {height} x {width}. Another node changes the queries of "
                "cross-attention; remove it or place it on another model."
            )
        return height, width

    def _rows(self, q: Tensor, step: Step, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values by head, and summed keys, of the active people for each row of the batch, as q's kind."""
        roles, per_chunk = batch_roles(step, q.shape[0], options)
        key = (self.site.block, step.active, roles, per_chunk, q.dtype, q.device)
        memory = step.run.memory
        if key not in memory:
            heads = options["n_heads"]
            by_role = (
                split_heads(torch.cat([self.tokens.keys[i] for i in step.active], dim=1), heads),
                split_heads(torch.cat([self.tokens.values[i] for i in step.active], dim=1), heads),
                self.tokens.gate_keys[:, list(step.active)].mean(dim=1),
            )
            memory[key] = tuple(rows_of(to_device(tensor, q), roles, per_chunk) for tensor in by_role)
        return memory[key]

    def _terms(self, q: Tensor, step: Step, height: int, width: int) -> tuple[Tensor | None, LayoutTerms]:
        """The regions' shares per token, in q's dtype, and the layout phase in float32, both on q's device.

        Rasterized once per run and grid: layers of one size share them.
        """
        counts = tuple(self.tokens.keys[i].shape[1] for i in step.active)
        key = ("terms", step.active, height, width, q.dtype, q.device)
        memory = step.run.memory
        if key not in memory:
            log_share, inside = grid_terms(step, height, width)
            if log_share is not None:
                log_share = to_device(log_share.repeat_interleave(torch.tensor(counts), dim=1), q)
            memory[key] = (log_share, layout_terms(inside.to(q.device), self.applied.settings.layout_scale))
        return memory[key]


def apply_scene(
    model: ModelPatcher,
    adapter: Adapter,
    scene: Sequence[Placement],
    settings: Settings,
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
    sites = tuple(site for site, _, _ in layers)
    applied = AppliedScene(drawn, settings, sites, model.get_model_object("model_sampling"))
    patched.set_attachments(KEY, applied)
    if lora_strength:
        _merge_lora(patched, adapter, layers, lora_strength)
    if drawn:
        for site, _, cross in layers:
            _patch_site(patched, IdentityAttention(applied, site, _project(scene, cross)))
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, _run_wrapper(applied))
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, _step_wrapper(applied))
        patched.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _fork_patches)
    return patched


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
    layers: Iterable[tuple[Site, AttentionWeights, AttentionWeights]],
    strength: float,
) -> None:
    patches = {}
    for site, own, cross in layers:
        for attention, weights in (("attn1", own), ("attn2", cross)):
            for linear, pair in (
                ("to_q", weights.to_q),
                ("to_k", weights.to_k),
                ("to_v", weights.to_v),
                ("to_out.0", weights.to_out),
            ):
                patches[f"{site.path}.{attention}.{linear}.weight"] = _host_lora(pair)
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


def _patch_site(model: ModelPatcher, patch: IdentityAttention) -> None:
    """Put the patch in place beside whatever another pack has put there before."""
    block, number = patch.site.block
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


def _fork_patches(_: ModelPatcher, clone: ModelPatcher) -> None:
    """Give a clone of a patched model its own attention objects: packs add to the ones they find."""
    patches = _attn2_patches(clone.model_options)
    for key, patch in patches.items():
        if hasattr(patch, "add"):
            patches[key] = fork(patch)


def _run_wrapper(applied: AppliedScene) -> Callable:
    def begin(
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        options = extra_args["model_options"]["transformer_options"]
        _tell_copies_apart(guider)
        run = begin_run(
            applied.scene,
            applied.settings,
            guider.inner_model.model_sampling,
            options.get("sample_sigmas", sigmas),
            guider.conds,
            latent_image,
        )
        model_options = {**extra_args["model_options"], "transformer_options": {**options, RUN: run}}
        extra_args = {**extra_args, "model_options": model_options}
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)

    return begin


def _tell_copies_apart(guider: Any) -> None:
    """The host copies an area of one side to the others, its id too; each copy gets an id of its own.

    The conditionings that a guider holds while it samples are copies for this run.
    """
    originals = getattr(guider, "original_conds", {})
    for name, group in guider.conds.items():
        own = {cond.get("uuid") for cond in originals.get(name) or ()}
        for cond in group or ():
            if cond.get("uuid") not in own:
                cond["uuid"] = uuid.uuid4()


def _step_wrapper(applied: AppliedScene) -> Callable:
    def begin(
        executor: Any,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        options = transformer_options or {}
        run: Run = options.get(RUN) or applied.begin_run()
        options = {**options, STEP: begin_step(run, options.get("sigmas"))}
        out = executor(x, timesteps, context, y, control, options, **kwargs)
        if "checked" not in run.memory:
            run.memory["checked"] = True
            _warn_if_unreached(applied, run)
        return out

    return begin


def _warn_if_unreached(applied: AppliedScene, run: Run) -> None:
    """After a run's first call of the UNet: another pack may have taken our place instead of wrapping us."""
    lost = [site.block for site in applied.sites if site.block not in run.reached]
    if lost:
        names = ", ".join(f"{block} {number}" for block, number in lost)
        logger.warning(
            "Another node replaced DynamicID's attention in %d of %d layers (%s): people will be missing or weak. "
            "Place Apply DynamicID after that node.",
            len(lost),
            len(applied.sites),
            names,
        )
