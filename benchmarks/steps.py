"""One step of sampling: a call of the UNet with both halves of guidance, as the host's guider makes it."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from .subjects import latent_size, random_text

STEPS, MEASURED_STEP = 20, 10  # of a plain schedule, well after the layout phase
GUIDANCE = 7.0

T = TypeVar("T")
Step = Callable[[], Tensor]


def with_open_runs(models: Sequence[Any], picture: Sequence[int], use: Callable[[list[Step]], T]) -> T:
    """Open a sampling run of every model, all at once, and hand `use` one function per model that takes a step.

    So models can take turns step by step, each in a run that the host's guider and sampler have set up, and no run
    has to be set up again in between. The models must share their weights.
    """
    positive, negative = random_text()
    latent = torch.zeros(1, 4, *latent_size(picture))
    noise = torch.randn(latent.shape)
    result: list[T] = []

    def open_next(steps: list[Step]) -> None:
        if len(steps) == len(models):
            result.append(use(steps))
            return

        def sampler(denoise: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], **_: Any) -> Tensor:
            sigma = sigmas[MEASURED_STEP : MEASURED_STEP + 1]
            scaled = x * (sigma / sigmas[0])
            open_next([*steps, lambda: denoise(scaled, sigma, **extra_args)])
            return x

        model = models[len(steps)]
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds([[positive, {}]], [[negative, {}]])
        guider.set_cfg(GUIDANCE)
        guider.sample(noise, latent, comfy.samplers.KSAMPLER(sampler), _schedule(model), disable_pbar=True, seed=1)

    open_next([])
    return result[0]


def step_on_meta(model: Any, picture: Sequence[int]) -> Step:
    """A function that takes a step of a model on the meta device, where nothing is computed and everything counted.

    The guider needs numbers, so this sets up for the UNet what the guider would.
    """
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, {}, options)
    sigmas = _schedule(model)
    options["transformer_options"] |= {
        "cond_or_uncond": [1, 0],
        "sigmas": sigmas[MEASURED_STEP : MEASURED_STEP + 1],
        "sample_sigmas": sigmas,
        "optimized_attention_override": _attention_in_one,
    }
    x = torch.empty(2, 4, *latent_size(picture), device="meta")
    timesteps = torch.empty(2, device="meta")
    settings = model.model.model_config.unet_config
    text = torch.cat(random_text(settings["context_dim"])).to("meta")
    sizes = torch.empty(2, settings["adm_in_channels"], device="meta") if settings["adm_in_channels"] else None

    def run(guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *_: Any) -> Step:
        unet_options = extra_args["model_options"]["transformer_options"]
        return lambda: model.model.diffusion_model(x, timesteps, text, sizes, transformer_options=dict(unet_options))

    wrappers = get_all_wrappers(WrappersMP.SAMPLER_SAMPLE, options, is_model_options=True)
    guider = SimpleNamespace(inner_model=model.model, conds={})
    return WrapperExecutor.new_executor(run, wrappers).execute(guider, sigmas, {"model_options": options}, None, x)


def _schedule(model: Any) -> Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def _attention_in_one(_: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
    """Text and self-attention without the host's splitting by free memory, which the meta device has none of."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
