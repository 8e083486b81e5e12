"""Medians and shares with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.statistics import median_interval, relative_spread, share_interval

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

SAMPLES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200).map(np.array)
COUNTS = st.integers(1, 100_000)


def coverage(count: int) -> float:
    """Return how often the interval of `count` samples holds the median of what they are drawn from."""
    _, low, high = median_interval(np.arange(count, dtype=np.float64))
    # It does when at least `low + 1` and at most `high` samples lie below that median.
    return float(sum(math.comb(count, below) for below in range(int(low) + 1, int(high) + 1)) / 2**count)


class TestMedian:
    @given(SAMPLES)
    def test_the_interval_holds_the_median(self, samples: np.ndarray) -> None:
        median, low, high = median_interval(samples)
        assert low <= median <= high
        assert median == np.median(samples)

    @given(SAMPLES)
    def test_the_ends_are_samples(self, samples: np.ndarray) -> None:
        _, low, high = median_interval(samples)
        assert low in samples
        assert high in samples

    @given(SAMPLES, st.randoms(use_true_random=False))
    def test_the_order_does_not_matter(self, samples: np.ndarray, source: object) -> None:
        shuffled = list(samples)
        source.shuffle(shuffled)  # type: ignore[attr-defined]
        assert median_interval(np.array(shuffled)) == median_interval(samples)

    @given(SAMPLES)
    def test_the_interval_of_mirrored_samples_is_mirrored(self, samples: np.ndarray) -> None:
        median, low, high = median_interval(samples)
        assert median_interval(-samples) == (-median, -high, -low)

    @given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=200), st.integers(-1000, 1000))
    def test_the_interval_moves_with_the_samples(self, samples: list[int], shift: int) -> None:
        moved = median_interval(np.array(samples, np.float64) + shift)
        assert moved == tuple(value + shift for value in median_interval(np.array(samples, np.float64)))

    def test_the_interval_holds_the_true_median_95_times_in_100(self) -> None:
        missed = {count: round(coverage(count), 4) for count in range(6, 151) if coverage(count) < 0.95}
        assert missed == {}

    def test_the_interval_is_not_wider_than_it_need_be(self) -> None:
        assert coverage(25) < 0.99
        assert coverage(150) < 0.98

    def test_one_outlier_does_not_move_it(self) -> None:
        samples = np.array([*np.linspace(1.0, 1.1, 30), 1e6])
        assert all(1.0 <= value <= 1.1 for value in median_interval(samples))


class TestShare:
    @given(st.floats(0, 1), COUNTS)
    def test_the_interval_holds_the_share(self, share: float, count: int) -> None:
        low, high = share_interval(share, count)
        assert 0.0 <= low <= share + 1e-9
        assert share - 1e-9 <= high <= 1.0

    @given(st.floats(0, 1), st.integers(1, 10_000))
    def test_more_samples_narrow_it(self, share: float, count: int) -> None:
        (low, high), (nearer_low, nearer_high) = share_interval(share, count), share_interval(share, 4 * count)
        assert nearer_high - nearer_low < high - low

    @given(st.floats(0, 1), COUNTS)
    def test_the_interval_of_the_rest_is_the_mirror_image(self, share: float, count: int) -> None:
        low, high = share_interval(share, count)
        assert share_interval(1 - share, count) == pytest.approx((1 - high, 1 - low), abs=1e-9)

    def test_it_is_wilsons(self) -> None:
        assert share_interval(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
        assert share_interval(1.0, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)


@given(st.lists(st.floats(0.1, 1e6), min_size=1).map(np.array), st.floats(0.1, 10))
def test_the_spread_does_not_depend_on_the_unit(samples: np.ndarray, factor: float) -> None:
    assert relative_spread(samples) >= 0.0
    assert relative_spread(samples * factor) == pytest.approx(relative_spread(samples), rel=1e-6, abs=1e-9)


def test_the_spread_is_relative_to_the_median() -> None:
    assert relative_spread(np.array([9.0, 10.0, 12.0])) == pytest.approx(0.3)
