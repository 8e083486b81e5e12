"""The fastest third of samples, its interval, and ratios of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.floors import fastest_third, ratio_interval, third_interval

Floats = npt.NDArray[np.float64]
SECONDS = st.floats(1e-7, 10.0)
SAMPLES = st.lists(SECONDS, min_size=1, max_size=20).map(np.array)
PAIRS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=20).map(np.array)


class TestFastestThird:
    @given(SAMPLES)
    def test_it_lies_between_the_fastest_and_the_mean(self, samples: Floats) -> None:
        assert samples.min() * (1 - 1e-12) <= fastest_third(samples) <= samples.mean() * (1 + 1e-12)

    @given(SECONDS, st.integers(1, 20))
    def test_of_constants_it_is_the_constant(self, value: float, count: int) -> None:
        constants = np.full(count, value)
        assert fastest_third(constants) == pytest.approx(value, rel=1e-14)
        assert third_interval(constants) == pytest.approx((value, value), rel=1e-14)

    @given(SAMPLES, st.randoms(use_true_random=False))
    def test_the_order_does_not_matter(self, samples: Floats, source: Any) -> None:
        shuffled = list(samples)
        source.shuffle(shuffled)
        assert fastest_third(np.array(shuffled)) == fastest_third(samples)

    @given(SAMPLES, st.floats(0.1, 10.0))
    def test_it_grows_with_the_unit(self, samples: Floats, factor: float) -> None:
        assert fastest_third(factor * samples) == pytest.approx(factor * fastest_third(samples))

    @given(PAIRS)
    def test_slowing_samples_down_never_makes_it_faster(self, pairs: Floats) -> None:
        before, disturbance = pairs.T
        assert fastest_third(before + disturbance) >= fastest_third(before)

    @given(st.lists(st.floats(1.0, 1.02), min_size=2, max_size=20).map(np.array), st.data())
    def test_slowing_half_of_the_samples_down_hardly_moves_it(self, samples: Floats, data: st.DataObject) -> None:
        few = st.sets(st.integers(0, len(samples) - 1), max_size=len(samples) // 2)
        disturbed = samples.copy()
        for position in data.draw(few):
            disturbed[position] *= data.draw(st.floats(1.0, 1e3))
        assert fastest_third(samples) <= fastest_third(disturbed) <= samples.max() * (1 + 1e-12)

    def test_it_is_the_mean_of_a_third(self) -> None:
        assert fastest_third(np.array([9.0, 1.0, 8.0, 2.0, 7.0, 6.0])) == 1.5
        assert fastest_third(np.array([3.0, 2.0])) == 2.0
        assert fastest_third(np.array([3.0])) == 3.0


class TestInterval:
    @given(SAMPLES)
    def test_it_holds_the_value_and_lies_among_the_samples(self, samples: Floats) -> None:
        low, high = third_interval(samples)
        assert low <= fastest_third(samples) <= high
        assert samples.min() * (1 - 1e-12) <= low
        assert high <= samples.max() * (1 + 1e-12)

    @given(SAMPLES)
    def test_the_same_samples_have_the_same_interval(self, samples: Floats) -> None:
        assert third_interval(samples) == third_interval(samples.copy())

    def test_more_samples_narrow_it(self) -> None:
        source = np.random.default_rng(0)
        few, many = (
            np.mean([np.ptp(third_interval(1 + source.exponential(0.05, n))) for _ in range(50)]) for n in (6, 60)
        )
        assert many < few / 2


class TestRatio:
    @given(SAMPLES)
    def test_of_a_series_to_itself_is_one(self, samples: Floats) -> None:
        assert ratio_interval(samples, samples) == (1.0, 1.0, 1.0)

    @given(PAIRS)
    def test_the_interval_holds_the_value(self, pairs: Floats) -> None:
        ratio, low, high = ratio_interval(*pairs.T)
        assert 0 < low <= ratio <= high
        assert ratio == fastest_third(pairs[:, 0]) / fastest_third(pairs[:, 1])

    @given(SAMPLES, st.floats(0.1, 10.0))
    def test_what_moves_with_the_other_has_a_narrow_ratio(self, samples: Floats, factor: float) -> None:
        assert ratio_interval(factor * samples, samples) == pytest.approx((factor, factor, factor))

    @given(PAIRS, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
    def test_it_does_not_depend_on_the_units(self, pairs: Floats, ours: float, theirs: float) -> None:
        found = ratio_interval(pairs[:, 0] * ours, pairs[:, 1] * theirs)
        expected = np.array(ratio_interval(*pairs.T)) * ours / theirs
        assert found == pytest.approx(tuple(expected))

    @pytest.mark.parametrize(("layouts", "least"), [(6, 0.75), (16, 0.85)])
    def test_the_interval_of_two_like_models_mostly_holds_one(self, layouts: int, least: float) -> None:
        source = np.random.default_rng(1)
        holds = []
        for _ in range(300):
            _, low, high = ratio_interval(*(1 + source.exponential(0.02, (2, layouts))))
            holds.append(low <= 1.0 <= high)
        assert np.mean(holds) > least

    def test_a_slow_layout_in_three_of_either_does_not_move_it(self) -> None:
        ours, theirs = np.full(9, 2.0), np.full(9, 1.0)
        ours[::3] *= 1.5
        theirs[1::3] *= 1.5
        ratio, low, high = ratio_interval(ours, theirs)
        assert ratio == 2.0
        assert 1.9 < low <= high < 2.1
