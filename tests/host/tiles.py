"""Stand-ins for packs that hand the UNet more than the host's chunks, row by row, and tell nobody."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor


def tiled(model: Any, tile_batch: int, width: int = 8, stride: int = 4) -> Any:
    """A tiled-diffusion pack's UNet wrapper: overlapping tiles of the latent, several in one batch, averaged.

    It cuts all chunks at once and stacks what it cut: negative, positive, negative, positive ...

    Args:
        tile_batch: how many tiles one call gets.
        width, stride: of the tiles, which are as high as the latent.
    """

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        x, timestep, given = arguments["input"], arguments["timestep"], arguments["c"]
        total, times = torch.zeros_like(x), torch.zeros_like(x)
        starts = list(range(0, x.shape[-1] - width + 1, stride))
        for first in range(0, len(starts), tile_batch):
            places = [(..., slice(start, start + width)) for start in starts[first : first + tile_batch]]
            tiles = torch.cat([x[place] for place in places])
            out = apply_model(tiles, repeat_to_batch_size(timestep, len(tiles)), **_fitted(given, len(tiles)))
            for place, tile in zip(places, out.chunk(len(places)), strict=True):
                total[place] += tile
                times[place] += 1
        return total / times

    return wrapped(model, run)


def repeating(model: Any, times: int) -> Any:
    """A UNet wrapper that runs the whole list of chunks several times in one batch and takes the mean."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        x = arguments["input"].repeat(times, 1, 1, 1)
        timestep = repeat_to_batch_size(arguments["timestep"], len(x))
        return torch.stack(apply_model(x, timestep, **_fitted(arguments["c"], len(x))).chunk(times)).mean(dim=0)

    return wrapped(model, run)


def permuted(model: Any, order: Sequence[int]) -> Any:
    """A UNet wrapper that hands the rows over in another order and leaves the host's list as it is."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        index = torch.tensor(order)
        given = {n: x[index] if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
        return apply_model(arguments["input"][index], arguments["timestep"][index], **given)[index.argsort()]

    return wrapped(model, run)


def halved(model: Any) -> Any:
    """A UNet wrapper that runs the halves of a batch one after the other and leaves the host's list as it is."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        halves = []
        for half in range(2):
            given = {n: x.chunk(2)[half] if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
            x, timestep = (arguments[name].chunk(2)[half] for name in ("input", "timestep"))
            halves.append(apply_model(x, timestep, **given))
        return torch.cat(halves)

    return wrapped(model, run)


def wrapped(model: Any, run: Callable[[Callable, dict[str, Any]], Tensor]) -> Any:
    """A clone of the model with this UNet wrapper around the one that it has."""
    patched = model.clone()
    inner = patched.model_options.get("model_function_wrapper")

    def outer(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        if inner is None:
            return run(apply_model, arguments)

        def call(x: Tensor, timestep: Tensor, **given: Any) -> Tensor:
            return inner(apply_model, {**arguments, "input": x, "timestep": timestep, "c": given})

        return run(call, arguments)

    patched.set_model_unet_function_wrapper(outer)
    return patched


def _fitted(given: dict[str, Any], rows: int) -> dict[str, Any]:
    return {name: repeat_to_batch_size(x, rows) if torch.is_tensor(x) else x for name, x in given.items()}
