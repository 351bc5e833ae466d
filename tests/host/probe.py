"""Runs the host's own sampler over a model and looks at what happens at each call of the UNet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from . import shapes


@dataclass
class Calls:
    """What the calls of the UNet in one sampling run were given and gave back."""

    options: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)


def lora_strengths(model: Any) -> tuple[set[float], set[float]]:
    """At what strengths weights are changed: of a UNet's other blocks, of its middle block."""
    strengths: tuple[set[float], set[float]] = (set(), set())
    for path, patches in model.patches.items():
        strengths["middle_block" in path].update(patch[0] for patch in patches)
    return strengths


def conditioning(text: torch.Tensor) -> list[Any]:
    """The host's CONDITIONING of a text encoding (batch, tokens, width)."""
    return [[text, {"pooled_output": text.mean(dim=1)[:, : shapes.POOLED]}]]  # which SDXL alone reads


def sample(
    model: Any,
    positive: torch.Tensor | None,
    negative: torch.Tensor | None,
    *,
    latent: torch.Tensor | None = None,
    size: tuple[int, int] = (16, 16),
    batch: int = 1,
    steps: int = 3,
    cfg: float = 7.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    seed: int = 1,
    denoise: float = 1.0,
    guider: Any = None,
) -> torch.Tensor:
    """Sample with the host's KSampler machinery: (batch, 4, h, w)."""
    if latent is None:
        latent = torch.zeros(batch, 4, *size)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.KSampler(
        model, steps=steps, device=model.load_device, sampler=sampler, scheduler=scheduler, denoise=denoise
    ).sigmas
    if guider is None:
        assert positive is not None and negative is not None
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(conditioning(positive), conditioning(negative))
        guider.set_cfg(cfg)
    return guider.sample(noise, latent, comfy.samplers.sampler_object(sampler), sigmas, seed=seed, disable_pbar=True)


def watched(model: Any, change: Callable[..., tuple[Any, ...]] | None = None) -> tuple[Any, Calls]:
    """A clone of the model that notes every call of the UNet.

    Args:
        change: given (x, timesteps, context, options), returns other (x, timesteps, context) for the UNet.
    """
    calls = Calls()

    def note(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any, **kw: Any) -> Any:
        if change is not None:
            x, timesteps, context = change(x, timesteps, context, options)
        out = executor(x, timesteps, context, y, control, options, **kw)
        calls.options.append(options)
        calls.outputs.append(out)
        return out

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watched", note)
    return clone, calls
