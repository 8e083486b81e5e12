"""The order of the halving against a brute-force one, and what it would have done with trials that were recorded."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search.halving import Halving, RungEntry, Verdict, order, spread, standing
from paretrim.tracking.front import Objective, hypervolume, trial_front
from paretrim.tracking.records import TrialRecord

DATA = Path(__file__).resolve().parents[1] / "data"
OBJECTIVES = (
    Objective("accuracy", maximize=True),
    Objective("latency_ms", noise=0.03),
    Objective("size_bytes"),
    Objective("memory_bytes", noise=0.05),
)

# The order: small numbers, so that there are ties, duplicates and several ranks.

_numbers = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([math.inf, -math.inf, math.nan]))
_rungs = st.integers(1, 4).flatmap(
    lambda objectives: st.lists(
        st.tuples(st.tuples(*[_numbers] * objectives), st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, math.inf])),
        min_size=1,
        max_size=24,
    )
)


def entries_of(given: Sequence[tuple[tuple[float, ...], float]]) -> list[RungEntry]:
    return [RungEntry(i * 3, 1, values, violation) for i, (values, violation) in enumerate(given)]


def dominates(one: RungEntry, other: RungEntry) -> bool:
    pairs = [*zip(one.values, other.values, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def brute_force(entries: Sequence[RungEntry]) -> dict[int, tuple[float, int]]:
    """Return each trial's violation and rank: the front is peeled off again and again."""
    known = [e if e.violation < math.inf and not any(map(math.isnan, e.values)) else None for e in entries]
    cleared = [
        RungEntry(e.trial, 1, tuple(math.inf if math.isnan(v) else v for v in e.values), e.violation if k else math.inf)
        for e, k in zip(entries, known, strict=True)
    ]
    found: dict[int, tuple[float, int]] = {}
    for violation in {e.violation for e in cleared}:
        left, rank = [e for e in cleared if e.violation == violation], 0
        while left:
            best = [e for e in left if not any(dominates(other, e) for other in left)]
            found |= {e.trial: (violation, rank) for e in best}
            left, rank = [e for e in left if e not in best], rank + 1
    return found


@settings(max_examples=120, deadline=None)
@given(_rungs, st.randoms(use_true_random=False))
def test_order_is_that_of_a_brute_force_sort(
    given: list[tuple[tuple[float, ...], float]], chance: random.Random
) -> None:
    entries = entries_of(given)
    ordered, expected = order(entries), brute_force(entries)
    assert sorted(ordered) == [e.trial for e in entries]
    assert [expected[trial] for trial in ordered] == sorted(expected.values())

    shuffled = chance.sample(entries, len(entries))
    assert order(shuffled) == ordered
    assert [standing(trial, shuffled)[0] for trial in ordered] == [*range(1, len(entries) + 1)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[st.floats(-5, 5)] * m), min_size=1, max_size=20)))
def test_spread_begins_with_the_best_in_each_and_goes_on_with_the_farthest(points: list[tuple[float, ...]]) -> None:
    values = np.array(points)
    ordered = spread(values)
    assert sorted(ordered) == [*range(len(points))]
    best = {float(values[:, j].min()) for j in range(values.shape[1])}
    begin = ordered[: values.shape[1]]
    assert best <= {float(v) for v in values[begin].min(axis=0)}
    span = np.ptp(values, axis=0)
    unit = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    for position in range(values.shape[1], len(points)):
        gaps = [min(np.linalg.norm(unit[i] - unit[j]) for j in ordered[:position]) for i in ordered[position:]]
        assert gaps[0] == pytest.approx(max(gaps))


def test_a_few_points_in_order() -> None:
    entries = [
        RungEntry(1, 1, (5.0, 5.0)),  # beaten by all of the first rank
        RungEntry(2, 1, (0.0, 4.0)),  # best in the first objective
        RungEntry(3, 1, (4.0, 0.0)),  # best in the second
        RungEntry(4, 1, (3.9, 0.1)),  # beside the one before
        RungEntry(5, 1, (2.0, 2.0)),  # between the two ends
        RungEntry(6, 1, (0.0, 0.0), 0.2),  # breaks a constraint
        RungEntry(7, 1, (0.0, 0.0), 0.1),  # breaks it by less
        RungEntry(8, 1, (math.nan, 0.0)),
        RungEntry(9, 1, (2.0, 2.0)),  # the same as the fifth
    ]
    assert order(entries) == [2, 3, 5, 4, 9, 1, 7, 6, 8]


def test_place_of_a_stranger() -> None:
    with pytest.raises(ValueError, match="trial 7 is not among the 1 entries; enter it first"):
        standing(7, [RungEntry(0, 1, (1.0,))])


# The rungs.


@pytest.mark.parametrize(
    ("longest", "reduction", "grace", "expected"),
    [(8, 2, 1, (1, 2, 4)), (9, 3, 1, (1, 3)), (9, 2, 2, (2, 4, 8)), (4, 2, 1, (1, 2)), (1, 2, 1, ()), (0, 2, 1, ())],
)
def test_rungs(longest: int, reduction: int, grace: int, expected: tuple[int, ...]) -> None:
    assert Halving(longest, reduction, grace).epochs == expected


def test_the_first_go_on_and_then_the_better_half() -> None:
    halving = Halving(longest=8, reduction=2)
    went_on = [halving.judge(RungEntry(trial, 1, (float(-trial),))).goes_on for trial in range(6)]
    assert went_on == [True] * 6  # each beats all before it
    # 7 have been there, of which 4 go on: only a value below that of trial 2 is among them.
    assert halving.judge(RungEntry(6, 1, (-1.5,))) == Verdict(goes_on=False, place=5, of=7, quota=4)
    assert halving.judge(RungEntry(7, 1, (-2.5,))) == Verdict(goes_on=True, place=4, of=8, quota=4)


def test_between_the_rungs_and_at_the_last_epoch_all_go_on() -> None:
    halving = Halving(longest=8, reduction=2)
    for trial in range(20):
        for epoch in (3, 5, 6, 7, 8):
            assert halving.judge(RungEntry(trial, epoch, (float(trial),))) == Verdict()


def test_none_of_the_first_rank_is_stopped_and_no_other_beyond_the_quota_goes_on() -> None:
    chance = random.Random(0)
    for _ in range(20):
        rung = [RungEntry(i, 1, tuple(chance.choice((0.0, 1.0, 2.0, 3.0)) for _ in range(3))) for i in range(30)]
        on = {e.trial for e in rung if _alone(rung, e).goes_on}
        front = {e.trial for e in rung if not any(dominates(other, e) for other in rung)}
        assert front <= on
        assert len(on) == max(10, len(front))


def test_when_none_meets_the_constraints_those_that_come_nearest_go_on() -> None:
    halving = Halving(longest=8, reduction=2)
    for trial in range(12):
        halving.record(RungEntry(trial, 1, (float(trial),), violation=1.0 + trial))
    assert halving.judge(RungEntry(12, 1, (-9.0,), violation=20.0)).goes_on is False
    assert halving.judge(RungEntry(13, 1, (99.0,), violation=0.5)).place == 1
    # The first that meets them is best, whatever its objectives.
    assert halving.judge(RungEntry(14, 1, (999.0,))).place == 1


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_worst(score: float) -> None:
    halving = Halving(longest=8, reduction=2)
    for trial in range(10):
        halving.record(RungEntry(trial, 1, (float(trial), 5.0)))
    verdict = halving.judge(RungEntry(10, 1, (score, 6.0)))
    assert (verdict.goes_on, verdict.place) == (False, 11)


def test_a_trial_that_is_asked_for_again_takes_its_own_place() -> None:
    halving = Halving(longest=8, reduction=2)
    for trial in range(10):
        halving.record(RungEntry(trial, 1, (float(trial),)))
    assert halving.judge(RungEntry(4, 1, (4.0,))) == Verdict(goes_on=True, place=5, of=10, quota=5)


def test_a_trial_that_failed_leaves_the_rungs() -> None:
    halving = Halving(longest=8, reduction=2)
    for trial in range(10):
        halving.record(RungEntry(trial, 1, (float(trial),)))
    halving.forget(0)
    halving.forget(77)
    assert halving.judge(RungEntry(20, 1, (5.5,))) == Verdict(goes_on=False, place=6, of=10, quota=5)


def test_with_nothing_to_compare_nothing_is_stopped() -> None:
    assert order([RungEntry(3, 1, ()), RungEntry(1, 1, ())]) == [1, 3]
    halving = Halving(longest=8)
    assert all(halving.judge(RungEntry(trial, 1, ())) == Verdict() for trial in range(20))


def _alone(rung: Sequence[RungEntry], entry: RungEntry) -> Verdict:
    halving = Halving(longest=8, reduction=3)
    for each in rung:
        halving.record(each)
    return halving.judge(entry)


# Replay: trials of the bundled example that were really trained, each to its end; see tests/subjects/record_curves.py.


@dataclass(frozen=True)
class Curve:
    number: int
    costs: Mapping[str, float]
    scores: tuple[float, ...]
    accuracy: float

    def entry(self, epoch: int) -> RungEntry:
        known = {**self.costs, "accuracy": self.scores[epoch - 1]}
        return RungEntry(self.number, epoch, tuple(o.box(known[o.name]) for o in OBJECTIVES))

    @property
    def record(self) -> TrialRecord:
        found = (*(Measurement(n, v) for n, v in self.costs.items()), Measurement("accuracy", self.accuracy))
        return TrialRecord(self.number, "search" if self.scores else "baseline", "complete", measurements=found)


class Recorded:
    """Recorded trials, and what of their hypervolume some of them have."""

    def __init__(self, name: str) -> None:
        document = json.loads((DATA / name).read_text())
        every = [Curve(t["number"], t["costs"], tuple(t["scores"]), t["accuracy"]) for t in document["trials"]]
        self.longest = int(document["epochs"])
        self.baseline = every[0].record
        self.curves = [curve for curve in every if curve.scores]
        self.numbers = [curve.number for curve in self.curves]
        self.epochs = self.longest * len(self.curves)
        records = [curve.record for curve in self.curves]
        self.front = {r.number for r in trial_front(records, OBJECTIVES, ())}

    def volume(self, kept: Sequence[int]) -> float:
        records = [self.baseline, *(curve.record for curve in self.curves if curve.number in kept)]
        return hypervolume(records, OBJECTIVES, ())

    def shuffled(self, seed: int) -> list[Curve]:
        return random.Random(seed).sample(self.curves, len(self.curves))


@dataclass
class Replay:
    """Trials on two workers, an epoch at a time.

    Attributes:
        ran: Epochs of each trial.
        verdicts: What was decided, in order.
        kept: Trials that ran to their end.
    """

    ran: dict[int, int]
    verdicts: list[tuple[int, int, Verdict]]
    kept: list[int]


def replayed(curves: Sequence[Curve], longest: int, parallel: int = 2, restarts: Sequence[int] = ()) -> Replay:
    """Replay trials in the given order.

    Args:
        curves: The trials.
        longest: Epochs of each.
        parallel: Workers.
        restarts: Counts of verdicts after which the search dies: the rungs are built from the trials that ended, in an
            order of no meaning, and those under way tell their epochs again.
    """
    halving, done = Halving(longest), Replay({}, [], [])
    waiting, under_way = [*curves], list[Curve]()
    while waiting or under_way:
        while waiting and len(under_way) < parallel:
            under_way.append(waiting.pop(0))
        for curve in [*under_way]:
            epoch = done.ran[curve.number] = done.ran.get(curve.number, 0) + 1
            verdict = halving.judge(curve.entry(epoch))
            done.verdicts.append((curve.number, epoch, verdict))
            if epoch == longest:
                done.kept.append(curve.number)
            if epoch == longest or not verdict.goes_on:
                under_way.remove(curve)
            if len(done.verdicts) in restarts:
                halving = Halving(longest)
                for other in random.Random(len(done.verdicts)).sample([*curves], len(curves)):
                    for past in range(1, done.ran.get(other.number, 0) + 1):
                        halving.record(other.entry(past))
    return done


RECORDINGS = ["digits_default.json", "digits_deep.json"]
ORDERS = 10


@pytest.mark.parametrize("name", RECORDINGS)
def test_better_candidates_are_promoted(name: str) -> None:
    recorded, chance = Recorded(name), random.Random(0)
    none, whole = recorded.volume([]), recorded.volume(recorded.numbers)
    shares, at_random, precisions, epochs = [], [], [], []
    for seed in range(ORDERS):
        done = replayed(recorded.shuffled(seed), recorded.longest)
        others = [chance.sample(recorded.numbers, len(done.kept)) for _ in range(10)]
        shares.append(recorded.volume(done.kept) - none)
        at_random.append(np.mean([recorded.volume(other) - none for other in others]))
        precisions.append(len(recorded.front.intersection(done.kept)) / len(done.kept))
        epochs.append(sum(done.ran.values()) / recorded.epochs)

    # Less than half of the epochs find nearly all that training everything finds, and more than as many trials that
    # were left over by chance; those of the final front are among them more often.
    assert np.mean(epochs) < 0.5
    assert np.mean(shares) > 0.97 * (whole - none)
    assert np.mean(shares) > np.mean(at_random)
    assert np.mean(precisions) > 1.3 * len(recorded.front) / len(recorded.numbers)


def test_the_order_comes_nearer_to_the_final_one_from_rung_to_rung() -> None:
    recorded = Recorded("digits_deep.json")
    last = order([curve.entry(recorded.longest) for curve in recorded.curves])
    distances = []
    for epoch in Halving(recorded.longest).epochs:
        now = order([curve.entry(epoch) for curve in recorded.curves])
        distances.append(np.mean([abs(now.index(n) - last.index(n)) for n in recorded.numbers]))
    # Of an order by chance, the mean distance is a third of their number.
    assert len(recorded.numbers) / 3 > distances[0] > distances[1]


def test_a_replay_is_the_same_each_time() -> None:
    recorded = Recorded("digits_default.json")
    assert replayed(recorded.curves, recorded.longest) == replayed(recorded.curves, recorded.longest)


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_after_a_restart_it_decides_as_without_one(parallel: int) -> None:
    recorded = Recorded("digits_default.json")
    through = replayed(recorded.curves, recorded.longest, parallel)
    assert {verdict.goes_on for _, _, verdict in through.verdicts} == {True, False}
    for seed in range(5):
        restarts = random.Random(seed).sample(range(1, len(through.verdicts)), 4)
        assert replayed(recorded.curves, recorded.longest, parallel, restarts) == through
