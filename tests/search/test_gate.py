"""The gate: what it stops could not matter, whatever came out within what it claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search.gate import SIZE, Gate, best_case, size_floor
from paretrim.tracking.constraints import Constraint, parse
from paretrim.tracking.front import Objective, baseline_metrics, feasible, trial_front
from paretrim.tracking.records import Preview, TrialRecord

COSTS = (Objective("latency_ms", noise=0.03), Objective(SIZE), Objective("memory_bytes", noise=0.05))
ACCURACY = (Objective("accuracy", maximize=True), *COSTS)
ERRORS = (Objective("errors"), *COSTS)
BASELINE = {"latency_ms": 1.0, SIZE: 1000.0, "memory_bytes": 5000.0}
BOUNDS = [
    "latency_ms <= 60% of baseline",
    "size_bytes <= 500",
    "memory_bytes <= baseline - 1000",
    "accuracy >= baseline - 0.05",
    "size_bytes >= 100",
]


def trial(number: int, score: Mapping[str, float], costs: Mapping[str, float], **changes: object) -> TrialRecord:
    """Return a record whose score is known to a standard error of 0.01."""
    scored = [Measurement(name, value, value - 0.02, value + 0.02) for name, value in score.items()]
    found = (*scored, *(Measurement(name, value) for name, value in costs.items()))
    record = TrialRecord(number, "search" if number else "baseline", "complete", measurements=found)
    return replace(record, **changes)  # type: ignore[arg-type]


def preview(**costs: float) -> Preview:
    return Preview(tuple(Measurement(name, value) for name, value in costs.items()))


def accurate(number: int, accuracy: float, latency: float, size: float, memory: float = 4000.0) -> TrialRecord:
    return trial(number, {"accuracy": accuracy}, {"latency_ms": latency, SIZE: size, "memory_bytes": memory})


BASE = accurate(0, 0.95, latency=1.0, size=1000.0, memory=5000.0)
GOOD = accurate(1, 0.95, 0.4, 300.0)
GATE = Gate("accuracy", ACCURACY, ())
NAMES, ODD = st.sampled_from(sorted(BASELINE)), st.sampled_from([math.nan, math.inf])
SHARES = st.floats(0.02, 1.2).map(lambda share: round(share, 3))


@st.composite
def histories(draw: st.DrawFn, metric: str) -> list[TrialRecord]:
    """Return a baseline and some trials; some of them were previewed, crowded, stopped or failed."""
    records = [trial(0, {metric: 0.9}, BASELINE)]
    for number in range(1, draw(st.integers(1, 12))):
        costs = {name: value * draw(SHARES) for name, value in BASELINE.items()}
        crowded = Measurement("latency_crowded", float(draw(st.integers(0, 4)) == 0))
        record = trial(number, {metric: draw(st.integers(60, 100)) / 100}, costs)
        record = replace(record, measurements=(*record.measurements, crowded))
        if draw(st.booleans()):
            early = preview(**{name: value * draw(st.floats(0.9, 1.5)) for name, value in costs.items()})
            record = replace(record, preview=early)
        if draw(st.integers(0, 6)) == 0:
            record = replace(record, state="failed", measurements=())
        records.append(record)
    return records


@st.composite
def outcomes(draw: st.DrawFn, metric: str, floor: Mapping[str, float], hope: float, maximize: bool) -> dict[str, float]:
    """Return how a candidate may come out within what the gate claims: no better than hoped, nowhere below its floor."""
    worse = draw(st.floats(0.0, 0.5))
    score = hope - worse if maximize else hope + worse
    return {metric: score, **{name: value * draw(st.floats(1.0, 3.0)) for name, value in floor.items()}}


def out_of_reach(outcome: Mapping[str, float], records: Sequence[TrialRecord], gate: Gate, tie: float) -> bool:
    """Tell, by comparing with every trial, whether an outcome is infeasible or beaten but for a tie in the score."""
    base = baseline_metrics(records)
    if not feasible(outcome, [c for c in gate.constraints if c.metric != gate.metric], base):
        return True
    for record in trial_front(records, gate.objectives, gate.constraints):
        nowhere, somewhere = True, False
        for o in gate.objectives:
            mine, theirs = outcome[o.name], record.metrics[o.name]
            if o.name == gate.metric:
                nowhere &= theirs >= mine - tie - 1e-12 if o.maximize else theirs <= mine + tie + 1e-12
            else:
                nowhere &= o.box(theirs) <= o.box(mine)
                somewhere |= o.box(theirs) < o.box(mine)
        if nowhere and somewhere:
            return True
    return False


@settings(max_examples=300)
@given(st.data())
def test_what_is_stopped_could_not_matter(data: st.DataObject) -> None:
    objectives = data.draw(st.sampled_from([ACCURACY, ERRORS]))
    metric, maximize = objectives[0].name, objectives[0].maximize
    records = data.draw(histories(metric))
    texts = data.draw(st.lists(st.sampled_from([b for b in BOUNDS if maximize or "accuracy" not in b]), max_size=2))
    gate = Gate(metric, objectives, tuple(parse(text) for text in texts))
    costs = {name: value * data.draw(st.floats(0.3, 1.5)) for name, value in BASELINE.items()}
    hope = data.draw(st.none() | st.floats(0.5, 1.1))
    early = preview(**costs)
    if not gate.why_hopeless(early, records, hope):
        return
    scores = [r.metrics[metric] for r in records if r.complete]
    best = max(scores) if maximize else min(scores)
    claimed = best if hope is None else min(best, hope) if maximize else max(best, hope)
    floor = best_case(early, records, objectives)
    for _ in range(5):
        outcome = data.draw(outcomes(metric, floor, claimed, maximize))
        assert out_of_reach(outcome, records, gate, tie=0.01)
    exactly = {metric: claimed, **floor}
    assert out_of_reach(exactly, records, gate, tie=0.01)


@given(st.data())
def test_nothing_is_stopped_while_something_is_unknown(data: st.DataObject) -> None:
    known = data.draw(st.sets(st.sampled_from(sorted(BASELINE)), max_size=2))
    early = preview(**{name: BASELINE[name] * 5.0 for name in known})
    best = accurate(1, 1.0, 0.001, 1.0, 1.0)
    assert not GATE.why_hopeless(early, [BASE, best])
    nowhere = preview(**{**{name: value * 5.0 for name, value in BASELINE.items()}, data.draw(NAMES): data.draw(ODD)})
    assert not Gate("accuracy", ACCURACY, ()).why_hopeless(nowhere, [BASE, best])
    bounded = Gate("accuracy", ACCURACY, (parse("latency_ms <= 50% of baseline"),))
    assert not bounded.why_hopeless(preview(latency_ms=data.draw(ODD)), [BASE, best])
    # Nor of a score that is taken only after training, such as a cross-validated one.
    more = (Objective("accuracy_cv", maximize=True), *COSTS)
    done = [replace(r, measurements=(*r.measurements, Measurement("accuracy_cv", 0.9))) for r in (BASE, best)]
    assert not Gate("accuracy", more, ()).why_hopeless(preview(latency_ms=9.0, size_bytes=9e3, memory_bytes=9e4), done)


@pytest.mark.parametrize("bound", [None, *BOUNDS])
def test_nothing_is_stopped_before_the_baseline_is_done(bound: str | None) -> None:
    gate = Gate("accuracy", ACCURACY, () if bound is None else (parse(bound),))
    poor = preview(latency_ms=90.0, size_bytes=90_000.0, memory_bytes=90_000.0)
    failed = replace(BASE, state="failed", measurements=())
    for records in ([], [GOOD], [failed, GOOD]):
        assert not gate.why_hopeless(poor, records)


@pytest.mark.parametrize(
    ("bound", "costs", "stopped"),
    [
        ("latency_ms <= 50% of baseline", (0.53, 900.0), True),
        ("latency_ms <= 50% of baseline", (0.51, 900.0), False),  # within the noise of 3%
        ("size_bytes <= 300", (0.2, 430.0), True),
        ("size_bytes <= 300", (0.2, 420.0), False),  # packed files lose up to 30% in training
        ("size_bytes <= baseline - 600", (0.2, 572.0), True),
        ("size_bytes <= baseline - 600", (0.2, 571.0), False),
        ("size_bytes >= 500", (0.2, 400.0), False),  # which more bytes would still meet
        ("accuracy >= baseline - 0.01", (0.2, 400.0), False),
        ("prefer latency_ms <= 10% of baseline", (0.2, 400.0), False),
    ],
)
def test_a_hard_bound_that_cannot_be_met_is_told(bound: str, costs: tuple[float, float], stopped: bool) -> None:
    gate = Gate("accuracy", ACCURACY, (parse(bound),))
    why = gate.why_hopeless(preview(latency_ms=costs[0], size_bytes=costs[1], memory_bytes=4000.0), [BASE])
    assert bool(why) == stopped
    assert not stopped or bound in why


def test_a_bound_relative_to_what_the_baseline_lacks_stops_nothing() -> None:
    gate = Gate("accuracy", ACCURACY, (Constraint("energy_mj <= 50% of baseline", "energy_mj", True, 0.5, 0.0),))
    assert not gate.why_hopeless(preview(energy_mj=3.0, latency_ms=0.1, size_bytes=10.0, memory_bytes=100.0), [BASE])


CANDIDATE = preview(latency_ms=0.5, size_bytes=600.0, memory_bytes=5000.0)


def test_the_rival_is_named_with_its_numbers() -> None:
    why = GATE.why_hopeless(CANDIDATE, [BASE, GOOD])
    assert why == (
        "not trained: whatever it scores, trial 1 is no worse anywhere "
        "(accuracy 0.95, latency_ms 0.4, size_bytes 300, memory_bytes 4000)"
    )


@pytest.mark.parametrize(
    ("rival", "hope", "stopped"),
    [
        (accurate(1, 0.95, 0.4, 300.0), None, True),
        (accurate(1, 0.945, 0.4, 300.0), None, True),  # within a standard error of the best score
        (accurate(1, 0.93, 0.4, 300.0), None, False),
        (accurate(1, 0.93, 0.4, 300.0), 0.935, True),  # it is not expected to score better than that
        (accurate(1, 0.93, 0.4, 300.0), 0.945, False),
        (accurate(1, 0.95, 0.4, 300.0), 2.0, True),  # nothing scored better than the best so far
        (accurate(1, 0.95, 0.4, 700.0), None, False),
        (accurate(1, 0.95, 0.55, 300.0), None, False),
        (accurate(1, 0.95, 0.49, 420.0, 4990.0), None, False),  # ties in all costs: it stays beside the rival
    ],
)
def test_a_candidate_is_held_against_each_trial(rival: TrialRecord, hope: float | None, stopped: bool) -> None:
    assert bool(GATE.why_hopeless(CANDIDATE, [BASE, rival], hope)) == stopped


@pytest.mark.parametrize(
    "useless", [replace(GOOD, state="failed", measurements=()), replace(GOOD, state="stopped", measurements=())]
)
def test_only_trials_of_the_front_are_rivals(useless: TrialRecord) -> None:
    assert not GATE.why_hopeless(CANDIDATE, [BASE, useless])
    crowded = replace(GOOD, measurements=(*GOOD.measurements, Measurement("latency_crowded", 1.0)))
    assert not GATE.why_hopeless(CANDIDATE, [BASE, crowded])
    bounded = Gate("accuracy", ACCURACY, (parse("size_bytes >= 400"),))  # which trial 1 breaks
    assert not bounded.why_hopeless(CANDIDATE, [BASE, GOOD])


def test_of_a_metric_that_is_no_objective_costs_alone_decide() -> None:
    gate = Gate("accuracy", COSTS, ())
    poor = accurate(1, 0.1, 0.4, 300.0)
    assert gate.why_hopeless(CANDIDATE, [BASE, poor])
    bounded = Gate("accuracy", COSTS, (parse("accuracy >= baseline - 0.05"),))
    assert not bounded.why_hopeless(CANDIDATE, [BASE, poor])


def test_the_interval_of_a_cost_counts() -> None:
    early = Preview((Measurement("latency_ms", 0.5, 0.3, 0.7), Measurement(SIZE, 600.0)))
    assert best_case(early, [BASE], ACCURACY) == {"latency_ms": pytest.approx(0.3 * 0.97), SIZE: pytest.approx(420.0)}


def test_the_floor_of_a_size_is_learned() -> None:
    early = preview(size_bytes=500.0)
    few = [replace(accurate(i, 0.9, 0.5, 490.0), preview=early) for i in range(1, 5)]
    assert size_floor(few) == 0.7
    more = [*few, replace(accurate(5, 0.9, 0.5, 450.0), preview=early)]
    assert size_floor(more) == pytest.approx(0.9 * 0.95)
    assert size_floor([*more, replace(accurate(6, 0.9, 0.5, 1.0), preview=early, state="failed", measurements=())]) == (
        pytest.approx(0.9 * 0.95)
    )
