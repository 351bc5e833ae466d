"""Means over images with their intervals, by the percentile bootstrap (Efron and Tibshirani, 1993, chapter 13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0


class Value(NamedTuple):
    """One measure of one image.

    Attributes:
        value: None where it is undefined, for want of a face.
        missing: whether a face that it asks for is missing in the image.
    """

    value: float | None
    missing: bool = False


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        mean, low, high: the mean and its interval; None when no image defines it.
        n: images that the mean is of.
        missing: images in which a face is missing, those that define no value among them.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    missing: int


def estimate(values: Sequence[Value], resamples: int = RESAMPLES, level: float = LEVEL, seed: int = SEED) -> Estimate:
    """Return the mean and its interval; images are drawn with replacement, the same ones at every call.

    Raises ValueError when there are no resamples or the level is not between 0 and 1.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"Expected at least 1 resample and a level between 0 and 1, got {resamples} and {level}.")
    missing = sum(value.missing for value in values)
    defined = np.array([value.value for value in values if value.value is not None], np.float64)
    if not len(defined):
        return Estimate(None, None, None, 0, missing)
    rng = np.random.default_rng(seed)
    means = [defined[rng.integers(0, len(defined), len(defined))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(defined.mean()), float(low), float(high), len(defined), missing)
