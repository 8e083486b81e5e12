"""Timing by a device's clock, with a device that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from paretrim.errors import ArtifactError
from paretrim.evaluators import timing
from paretrim.evaluators.device_session import DeviceSession, TimingSession, check_alike, example_batch, opened
from paretrim.evaluators.fakes import FakeResident
from paretrim.evaluators.target import Array, Batch
from paretrim.evaluators.testing import random_inputs

SHAPE = (2, 6)


def batches(count: int) -> list[Batch]:
    return [(each,) for each in random_inputs(2 * count).reshape(count, *SHAPE)]


def session(call_s: float) -> DeviceSession:
    return DeviceSession(FakeResident(SHAPE, call_s), "by a fake")


def test_a_call_goes_to_the_device_and_back() -> None:
    one = session(1e-4)
    (first,), (second,) = batches(2)
    answer = one(first)
    assert np.array_equal(one(second), 2 * second)
    assert np.array_equal(answer, 2 * first)  # which the later call has not changed


def test_a_batch_of_another_size_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        session(1e-4)(random_inputs(3))


def test_each_call_of_a_block_has_its_time_and_their_sum_is_the_block() -> None:
    class Coarse(FakeResident):
        """A clock with steps of half a millisecond: what lies between two of its marks is rounded."""

        def seconds(self, start: list[float], end: list[float]) -> float:
            return round(super().seconds(start, end) / 5e-4) * 5e-4

    assert session(2e-4).clock(batches(5)) == pytest.approx([2e-4] * 5)
    coarse = DeviceSession(Coarse(SHAPE, 4e-4), "").clock(batches(5))
    assert coarse.sum() == pytest.approx(2e-3)
    lost = DeviceSession(Coarse(SHAPE, 2e-4), "").clock(batches(5))  # each call is less than half a step
    assert lost == pytest.approx([2e-4] * 5)


def test_a_contest_goes_by_the_devices_clock_and_not_by_the_wall() -> None:
    rules = timing.Rules(processor_clock=False, layouts=(3, 3))
    found = timing.contest([lambda: session(0.5), lambda: session(0.25)], batches(4), rules)
    assert [each.latency_s for each in found] == pytest.approx([0.5, 0.25])
    assert found[1].ratio(found[0]) == pytest.approx((0.5, 0.5, 0.5))
    assert {each.how for each in found} == {"by a fake"}
    assert np.percentile(found[0].calls, 99) == pytest.approx(0.5)


def test_a_plain_session_is_timed_by_the_wall_beside_it() -> None:
    def plain(inputs: Array) -> Array:
        return inputs

    assert not isinstance(plain, TimingSession)
    rules = timing.Rules(processor_clock=False, layouts=(3, 3))
    ours, theirs = timing.contest([lambda: plain, lambda: session(0.25)], batches(4), rules)
    assert ours.how == ""
    assert ours.latency_s < 0.1 < theirs.latency_s


class TestOpening:
    def test_a_graph_is_taken_where_there_is_one(self) -> None:
        def plain() -> FakeResident:
            raise AssertionError("it was opened without a graph")

        found = opened(plain, lambda: FakeResident(SHAPE))
        assert found.how == "on the device, as a CUDA graph; copies to and from main memory are not in it"

    def test_what_cannot_be_captured_is_timed_without_and_says_why(self) -> None:
        def graph() -> FakeResident:
            raise RuntimeError("\noperation not permitted when stream is capturing\nsee the notes")

        found = opened(lambda: FakeResident(SHAPE), graph)
        assert "without a CUDA graph, which could not be captured (operation not permitted when stream" in found.how
        assert "see the notes" not in found.how
        (batch,) = batches(1)[0]
        assert np.array_equal(found(batch), 2 * batch)

    def test_a_graph_that_fails_at_its_first_call_is_not_taken(self) -> None:
        class Failing(FakeResident):
            def launch(self) -> None:
                raise RuntimeError("the first run captures")

        assert (
            "could not be captured (the first run captures)"
            in opened(lambda: FakeResident(SHAPE), lambda: Failing(SHAPE)).how
        )

    def test_what_does_not_open_at_all_says_so(self) -> None:
        def nothing() -> FakeResident:
            raise ArtifactError("no such file")

        with pytest.raises(ArtifactError, match="no such file"):
            opened(nothing, nothing)


@pytest.mark.parametrize(
    ("answer", "alike"),
    [
        (np.array([100.0, 1.0]), True),
        (np.array([100.05, 1.0]), True),
        (np.array([100.2, 1.0]), False),
        (np.array([np.nan, 1.0]), False),
        (np.array([[100.0], [1.0]]), False),
    ],
)
def test_answers_are_alike_by_their_size(answer: Array, alike: bool) -> None:
    expected = np.array([100.0, 1.0], np.float32)
    if alike:
        check_alike(answer, expected)
        return
    with pytest.raises(ArtifactError, match="differ from the model's"):
        check_alike(answer, expected)


def test_examples_are_of_the_models_type() -> None:
    floats, codes = example_batch((2, 3), np.float16), example_batch((2, 3), np.int64)
    assert [str(each.dtype) for each in (floats, codes)] == ["float16", "int64"]
    assert np.abs(floats).max() > 0
    assert set(codes.flat) <= {0, 1}
