"""Intervals: where they lie, how wide they are, and what is counted beside them."""

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.evaluation.bootstrap import Estimate, Value, estimate


def _drawn(n: int, seed: int) -> list[Value]:
    return [Value(float(x)) for x in np.random.default_rng(seed).normal(3.0, 2.0, n)]


def test_the_interval_covers_the_known_mean_about_as_often_as_it_says() -> None:
    estimates = [estimate(_drawn(60, seed), resamples=400) for seed in range(100)]
    covered = sum(e.low is not None and e.high is not None and e.low <= 3.0 <= e.high for e in estimates)
    assert 88 <= covered <= 99


def test_it_shrinks_with_the_number_of_pictures_as_one_over_its_root() -> None:
    widths = [(e.high or 0) - (e.low or 0) for e in (estimate(_drawn(n, 1)) for n in (25, 100, 400))]
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]
    assert widths[2] == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.25)


def test_what_is_undefined_is_counted_and_never_part_of_the_mean() -> None:
    values = [Value(1.0), Value(None, True), Value(0.0, True), Value(1.0), Value(0.0)]
    result = estimate(values)
    assert (result.mean, result.n, result.missing) == (0.5, 4, 2)
    assert estimate([Value(None, True)] * 3) == Estimate(None, None, None, 0, 3)
    assert estimate([]) == Estimate(None, None, None, 0, 0)
    assert estimate([Value(0.25)]) == Estimate(0.25, 0.25, 0.25, 1, 0)


def test_it_is_the_same_at_every_call_and_another_with_another_seed() -> None:
    values = _drawn(30, 2)
    assert estimate(values) == estimate(values) != estimate(values, seed=1)


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_what_makes_no_interval_is_refused(resamples: int, level: float) -> None:
    with pytest.raises(ValueError, match=f"got {resamples} and {level}"):
        estimate([Value(1.0)], resamples, level)
