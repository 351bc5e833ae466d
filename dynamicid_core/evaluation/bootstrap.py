"""Means with the range in which they would lie, had other pictures of the same kind been drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0


@dataclass(frozen=True)
class Value:
    """What one measure says of one picture.

    Attributes:
        value: None where it is undefined, for want of a face.
        missing: whether a face that it asks for was not found.
    """

    value: float | None
    missing: bool = False


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures.

    Attributes:
        mean, low, high: the mean and its interval; None when no picture defines it.
        n: pictures that the mean is of.
        missing: pictures in which a face was not found, those that define no value among them.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    missing: int


def estimate(values: Sequence[Value], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = SEED) -> Estimate:
    """The mean and its percentile bootstrap interval, pictures being drawn with replacement; the same at every call.

    Raises ValueError when there are no resamples or the level is not between 0 and 1.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"Expected at least 1 resample and a level between 0 and 1, got {resamples} and {level}.")
    missing = sum(value.missing for value in values)
    known = np.array([value.value for value in values if value.value is not None], np.float64)
    if not len(known):
        return Estimate(None, None, None, 0, missing)
    chance = np.random.default_rng(seed)
    means = np.array([known[chance.integers(0, len(known), len(known))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(known.mean()), float(low), float(high), len(known), missing)
