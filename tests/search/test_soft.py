"""Soft constraints in a search: they steer, and stop nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.study import StudyDirection

from paretrim.errors import UsageError
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.signature import Signature
from paretrim.search.candidate import Candidate
from paretrim.search.gate import Gate
from paretrim.search.guide import Guide, Habits
from paretrim.search.halving import Halving
from paretrim.search.judge import Terms, Thrift
from paretrim.search.mirror import Ending, Mirror
from paretrim.search.space import Space
from paretrim.search.store import Store
from paretrim.search.study import Asked
from paretrim.spaces.anatomy import Anatomy, Layer
from paretrim.spaces.dimension import Range
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.front import Objective, baseline_metrics
from paretrim.tracking.records import Epoch, Preview, TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import a_search, tiny_job

ACCURACY, LATENCY = Objective("accuracy", maximize=True), Objective("latency_ms")
SPACE = Space(
    (),
    Anatomy(
        (Layer("head", 40, True, True),),
        (),
        (),
        Signature.single((4,)),
    ),
    tuple(Range(f"pruning.ratio.{name}", 0.0, 1.0, neutral=0.0) for name in ("stem", "inner")),
)
SOFT = parse("prefer latency_ms <= 50% of baseline")


def made(number: int, stem: float, inner: float) -> TrialRecord:
    """Return a trial of a model that gets quicker, and a little worse, as either layer is cut."""
    cut = (stem + inner) / 2
    recipe = {"pruning.ratio.stem": stem, "pruning.ratio.inner": inner}
    return sample_record(number, accuracy=0.95 - 0.08 * cut, latency_ms=1.0 - 0.8 * cut, recipe=recipe)


RECORDS = [made(0, 0.0, 0.0), *(made(3 + i, i % 5 / 5, i // 5 / 5) for i in range(21))]


def asked_for(*constraints: str) -> list[float]:
    """Return the latencies of what a guide asks for in one batch."""
    terms = Terms("accuracy", (ACCURACY, LATENCY), tuple(map(parse, constraints)))
    guide = Guide(SPACE, terms, None, Habits(first=3, batch=8))
    found: list[float] = []
    while (values := guide.propose(RECORDS, [], lambda _: False)) is not None and len(found) < 8:
        stem, inner = (float(str(values[f"pruning.ratio.{name}"])) for name in ("stem", "inner"))
        found.append(made(99, stem, inner).metrics["latency_ms"])
    return found


def test_a_guide_asks_for_what_meets_a_soft_bound_that_it_otherwise_would_not_all() -> None:
    limit = 0.4
    free, steered = asked_for(), asked_for("prefer latency_ms <= 40% of baseline")
    assert free
    assert steered
    assert sum(ms > limit for ms in steered) < sum(ms > limit for ms in free)


def test_a_sampler_is_shown_worse_values_where_a_soft_bound_is_missed_and_no_constraint() -> None:
    mirror = Mirror(SPACE, [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], history=None)
    for number, missed in enumerate([0.0, 0.1, 50.0]):
        mirror.begin(number, {"pruning.ratio.stem": 0.5, "pruning.ratio.inner": 0.5})
        mirror.end(number, Ending((0.9, 2.0), (), missed))
    shown = [trial.values for trial in mirror.shown]
    assert shown == [[0.9, 2.0], pytest.approx([0.882, 2.04]), pytest.approx([0.72, 2.4])]
    assert not any(trial.constraints for trial in mirror.shown)


def test_the_study_keeps_the_true_values_and_no_constraint_of_a_soft_bound(tmp_path: Path) -> None:
    job = tiny_job(constraints=[SOFT.text], objectives=["accuracy", "latency_ms"])
    result = a_search(Store(tmp_path), [made(0, 0.0, 0.0), made(1, 0.2, 0.2)], job)
    trials = result.study._study.get_trials()
    assert [trial.values for trial in trials] == [[0.95, 1.0], pytest.approx([0.934, 0.84])]
    assert not any("constraints:c0" in trial.system_attrs for trial in trials)


def test_the_gate_stops_nothing_for_a_soft_bound() -> None:
    preview = Preview((Measurement("latency_ms", 5.0), Measurement("size_bytes", 1.0)))
    soft, hard = (Gate("accuracy", (ACCURACY, LATENCY), (parse(f"{word}latency_ms <= 1"),)) for word in ("prefer ", ""))
    assert "breaks 'latency_ms <= 1'" in hard.why_hopeless(preview, RECORDS[:1])
    assert "breaks" not in soft.why_hopeless(preview, RECORDS[:1])


def test_the_rungs_take_no_notice_of_a_soft_bound() -> None:
    def verdicts(constraint: str) -> list[str]:
        thrift = Thrift(Terms("accuracy", (ACCURACY, LATENCY), (parse(constraint),)), Halving(4, 2), [])
        found = []
        for number in range(3, 9):
            # The later, the better and the slower: none beats another.
            preview = Preview((Measurement("latency_ms", 0.1 * number),))
            candidate = Candidate(Asked(number, "search", Recipe.of({})))
            candidate = replace(candidate, preview=preview, epochs=[Epoch(0.1, 0.5 + 0.05 * number)])
            found.append(thrift.verdict(candidate, RECORDS[:1]))
        return found

    assert verdicts("prefer latency_ms <= 0.45") == verdicts("latency_ms <= 100")


def test_by_default_a_point_that_meets_what_is_preferred_is_picked(tmp_path: Path) -> None:
    def point(number: int, accuracy: float, latency_ms: float, size: float) -> TrialRecord:
        return sample_record(number, accuracy=accuracy, latency_ms=latency_ms, size_bytes=size)

    records = [point(0, 0.9, 2.0, 9000.0), point(3, 0.895, 1.0, 4000.0), point(4, 0.896, 1.2, 1000.0)]
    plain = a_search(Store(tmp_path / "plain"), records, tiny_job())
    steered = a_search(Store(tmp_path / "soft"), records, tiny_job(constraints=["prefer size_bytes <= 2000"]))
    none_meets = a_search(Store(tmp_path / "none"), records, tiny_job(constraints=["prefer size_bytes <= 20"]))
    assert [r.pick().trial for r in (plain, steered, none_meets)] == [3, 4, 3]
    assert steered.pick(where="accuracy >= 0.8").trial == 3
    assert [row.trial for row in steered.require_report().front] == [row.trial for row in plain.require_report().front]
    with pytest.raises(UsageError, match="leave 'prefer' out"):
        steered.pick(where="prefer accuracy >= 0.8")


def test_a_baseline_relative_soft_bound_is_read_from_the_job() -> None:
    (bound,) = tiny_job(constraints=[SOFT.text]).bounds
    assert bound == SOFT
    assert bound.limit(baseline_metrics(RECORDS)) == 0.5
