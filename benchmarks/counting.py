"""Counting what a call of the UNet does, in all and in each cross-attention layer."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

FLOPS, VIEWS = "floating-point operations", "views"


@dataclass
class Layer:
    """A cross-attention layer, from its norm to where its output has been added.

    Attributes:
        queries, width: the grid's cells and their channels.
        counts: what was counted within, all calls of the UNet together.
    """

    queries: int
    width: int
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class Tally:
    """What was counted while the block ran.

    Attributes:
        total: everything.
        layers: by the transformer block's name in the UNet.
    """

    total: Counter[str] = field(default_factory=Counter)
    layers: dict[str, Layer] = field(default_factory=dict)


@contextmanager
def counted_flops(unet: torch.nn.Module) -> Iterator[Tally]:
    """Count floating-point operations as PyTorch's counter does; only on the meta device does it know all attention."""
    counter = FlopCounterMode(display=False)
    with counter, _read_at_layers(unet, lambda: Counter({FLOPS: counter.get_total_flops()})) as tally:
        yield tally


@contextmanager
def counted_calls(unet: torch.nn.Module) -> Iterator[Tally]:
    """Count operator calls by name, those that only give another view of a tensor together as VIEWS.

    Under inference mode, as the host samples, a composite operator (linear, scaled_dot_product_attention) counts once.
    """
    with _Calls() as mode, _read_at_layers(unet, lambda: Counter(mode.seen)) as tally:
        yield tally


@contextmanager
def counted_block_calls(blocks: Sequence[torch.nn.Module]) -> Iterator[list[Counter[str]]]:
    """Count operator calls by name as `counted_calls` does, in each of a network's blocks, all their calls together."""
    counts, handles = [Counter[str]() for _ in blocks], []
    with _Calls() as mode:
        for block, count in zip(blocks, counts, strict=True):
            # subtracted before and added after: what lies between remains
            handles.append(block.register_forward_pre_hook(lambda *_, count=count: count.subtract(mode.seen)))
            handles.append(block.register_forward_hook(lambda *_, count=count: count.update(mode.seen)))
        try:
            yield counts
        finally:
            for handle in handles:
                handle.remove()


def computing(counts: Counter[str]) -> int:
    """The number of calls that compute something."""
    return counts.total() - counts[VIEWS]


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen[VIEWS if _is_view(func, args, out) else str(func.overloadpacket)] += 1
        return out


def _is_view(func: Any, args: tuple[Any, ...], out: Any) -> bool:
    """Whether a call did no more than show its first argument's numbers in another way (or not even that)."""
    made = out[0] if isinstance(out, (tuple, list)) and out else out
    if func._schema.is_mutable or not (args and isinstance(args[0], Tensor) and isinstance(made, Tensor)):
        return False
    return args[0].untyped_storage()._cdata == made.untyped_storage()._cdata


@contextmanager
def _read_at_layers(unet: torch.nn.Module, read: Callable[[], Counter[str]]) -> Iterator[Tally]:
    """Read a meter at both ends of every cross-attention layer, and of the whole block."""
    tally, handles, begun = Tally(), [], {}

    def begin(name: str, inputs: tuple[Tensor, ...]) -> None:
        tally.layers.setdefault(name, Layer(*inputs[0].shape[1:]))
        begun[name] = read()

    def end(name: str) -> None:
        tally.layers[name].counts += read() - begun.pop(name)

    for name, block in unet.named_modules():
        if getattr(block, "attn2", None) is None:
            continue
        # The host runs: x = attn2(norm2(x)) + x; x = ff(norm3(x)) + x.
        handles.append(block.norm2.register_forward_pre_hook(lambda _, inputs, name=name: begin(name, inputs)))
        handles.append(block.norm3.register_forward_pre_hook(lambda *_, name=name: end(name)))
    start = read()
    try:
        yield tally
    finally:
        tally.total = read() - start
        for handle in handles:
            handle.remove()
