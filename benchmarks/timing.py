"""Timing in alternating pairs: what drifts over minutes reaches both sides of a pair alike."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .steps import Step


@dataclass(frozen=True)
class Quartiles:
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Comparison:
    """Seconds of two steps, pair by pair."""

    base: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def ratio(self) -> Quartiles:
        """How many times the base's time the other takes, within each pair."""
        return Quartiles.of([other / base for base, other in zip(self.base, self.other, strict=True)])


def compare(base: Step, others: Sequence[Step], pairs: int, report: Callable[[], None]) -> list[Comparison]:
    """Time each of the others against the base in pairs base-other, other-base, ...; all of them take turns.

    Args:
        report: called after each pair.
    """
    seconds: list[list[tuple[float, float]]] = [[] for _ in others]
    for number in range(pairs):
        for other, measured in zip(others, seconds, strict=True):
            if number % 2:
                second, first = timed(other), timed(base)
            else:
                first, second = timed(base), timed(other)
            measured.append((first, second))
            report()
    return [Comparison(*(tuple(side) for side in zip(*measured, strict=True))) for measured in seconds]


def timed(step: Step) -> float:
    """Seconds of one step: by CUDA's own events on a GPU, by the clock elsewhere."""
    if torch.cuda.is_available():
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_memory(step: Step) -> int:
    """Bytes allocated on the GPU at the most while taking a step, the model's own included."""
    gc.collect()  # of earlier runs
    step()  # what a run prepares once stays allocated, and counts
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
