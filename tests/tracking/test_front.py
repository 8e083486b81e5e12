from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.tracking.constraints import parse
from paretrim.tracking.front import (
    Objective,
    baseline_metrics,
    contenders,
    feasible,
    front,
    hypervolume,
    trial_front,
)
from paretrim.tracking.nearmisses import binding, nearest_misses
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import CROWDED, crowded
from paretrim.tracking.testing import OBJECTIVES, sample_record

Point = dict[str, float]
NAMES = ("a", "b", "c")
# Few different values, so that ties and dominance are frequent.
VALUES = st.one_of(st.sampled_from([0.5, 1.0, 1.01, 1.02, 1.04, 2.0]), st.floats(0.001, 1000))
POINTS = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)), max_size=12)
OBJECTIVE_LISTS = st.tuples(
    *(st.builds(Objective, st.just(name), st.booleans(), st.sampled_from([0.0, 0.03, 0.2])) for name in NAMES)
)
EXACT = tuple(Objective(name) for name in NAMES)
INTEGERS = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 2).map(float))), max_size=5)
TWO = (Objective("accuracy", maximize=True), Objective("latency_ms"))
METRICS = st.fixed_dictionaries({"accuracy": st.floats(0, 1), "latency_ms": st.floats(0, 4)})
BASE = sample_record(0, accuracy=0.8, latency_ms=2.0)
BOUNDS = (parse("accuracy >= 0.78"), parse("latency_ms <= 1.0"))


def boxes_of(points: list[Point], objectives: tuple[Objective, ...]) -> list[tuple[float, ...]]:
    return [tuple(o.box(point[o.name]) for o in objectives) for point in points]


def trials(*metrics: Point) -> list[TrialRecord]:
    """Return the baseline, and one trial for each of these metrics."""
    return [BASE, *(sample_record(number, values) for number, values in enumerate(metrics, 3))]


def numbers(records: list[TrialRecord]) -> list[int]:
    return [record.number for record in records]


def beats(a: Point, b: Point) -> bool:
    """Tell whether the front of two points is the first one alone."""
    return front([a, b], EXACT) == [0]


@given(INTEGERS)
def test_no_point_dominates_its_equal(points: list[Point]) -> None:
    assert not any(beats(point, dict(point)) for point in points)


@given(INTEGERS)
def test_dominance_is_transitive_and_one_way(points: list[Point]) -> None:
    beaten = {(i, j) for i, a in enumerate(points) for j, b in enumerate(points) if beats(a, b)}
    for i, j, k in product(range(len(points)), repeat=3):
        assert not {(i, j), (j, i)} <= beaten
        assert (i, k) in beaten or not {(i, j), (j, k)} <= beaten


@given(POINTS, OBJECTIVE_LISTS)
def test_dominance_has_no_cycles(points: list[Point], objectives: tuple[Objective, ...]) -> None:
    left = points
    while left:
        first = set(front(left, objectives))
        assert first, "each of these points is dominated by another one of them"
        left = [point for i, point in enumerate(left) if i not in first]


@given(POINTS, OBJECTIVE_LISTS)
def test_the_front_is_what_the_definition_says(points: list[Point], objectives: tuple[Objective, ...]) -> None:
    boxes = boxes_of(points, objectives)
    wanted = []
    for i, mine in enumerate(boxes):
        beaten = False
        for other in boxes:
            nowhere_worse = all(other[k] <= mine[k] for k in range(len(mine)))
            beaten = beaten or (nowhere_worse and other != mine)
        if not beaten:
            wanted.append(i)
    assert front(points, objectives) == wanted


@given(POINTS)
def test_without_noise_the_front_is_that_of_the_plain_values(points: list[Point]) -> None:
    objectives = (Objective("a", maximize=True), Objective("b"))
    wanted = [
        i
        for i, p in enumerate(points)
        if not any(q["a"] >= p["a"] and q["b"] <= p["b"] and (q["a"], q["b"]) != (p["a"], p["b"]) for q in points)
    ]
    assert front(points, objectives) == wanted


@given(POINTS.filter(bool), OBJECTIVE_LISTS)
def test_the_front_of_some_points_is_never_empty(points: list[Point], objectives: tuple[Objective, ...]) -> None:
    assert front(points, objectives)


@given(POINTS, OBJECTIVE_LISTS)
def test_points_in_one_box_stay_or_go_together(points: list[Point], objectives: tuple[Objective, ...]) -> None:
    boxes, chosen = boxes_of(points, objectives), set(front(points, objectives))
    assert all((i in chosen) == (j in chosen) for i, a in enumerate(boxes) for j, b in enumerate(boxes) if a == b)


@given(POINTS, OBJECTIVE_LISTS, st.data())
def test_the_order_of_points_does_not_matter(
    points: list[Point], objectives: tuple[Objective, ...], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(points))))
    shuffled = front([points[i] for i in order], objectives)
    assert {order[i] for i in shuffled} == set(front(points, objectives))


def test_the_front_of_nothing_is_empty() -> None:
    assert front([], TWO) == []


def test_all_of_several_equal_points_are_on_the_front() -> None:
    assert front([{"accuracy": 0.9, "latency_ms": 1.0}] * 3, TWO) == [0, 1, 2]


def test_a_difference_within_the_noise_is_a_tie() -> None:
    points = [{"accuracy": 0.9, "latency_ms": 1.001}, {"accuracy": 0.9, "latency_ms": 1.02}]
    assert front(points, (Objective("accuracy", maximize=True), Objective("latency_ms", noise=0.03))) == [0, 1]
    assert front(points, TWO) == [0]


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9), st.booleans(), st.sampled_from([0.0, 0.03, 0.2]))
def test_a_better_value_never_has_a_worse_box(x: float, y: float, maximize: bool, noise: float) -> None:
    objective = Objective("a", maximize, noise)
    worse, better = (min(x, y), max(x, y)) if maximize else (max(x, y), min(x, y))
    assert objective.box(better) <= objective.box(worse)


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9), st.sampled_from([0.03, 0.2]))
def test_a_box_is_as_wide_as_the_noise(x: float, y: float, noise: float) -> None:
    low, high = min(x, y), max(x, y)
    objective = Objective("a", noise=noise)
    if objective.box(low) == objective.box(high):
        assert high / low <= (1 + noise) * (1 + 1e-9)
    if high / low >= (1 + noise) * (1 + 1e-9):
        assert objective.box(low) < objective.box(high)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("smaller", "larger"), [(0.0, 0.5), (0.0, 1.0), (-5.0, 0.5)])
def test_boxes_are_in_order_across_zero(smaller: float, larger: float, maximize: bool) -> None:
    objective = Objective("a", maximize, noise=0.05)
    better, worse = (larger, smaller) if maximize else (smaller, larger)
    assert objective.box(better) < objective.box(worse)


def test_a_point_is_feasible_when_it_meets_all_constraints() -> None:
    bounds = [parse("accuracy >= baseline - 0.05"), parse("latency_ms <= 50% of baseline")]
    points = [(0.76, 0.9), (0.74, 0.9), (0.76, 1.1)]
    met = [feasible({"accuracy": a, "latency_ms": ms}, bounds, BASE.metrics) for a, ms in points]
    assert met == [True, False, False]


def test_any_point_is_feasible_without_constraints() -> None:
    assert feasible({}, [], {})


def test_the_trial_front_leaves_out_infeasible_and_incomplete_trials() -> None:
    records = trials({"accuracy": 0.9, "latency_ms": 1.0}, {"accuracy": 0.99, "latency_ms": 1.5})
    records.append(sample_record(9, state="failed"))
    assert numbers(trial_front(records, TWO, [parse("latency_ms <= 1.2")])) == [3]


def test_the_trial_front_is_sorted_by_the_first_objective() -> None:
    records = trials(*({"accuracy": a, "latency_ms": ms} for a, ms in [(0.7, 0.5), (0.9, 1.5), (0.85, 1.0)]))
    assert numbers(trial_front(records, TWO, [])) == [4, 5, 3]


def test_the_baseline_can_be_on_the_front() -> None:
    assert numbers(trial_front(trials({"accuracy": 0.7, "latency_ms": 1.0}), TWO, [])) == [0, 3]


DISTURBED = st.fixed_dictionaries(
    {"accuracy": st.floats(0, 1), "latency_ms": st.floats(0, 4), CROWDED: st.sampled_from([0.0, 1.0])}
)


def test_a_trial_whose_latency_was_disturbed_is_off_the_front_until_it_is_asked_for() -> None:
    records = trials({"accuracy": 0.9, "latency_ms": 1.0, CROWDED: 1.0}, {"accuracy": 0.85, "latency_ms": 1.5})
    assert numbers(trial_front(records, TWO, [])) == [4]
    assert numbers(trial_front(records, TWO, [], disturbed=True)) == [3]


def test_contenders_are_the_front_and_what_would_be_on_it_at_its_best() -> None:
    def timed(number: int, accuracy: float, latency_ms: float, low_ms: float) -> TrialRecord:
        made = sample_record(number, {"accuracy": accuracy, "latency_ms": latency_ms, CROWDED: 1.0})
        within = [replace(m, low=low_ms) if m.name == "latency_ms" else m for m in made.measurements]
        return replace(made, measurements=tuple(within))

    quiet = trials({"accuracy": 0.9, "latency_ms": 1.0}, {"accuracy": 0.8, "latency_ms": 1.1})
    disturbed = [timed(6, 0.85, 1.5, 0.9), timed(7, 0.85, 1.5, 1.2), timed(8, 0.95, 1.5, 1.4)]
    assert sorted({r.number for r in contenders([*quiet, *disturbed], TWO, [])}) == [3, 6, 8]


def test_a_disturbed_baseline_stays_on_the_front() -> None:
    base = sample_record(0, {CROWDED: 1.0}, accuracy=0.8, latency_ms=2.0)
    disturbed = sample_record(3, {CROWDED: 1.0}, accuracy=0.7, latency_ms=1.0)
    assert numbers(trial_front([base, disturbed], TWO, [])) == [0]


@given(st.lists(DISTURBED, max_size=8), st.booleans())
def test_the_front_is_never_empty_when_something_undisturbed_is_feasible(
    points: list[Point], baseline_disturbed: bool
) -> None:
    base = sample_record(0, {CROWDED: float(baseline_disturbed)}, accuracy=0.8, latency_ms=2.0)
    records = [base, *trials(*points)[1:]]
    candidates = [r for r in records if feasible(r.metrics, BOUNDS, base.metrics) and not crowded(r)]
    chosen = trial_front(records, TWO, BOUNDS)
    assert chosen or not candidates
    assert not any(crowded(r) for r in chosen if r.number)


@given(st.lists(DISTURBED, max_size=8))
def test_disturbed_trials_neither_beat_others_nor_add_hypervolume(points: list[Point]) -> None:
    records = trials(*points)
    quiet = [r for r in records if not crowded(r)]
    assert trial_front(records, TWO, []) == trial_front(quiet, TWO, [])
    assert hypervolume(records, TWO, []) == hypervolume(quiet, TWO, [])


def test_there_are_no_baseline_metrics_while_the_baseline_is_not_done() -> None:
    assert baseline_metrics([sample_record(0, state="failed"), sample_record(3)]) == {}


@given(st.lists(METRICS, max_size=6), METRICS)
def test_the_hypervolume_never_shrinks_and_stays_within_its_box(points: list[Point], another: Point) -> None:
    before = hypervolume(trials(*points), TWO, [])
    after = hypervolume(trials(*points, another), TWO, [])
    assert 0.0 <= before <= after + 1e-12
    assert after <= 1.0 + 1e-12


@given(st.lists(METRICS, max_size=6))
def test_the_hypervolume_is_that_of_the_front_alone(points: list[Point]) -> None:
    records = trials(*points)
    chosen = trial_front(records, TWO, [])
    alone = hypervolume([BASE, *(r for r in chosen if r.number)], TWO, [])
    assert alone == pytest.approx(hypervolume(records, TWO, []))


# The baseline scores 0.8 in 2 ms: the box runs from 0.7 to 0.9, and from 0 to 4 ms; the baseline alone fills a quarter.
HAND_COMPUTED = [
    ([], 0.5 * 0.5),
    ([(0.8, 1.0)], 0.5 * 0.75),
    ([(0.9, 1.0)], 1.0 * 0.75),
    ([(0.95, 1.0)], 1.0 * 0.75),
    ([(0.7, 0.1)], 0.5 * 0.5),
    ([(0.6, 0.1)], 0.5 * 0.5),
    ([(0.85, 2.0)], 0.75 * 0.5),
    ([(0.85, 3.0)], 0.5 * 0.5 + 0.25 * 0.25),
    ([(0.9, 0.0)], 1.0),
    ([(0.8, 1.0), (0.85, 1.5)], 0.5 * 0.75 + 0.25 * 0.625),
    ([(0.8, 1.0), (0.8, 1.0)], 0.5 * 0.75),
]


@pytest.mark.parametrize(("points", "wanted"), HAND_COMPUTED)
def test_the_hypervolume_is_as_computed_by_hand(points: list[tuple[float, float]], wanted: float) -> None:
    records = trials(*({"accuracy": a, "latency_ms": ms} for a, ms in points))
    assert hypervolume(records, TWO, []) == pytest.approx(wanted)


def test_the_hypervolume_of_a_score_above_one_reaches_a_tenth_of_it() -> None:
    objectives = (Objective("psnr", maximize=True), Objective("latency_ms"))
    records = [sample_record(0, psnr=20.0, latency_ms=2.0), sample_record(3, psnr=21.0, latency_ms=1.0)]
    assert hypervolume(records, objectives, []) == pytest.approx(0.75 * 0.75)


def test_an_infeasible_trial_adds_no_hypervolume() -> None:
    records = trials({"accuracy": 0.8, "latency_ms": 1.0}, {"accuracy": 0.75, "latency_ms": 0.1})
    assert hypervolume(records, TWO, [parse("accuracy >= baseline")]) == pytest.approx(0.375)


def test_there_is_no_hypervolume_without_a_baseline() -> None:
    assert hypervolume([sample_record(3)], OBJECTIVES, []) == 0.0


def test_nothing_binds_when_a_trial_meets_all_constraints() -> None:
    assert binding(trials({"accuracy": 0.79, "latency_ms": 0.9}), BOUNDS) is None


def test_nothing_binds_before_a_trial_is_done() -> None:
    assert binding([sample_record(3, state="failed")], BOUNDS) is None


def test_the_constraint_that_no_trial_meets_binds() -> None:
    bound = binding(trials({"accuracy": 0.7, "latency_ms": 1.5}, {"accuracy": 0.6, "latency_ms": 1.25}), BOUNDS)
    assert bound is not None
    assert bound[0].text == "latency_ms <= 1.0"
    assert bound[1] == pytest.approx(0.25)


def test_constraints_met_singly_but_never_together_bind_as_the_nearest_miss_breaks_them() -> None:
    records = trials({"accuracy": 0.70, "latency_ms": 0.9}, {"accuracy": 0.79, "latency_ms": 1.05})
    bound = binding(records, BOUNDS)
    assert bound is not None
    assert bound[0].text == "latency_ms <= 1.0"
    assert bound[1] == pytest.approx(0.05)


def test_the_nearest_misses_come_nearest_first_and_say_what_they_break() -> None:
    records = trials(
        {"accuracy": 0.39, "latency_ms": 2.0},
        {"accuracy": 0.9, "latency_ms": 1.1},
        {"accuracy": 0.76, "latency_ms": 1.2},
    )
    misses = nearest_misses(records, BOUNDS, count=3)
    assert [miss.record.number for miss in misses] == [4, 5, 0]
    assert [c.metric for c, _ in misses[0].broken] == ["latency_ms"]
    assert [c.metric for c, _ in misses[1].broken] == ["latency_ms", "accuracy"]


def test_a_trial_that_meets_all_constraints_is_not_a_miss() -> None:
    records = trials({"accuracy": 0.8, "latency_ms": 0.5})
    assert [miss.record.number for miss in nearest_misses(records, BOUNDS)] == [0]


@given(st.lists(METRICS, max_size=8))
def test_something_binds_exactly_when_nothing_is_feasible(points: list[Point]) -> None:
    records = trials(*points)
    bound = binding(records, BOUNDS)
    if any(feasible(record.metrics, BOUNDS, BASE.metrics) for record in records):
        assert bound is None
    else:
        assert bound is not None
        assert bound[1] > 0
        assert not math.isinf(bound[1])


@given(st.lists(METRICS, max_size=6))
def test_soft_constraints_change_neither_the_front_nor_the_hypervolume(points: list[Point]) -> None:
    records, soft = trials(*points), [parse("prefer latency_ms <= 0.5"), parse("prefer accuracy >= 0.99")]
    assert trial_front(records, TWO, [*BOUNDS, *soft]) == trial_front(records, TWO, BOUNDS)
    assert hypervolume(records, TWO, [*BOUNDS, *soft]) == hypervolume(records, TWO, BOUNDS)
