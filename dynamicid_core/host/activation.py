"""Activation maps: how strongly each person is drawn at each place, read from one call of a patched UNet."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .apply import KEY
from .blocks import BlockKey, Place
from .sampling_run import RECORDER, AppliedScene


class Recorder:
    """Collector of one UNet call's activations: (p, y, x) by block, mean over the batch, on the CPU."""

    def __init__(self, people: int) -> None:
        self._people = people
        self.maps: dict[BlockKey, Tensor] = {}

    def record(self, key: BlockKey, active: tuple[int, ...], maps: Tensor) -> None:
        """Keep the first activations of a block: nodes that call the UNet more often run it on changed inputs later.

        Args:
            maps: (b, active people, y, x).
        """
        if key not in self.maps:
            self.maps[key] = torch.zeros(self._people, *maps.shape[-2:])
            self.maps[key][list(active)] = maps.mean(dim=0).float().cpu()


def applied_scene(model: ModelPatcher) -> AppliedScene:
    """Return what a patched model carries.

    Raises:
        ValueError: the model is not patched, or only with the LoRA.
    """
    applied: AppliedScene | None = model.get_attachment(KEY)
    if applied is None or not applied.scene:
        raise ValueError(
            "Activation Map needs a model that draws people, but this one has no DynamicID applied to it, or only its "
            "LoRA. Connect the model of an Apply DynamicID whose weight is above 0."
        )
    return applied


def activation_maps(
    model: ModelPatcher, positive: list[Any], latent: dict[str, Any], at: float, layer: Place | None = None
) -> Tensor:
    """Noise a latent to one point of the schedule, call the UNet once and return its activations: (p, h, w) in [0, 1].

    Args:
        model: patched with `apply_scene`; not changed.
        positive: the host's conditioning.
        latent: the host's latent, {"samples": (batch, 4, h, w)}.
        at: 0 (all noise) to 1 (none left).
        layer: a place of the UNet, such as ("output", 5), whose blocks are averaged; None averages all.

    Raises:
        ValueError: the model is not patched, has no such layer, or `at` is outside 0..1.
    """
    applied = applied_scene(model)
    if not 0 <= at <= 1:
        raise ValueError(f"`at` must be from 0 (all noise) to 1 (finished picture), got {at:g}.")
    places = list(dict.fromkeys(key[:2] for key in applied.keys))
    if layer is not None and layer not in places:
        names = ", ".join(f"{name} {number}" for name, number in places)
        raise ValueError(f"This model has no cross-attention layer {layer[0]} {layer[1]}. It has: {names}.")

    recorder = Recorder(len(applied.scene))
    probe = model.clone()
    probe.model_options["transformer_options"][RECORDER] = recorder
    samples = comfy.sample.fix_empty_latent_channels(probe, latent["samples"])
    schedule = probe.get_model_object("model_sampling")
    sigma = min(max(float(schedule.percent_to_sigma(at)), float(schedule.sigma_min)), float(schedule.sigma_max))

    guider = comfy.samplers.CFGGuider(probe)
    guider.inner_set_conds({"positive": positive})
    noise = comfy.sample.prepare_noise(samples, 0)
    guider.sample(noise, samples, comfy.samplers.KSAMPLER(_call_once), torch.tensor([sigma, 0.0]))

    size = samples.shape[-2:]
    chosen = [maps for key, maps in recorder.maps.items() if layer in (None, key[:2])] or [*recorder.maps.values()]
    if not chosen:
        return torch.zeros(len(applied.scene), *size)
    scaled = [F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0] for maps in chosen]
    return torch.stack(scaled).mean(dim=0).clamp(0, 1)


def _call_once(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], **_: Any) -> Tensor:
    model(x, sigmas[:1].expand(x.shape[0]), **extra_args)
    return x
