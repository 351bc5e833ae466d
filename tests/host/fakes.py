"""Stand-ins for other packs: what they do to a model, to the letter of their protocols, and nothing else."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from . import reference

Key = tuple[Any, ...]
Callback = Callable[..., Any]

ALWAYS = {"sigma_start": 999999999.9, "sigma_end": 0.0}


def attn2(model: Any) -> dict[Key, Any]:
    """The attn2 replacements of a model, by key."""
    return model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})


def plain(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """Text attention as the packs call it: without the host's transformer_options."""
    return optimized_attention(q, k, v, extra_options["n_heads"])


def callback(out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:
    """Another pack's part: depends on what was computed before it and on its own keywords."""
    return torch.tanh(out) * kwargs.get("strength", 0.5)


def second(out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:
    """A second pack's part, which does not commute with the first's."""
    return 0.3 * out.square().clamp(max=4) + 0.1 * q


def held(model: Any) -> dict[Any, tuple[Any, ...]]:
    """What the attention objects of a model hold, the objects themselves included."""
    return {
        key: (id(patch), list(patch.callback), [dict(kwargs) for kwargs in patch.kwargs], list(map(id, patch.kwargs)))
        for key, patch in attn2(model).items()
        if hasattr(patch, "add")
    }


def in_window(extra_options: dict[str, Any], kwargs: dict[str, Any]) -> bool:
    """Whether a callback is to run at this noise level; without one, only those that always run."""
    sigma = float(extra_options["sigmas"][0]) if "sigmas" in extra_options else ALWAYS["sigma_start"]
    return kwargs["sigma_start"] >= sigma >= kwargs["sigma_end"]


class Adder:
    """The object that IP-Adapter, InstantID and PuLID share a place by: text attention plus everybody's callback."""

    def __init__(self, callback: Callback, **kwargs: Any) -> None:
        self.callback = [callback]
        self.kwargs = [kwargs]
        self.multigpu_kwargs: dict[Any, list[dict[str, Any]]] = {}

    def add(self, callback: Callback, **kwargs: Any) -> None:
        self.callback += [callback]
        self.kwargs += [kwargs]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = plain(q, k, v, extra_options)
        on_device = self.multigpu_kwargs.get(q.device, self.kwargs)
        for callback, kwargs, moved in zip(self.callback, self.kwargs, on_device, strict=True):
            if in_window(extra_options, kwargs):
                out = out + callback(out, q, k, v, extra_options, **moved)
        return out.to(q.dtype)

    def to(self, device: Any, *_: Any, **__: Any) -> "Adder":
        """Its copies of the weights for a device, made from the keyword `ipadapter` of those who have one."""
        if isinstance(device, torch.device):
            self.multigpu_kwargs[device] = [
                {name: copy.copy(value) if name == "ipadapter" else value for name, value in kwargs.items()}
                for kwargs in self.kwargs
            ]
        return self


def ip_adapter(model: Any, callback: Callback, keys: Sequence[Key], **kwargs: Any) -> Any:
    """A node of such a pack: clones the model, adds to the object it finds at a key, else registers its own."""
    patched = model.clone()
    arguments = {**ALWAYS, "ipadapter": object(), **kwargs}
    for key in keys:
        options = patched.model_options["transformer_options"].copy()
        options["patches_replace"] = options.get("patches_replace", {}).copy()
        options["patches_replace"]["attn2"] = present = options["patches_replace"].get("attn2", {}).copy()
        if key in present:
            present[key].add(callback, **arguments)
        else:
            present[key] = Adder(callback, **arguments)
            patched.model_options["transformer_options"] = options
    return patched


class Wrapper:
    """A replacement without `add`, which asks whatever was there before and changes its answer."""

    def __init__(self, previous: Callable, callback: Callback, **kwargs: Any) -> None:
        self.previous, self.change, self.settings = previous, callback, kwargs

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = self.previous(q, k, v, extra_options)
        return out + self.change(out, q, k, v, extra_options, **self.settings)

    def answer(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        return self(q, k, v, extra_options)


class ListHolder:
    """Keeps what was there before in a list, as packs do that hold several patches."""

    def __init__(self, previous: Callable, callback: Callback) -> None:
        self.chain = [previous]
        self.change = callback

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = self.chain[0](q, k, v, extra_options)
        return out + self.change(out, q, k, v, extra_options)


class DictHolder:
    """Keeps what was there before in a dict of settings."""

    def __init__(self, previous: Callable, callback: Callback) -> None:
        self.settings = {"previous": previous, "change": callback}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = self.settings["previous"](q, k, v, extra_options)
        return out + self.settings["change"](out, q, k, v, extra_options)


def _asking(previous: Callable, callback: Callback, q: Tensor, k: Tensor, v: Tensor, extra_options: Any) -> Tensor:
    out = previous(q, k, v, extra_options)
    return out + callback(out, q, k, v, extra_options)


def _closure(previous: Callable, callback: Callback) -> Callable:
    def attend(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        return _asking(previous, callback, q, k, v, extra_options)

    return attend


def _default_argument(previous: Callable, callback: Callback) -> Callable:
    def attend(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], prior: Callable = previous) -> Tensor:
        return _asking(prior, callback, q, k, v, extra_options)

    return attend


def _nothing(*_: Any, **__: Any) -> int:
    return 0


def _four_deep(previous: Callable, callback: Callback) -> Callable:
    wrapped = _closure(previous, callback)
    for _ in range(3):
        wrapped = _closure(wrapped, _nothing)
    return wrapped


WRAPPINGS: dict[str, Callable[[Callable, Callback], Callable]] = {
    "object": Wrapper,
    "closure": _closure,
    "default argument": _default_argument,
    "partial": lambda previous, callback: functools.partial(_asking, previous, callback),
    "bound method": lambda previous, callback: Wrapper(previous, callback).answer,
    "object with a list": ListHolder,
    "object with a dict": DictHolder,
    "four packs, one around the other": _four_deep,
}
"""The ways in which packs hold what was there before them: name -> (previous, callback) -> replacement."""


def wrapping(model: Any, callback: Callback, keys: Sequence[Key], way: str = "object") -> Any:
    """A node that wraps what is at each key (the host's own text attention where nothing is)."""
    patched = model.clone()
    for key in keys:
        previous = attn2(patched).get(key, plain)
        patched.set_model_attn2_replace(WRAPPINGS[way](previous, callback), *key)
    return patched


def overwriting(model: Any, keys: Sequence[Key]) -> Any:
    """A node that puts its own attention at each key and asks nobody."""
    patched = model.clone()
    for key in keys:
        patched.set_model_attn2_replace(plain, *key)
    return patched


class AttentionCouple:
    """Regional prompts inside the attention: every positive chunk is repeated, once per prompt, then merged again.

    The batch of the cross-attention's queries becomes `U C C C` while `cond_or_uncond` goes on saying `[1, 0]`.

    Attributes:
        tell: the key in extra_options under which the chunks of after are listed; None tells nobody.
        both: whether the negative is repeated as well, as often.
    """

    def __init__(self, prompts: Sequence[Tensor], tell: str | None, both: bool = False) -> None:
        self.prompts = prompts
        self.tell = tell
        self.both = both

    def _times(self, number: int) -> int:
        return 1 if number == 1 and not self.both else 1 + len(self.prompts)

    def attn2_patch(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
        chunks = extra_options["cond_or_uncond"]
        rows = q.shape[0] // len(chunks)
        queries, keys, values, coupled, own = (list[Any]() for _ in range(5))
        for number, q_chunk, k_chunk, v_chunk in zip(chunks, *(x.chunk(len(chunks)) for x in (q, k, v)), strict=True):
            prompts = [p.repeat(rows, 1, 1).to(k) for p in self.prompts[: self._times(number) - 1]]
            queries += [q_chunk] * (1 + len(prompts))
            keys += [k_chunk, *prompts]
            values += [v_chunk, *prompts]
            own += [len(coupled) * rows + row for row in range(rows)] * (1 + len(prompts))
            coupled += [number] * (1 + len(prompts))
        extra_options[reference.OWN_ROW] = own
        if self.tell:
            extra_options[self.tell] = coupled
        return torch.cat(queries), torch.cat(keys), torch.cat(values)

    def attn2_output_patch(self, out: Tensor, extra_options: dict[str, Any]) -> Tensor:
        height, width = extra_options["activations_shape"][-2:]
        chunks, prompts = extra_options["cond_or_uncond"], 1 + len(self.prompts)
        column = torch.arange(width).mul(prompts).div(width, rounding_mode="floor")
        masks = F.one_hot(column, prompts).T[:, None, :].expand(prompts, height, width).flatten(1).to(out)
        parts = list(out.chunk(sum(map(self._times, chunks))))
        merged = []
        for number in chunks:
            mine = [parts.pop(0) for _ in range(self._times(number))]
            merged.append(mine[0] if len(mine) == 1 else sum(m[:, None] * p for m, p in zip(masks, mine, strict=True)))
        return torch.cat(merged)


def attention_couple(model: Any, prompts: Sequence[Tensor], tell: str | None, both: bool = False) -> Any:
    """A node of an attention-couple pack."""
    patched, couple = model.clone(), AttentionCouple(prompts, tell, both)
    patched.set_model_attn2_patch(couple.attn2_patch)
    patched.set_model_attn2_output_patch(couple.attn2_output_patch)
    return patched


def ordered(model: Any, order: Sequence[int]) -> Any:
    """A UNet wrapper that hands the chunks over in this order of their numbers."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        chunks = arguments["cond_or_uncond"]
        places = sorted(range(len(chunks)), key=lambda place: order.index(chunks[place]))
        rows = len(arguments["input"]) // len(chunks)
        index = torch.cat([torch.arange(place * rows, (place + 1) * rows) for place in places])
        options = arguments["c"]["transformer_options"]
        options = {**options, **{name: [options[name][p] for p in places] for name in ("cond_or_uncond", "uuids")}}
        given = {name: value[index] if torch.is_tensor(value) else value for name, value in arguments["c"].items()}
        out = apply_model(
            arguments["input"][index], arguments["timestep"][index], **{**given, "transformer_options": options}
        )
        return out[index.argsort()]

    patched = model.clone()
    patched.set_model_unet_function_wrapper(run)
    return patched


def apart(model: Any) -> Any:
    """A UNet wrapper that runs every chunk by itself."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        count = len(arguments["cond_or_uncond"])
        options, outputs = arguments["c"]["transformer_options"], []
        for place in range(count):
            own = {**options, **{name: options[name][place : place + 1] for name in ("cond_or_uncond", "uuids")}}
            given = {n: x.chunk(count)[place] if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
            x, timestep = (arguments[name].chunk(count)[place] for name in ("input", "timestep"))
            outputs.append(apply_model(x, timestep, **{**given, "transformer_options": own}))
        return torch.cat(outputs)

    patched = model.clone()
    patched.set_model_unet_function_wrapper(run)
    return patched
