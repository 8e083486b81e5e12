"""Shares with their intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.statistics import share_interval

COUNTS = st.integers(1, 100_000)


class TestShare:
    @given(st.floats(0, 1), COUNTS)
    def test_the_interval_holds_the_share(self, share: float, count: int) -> None:
        low, high = share_interval(share, count)
        assert 0.0 <= low <= share <= high <= 1.0

    @given(COUNTS)
    def test_the_intervals_of_none_and_of_all_hold_them(self, count: int) -> None:
        assert share_interval(0.0, count)[0] == 0.0
        assert share_interval(1.0, count)[1] == 1.0

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
