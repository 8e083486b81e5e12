"""Contests between sessions that take as long as they are told to."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from paretrim.evaluators.target import Array, Batch, Session
from paretrim.evaluators.timing import Clocked, Rules, contest, throughput, warm_up

MICRO = 1e-6
INPUTS: list[Batch] = [(np.full((1, 2), i, np.float32),) for i in range(4)]
LEAST, MOST = 9, 15


class Spinning:
    """A session whose calls take so much time, by the clock on the wall."""

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, inputs: Array) -> Array:
        end = self.clock() + self.seconds
        while self.clock() < end:
            pass
        return inputs


class Computing(Spinning):
    """A session whose calls need so much processor time, and then wait for as long again."""

    clock = staticmethod(time.process_time)

    def __call__(self, inputs: Array) -> Array:
        outputs = super().__call__(inputs)
        time.sleep(self.seconds)
        return outputs


class Opening:
    """Opens sessions that take so long, one duration for each layout, over and over; knows those that are still held."""

    def __init__(self, *seconds: float) -> None:
        self.opened = 0
        self.held: weakref.WeakSet[Spinning] = weakref.WeakSet()
        self.held_at_opening: list[int] = []
        self._seconds = seconds

    def __call__(self) -> Session:
        self.held_at_opening.append(len(self.held))
        session = Spinning(self._seconds[self.opened % len(self._seconds)])
        self.opened += 1
        self.held.add(session)
        return session


class TestContest:
    def test_times_and_ratios_are_near_the_truth_and_in_order(self) -> None:
        found = contest([lambda s=s: Spinning(s) for s in (60 * MICRO, 120 * MICRO, 30 * MICRO)], INPUTS, Rules())  # type: ignore[misc]
        assert [each.latency_s for each in found] == pytest.approx([60e-6, 120e-6, 30e-6], rel=0.15)
        assert [each.ratio(found[0])[0] for each in found] == pytest.approx([1.0, 2.0, 0.5], rel=0.15)
        for each in found:
            low, high = each.interval_s()
            assert low <= each.latency_s <= high
            assert each.spread() >= 0.0
            assert np.median(each.calls) >= low

    def test_it_ends_as_soon_as_ratios_are_narrow(self) -> None:
        first, second = Opening(50 * MICRO), Opening(100 * MICRO)
        found = contest([first, second], INPUTS, Rules(narrow=0.2))
        assert [len(each.floors) for each in found] == [LEAST, LEAST]
        assert first.opened == second.opened == LEAST

    def test_it_goes_on_while_layouts_differ(self) -> None:
        steady, unsteady = Opening(50 * MICRO), Opening(40 * MICRO, 80 * MICRO, 60 * MICRO, 120 * MICRO)
        found = contest([steady, unsteady], INPUTS, Rules(narrow=0.05, budget_s=60.0))
        assert [len(each.floors) for each in found] == [MOST, MOST]
        assert found[1].latency_s == pytest.approx(44e-6, rel=0.2)
        assert found[1].spread() > 0.3

    def test_it_ends_when_its_time_is_up(self) -> None:
        steady, unsteady = Opening(50 * MICRO), Opening(40 * MICRO, 80 * MICRO)
        found = contest([steady, unsteady], INPUTS, Rules(narrow=0.0, budget_s=0.0))
        assert [len(each.floors) for each in found] == [LEAST, LEAST]

    def test_models_are_opened_while_those_of_the_layout_before_are_still_held(self) -> None:
        first, second = Opening(50 * MICRO), Opening(50 * MICRO)
        contest([first, second], INPUTS, Rules(narrow=1.0))
        assert first.held_at_opening == second.held_at_opening == [0, *[1] * (LEAST - 1)]
        assert not first.held

    def test_calls_are_kept_of_all_layouts(self) -> None:
        opening = Opening(*[20 * MICRO] * (LEAST - 1), 60 * MICRO)
        found = contest([opening], INPUTS, Rules())[0]
        assert len(found.floors) == LEAST
        slow = np.mean(np.array(found.calls) >= 60 * MICRO)
        assert 0.05 < slow < 0.6, "the last of six layouts is slow, and so should be about a sixth of the calls"
        assert len(found.calls) > 300

    @pytest.mark.parametrize("seconds", [100 * MICRO, 2000 * MICRO])
    def test_models_get_all_inputs_in_turns(self, seconds: float) -> None:
        seen: list[list[float]] = [[], []]

        def opening(into: list[float]) -> Session:
            session = Spinning(seconds)

            def call(inputs: Array) -> Array:
                into.append(float(inputs[0, 0]))
                return session(inputs)

            return call

        contest([lambda into=into: opening(into) for into in seen], INPUTS, Rules(narrow=1.0))  # type: ignore[misc]
        for values in seen:
            _, counts = np.unique(values, return_counts=True)
            assert len(counts) == len(INPUTS)
            assert counts.min() > 0.7 * counts.max()

    def test_waiting_does_not_count_by_the_clock_of_the_processor(self) -> None:
        found = contest([lambda: Computing(1e-3)], INPUTS, Rules(processor_clock=True))[0]
        assert found.latency_s == pytest.approx(1e-3, rel=0.3)
        assert min(found.calls) >= 2e-3, "single calls are by the clock on the wall"

    def test_waiting_counts_where_others_compute_for_the_model(self) -> None:
        found = contest([lambda: Computing(1e-3)], INPUTS, Rules(processor_clock=False))[0]
        assert found.latency_s >= 2e-3

    def test_a_model_slower_than_a_layout_should_take_is_called_a_few_times(self) -> None:
        found = contest([lambda: Spinning(0.06)], INPUTS, Rules(processor_clock=False))[0]
        assert len(found.calls) == LEAST * 2
        assert found.latency_s >= 0.06


class TestClocked:
    def test_a_slow_layout_in_three_does_not_count(self) -> None:
        clocked = Clocked([1.0, 1.0, 1.0, 1.2, 1.2, 1.2])
        assert clocked.latency_s == 1.0
        assert clocked.spread() == pytest.approx(0.1)

    def test_the_ratio_to_itself_is_one(self) -> None:
        clocked = Clocked([1.0, 1.5, 1.1, 1.2, 0.9, 1.3])
        assert clocked.ratio(clocked) == (1.0, 1.0, 1.0)


class Warming:
    """A session whose calls take the given times, and the last of them from then on."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.calls = 0
        self._seconds: Iterator[float] = iter(seconds)
        self._session = Spinning(0.0)

    def __call__(self, inputs: Array) -> Array:
        self.calls += 1
        self._session.seconds = next(self._seconds, self._session.seconds)
        return self._session(inputs)


class TestWarmUp:
    def test_it_lasts_until_calls_get_no_faster(self) -> None:
        getting_faster = [40e-3, 10e-3, 2e-3, 0.2e-3]
        session = Warming(getting_faster)
        assert 0.2e-3 <= warm_up(session, INPUTS) < 0.4e-3
        assert session.calls > len(getting_faster)

    def test_a_steady_model_is_warm_soon(self) -> None:
        session = Warming([1e-3])
        assert 1e-3 <= warm_up(session, INPUTS) < 2e-3
        assert session.calls < 100

    def test_a_call_of_more_than_the_limit_is_not_repeated(self) -> None:
        session = Warming([0.6])
        assert warm_up(session, INPUTS) >= 0.6
        assert session.calls == 1


class TestThroughput:
    def test_it_is_in_samples(self) -> None:
        batch = np.zeros((8, 2), np.float32)
        assert 4000 < throughput(Spinning(1e-3), (batch,)) <= 8000

    def test_the_first_call_does_not_count(self) -> None:
        session = Warming([0.2, 1e-3])
        assert throughput(session, (np.zeros((1, 2), np.float32),)) > 200

    def test_a_slow_model_is_called_four_times(self) -> None:
        session = Warming([0.03])
        assert 20 < throughput(session, (np.zeros((1, 2), np.float32),)) <= 34
        assert session.calls == 4
