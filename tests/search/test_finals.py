"""The end of a search, played by a clock that says what the test needs; the rest is a real search's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from paretrim.evaluators.evaluator import Bench
from paretrim.evaluators.latency import Contest, Timed
from paretrim.evaluators.measurement import Measurement
from paretrim.search import finals
from paretrim.search.context import TrialContext
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import CROWDED, SEARCHED, crowded

from .conftest import a_search, tiny_job


@dataclass(frozen=True)
class Seen:
    """What a trial's record is made to say.

    Attributes:
        accuracy: Its score.
        latency_ms: As it was timed in the search.
        low: Lower end of that latency's interval; by default a hundredth below.
        disturbed: Whether that latency does not count.
    """

    accuracy: float
    latency_ms: float
    low: float | None = None
    disturbed: bool = False


@dataclass
class Clock:
    """Times models as it was told to, in the place of a measuring process.

    Attributes:
        numbers: Trials by the hash of their model file.
        ratios: What each trial's latency is to the baseline.
        disturbed: Trials whose times do not count.
        contests: Which trials were timed together, in order.
    """

    numbers: Mapping[str, int]
    ratios: Mapping[int, float]
    disturbed: set[int] = field(default_factory=set)
    contests: list[list[int]] = field(default_factory=list)

    def __call__(
        self, models: Sequence[Path], bench: Bench, quiet_ms: float | None, *, throughput: bool = False
    ) -> tuple[Contest, int]:
        assert models[0] == bench.baseline
        assert quiet_ms == bench.reference_ms
        numbers = [self.numbers[sha256(path.read_bytes()).hexdigest()] for path in models]
        self.contests.append(numbers[1:])
        return Contest(tuple(map(self._timed, numbers)), {}, bool(self.disturbed), None, None), 1

    def _timed(self, number: int) -> Timed:
        ratio = self.ratios.get(number, 1.0)
        doubt = "somebody else was there" if number in self.disturbed else ""
        return Timed((ratio, ratio, ratio), (ratio, ratio * 0.99, ratio * 1.01), {}, 6, 100, doubt)


@dataclass
class Stage:
    """A search at its end.

    Attributes:
        result: The search.
        clock: What times it.
        settle: Times the front anew.
        said: What the user was told.
        reference_ms: The baseline's latency when the search began.
    """

    result: Result
    clock: Clock
    settle: Callable[[], None]
    said: list[str]
    reference_ms: float

    @property
    def front(self) -> list[int]:
        return [row.trial for row in self.result.require_report().front]


Staged = Callable[..., Stage]


@pytest.fixture
def staged(finished: Result, context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staged:
    """Return what makes the end of a search of what its trials are to say; they are timed in units of a reference."""
    made = finished.study.records()
    plan = replace(context.stations[0], reference_ms=2.0)

    def stage(seen: Mapping[int, Seen], ratios: Mapping[int, float], disturbed: Sequence[int] = ()) -> Stage:
        records = [_saying(made[number], what) for number, what in seen.items()]
        result = a_search(Store(tmp_path), records, tiny_job(objectives=["accuracy", "latency_ms"]))
        result.folder.artifacts.symlink_to(finished.folder.artifacts)
        clock = Clock({record.model_sha256: record.number for record in records}, ratios, set(disturbed))
        monkeypatch.setattr(finals, "time_quietly", clock)
        said: list[str] = []

        def settle() -> None:
            finals.settle(result, plan, context.splits.validation, said.append)

        return Stage(result, clock, settle, said, 2.0)

    return stage


def _saying(record: TrialRecord, seen: Seen) -> TrialRecord:
    low = seen.latency_ms * 0.99 if seen.low is None else seen.low
    told = (
        Measurement("accuracy", seen.accuracy),
        Measurement("latency_ms", seen.latency_ms, low, seen.latency_ms * 1.01, "made up"),
        Measurement("latency_ratio", seen.latency_ms / 2.0),
        Measurement(CROWDED, float(seen.disturbed)),
    )
    names = {m.name for m in told}
    return replace(record, measurements=(*(m for m in record.measurements if m.name not in names), *told))


BASE = Seen(0.9, 2.0)


def test_the_artifacts_of_the_search_can_be_told_apart(finished: Result) -> None:
    assert len({record.model_sha256 for record in finished.records}) == len(finished.records)


def test_the_front_is_timed_together_and_the_new_numbers_count(staged: Staged) -> None:
    stage = staged({0: BASE, 3: Seen(0.8, 1.0), 4: Seen(0.7, 0.5), 5: Seen(0.6, 1.5)}, {3: 0.4, 4: 0.3})
    stage.settle()
    assert stage.clock.contests == [[0, 3, 4]]
    now = {record.number: record.metrics for record in stage.result.records}
    assert now[3]["latency_ms"] == pytest.approx(0.4 * stage.reference_ms)
    assert (now[3][SEARCHED], now[3]["latency_ratio"]) == (1.0, 0.4)
    assert SEARCHED not in now[5]
    assert {m.how for m in stage.result.records[1].measurements if m.name == "latency_ratio"} == {
        "in turns with the baseline and 2 other finalists, when nothing trained"
    }
    assert stage.said == []


def test_a_settled_front_is_not_timed_again(staged: Staged) -> None:
    stage = staged({0: BASE, 3: Seen(0.8, 1.0)}, {3: 0.4})
    stage.settle()
    before, contests = stage.result.finals, list(stage.clock.contests)
    stage.settle()
    assert stage.clock.contests == contests
    assert stage.result.finals == before


def test_what_was_settled_is_found_when_the_search_is_opened_again(staged: Staged) -> None:
    stage = staged({0: BASE, 3: Seen(0.8, 1.0)}, {3: 0.4})
    stage.settle()
    again = Result(stage.result.name, stage.result.job, stage.result.store, stage.result.folder, stage.result.reopen())
    assert again.finals == stage.result.finals
    assert again.records == stage.result.records


def test_a_disturbed_trial_that_may_belong_to_the_front_is_timed_and_comes_onto_it(staged: Staged) -> None:
    stage = staged({0: BASE, 3: Seen(0.8, 1.0), 4: Seen(0.85, 1.9, 0.9, disturbed=True)}, {3: 0.5, 4: 0.55})
    assert stage.front == [0, 3]
    stage.settle()
    assert stage.front == [0, 4, 3]
    assert not crowded(stage.result.records[2])


def test_of_a_disturbed_latency_the_lower_end_decides_who_is_timed_again(staged: Staged) -> None:
    hopeless = Seen(0.75, 5.0, 1.5, disturbed=True)  # trial 3 is better and faster than even that end
    hopeful = Seen(0.75, 5.0, 0.8, disturbed=True)
    stage = staged({0: BASE, 3: Seen(0.8, 1.0), 4: hopeless, 5: hopeful}, {3: 0.5, 5: 0.6})
    stage.settle()
    assert stage.clock.contests == [[0, 3, 5]]
    assert stage.front == [0, 3]
    assert crowded(stage.result.records[2])


def test_what_comes_up_when_another_is_corrected_is_timed_in_a_second_round(staged: Staged) -> None:
    # Trial 3 hides trial 4 until it proves slow.
    stage = staged({0: BASE, 3: Seen(0.8, 0.6), 4: Seen(0.75, 1.0)}, {3: 0.8, 4: 0.5})
    assert stage.front == [0, 3]
    stage.settle()
    assert stage.clock.contests == [[0, 3], [0, 3, 4]]
    assert stage.front == [0, 3, 4]


def test_on_a_machine_that_never_comes_to_rest_it_ends_and_says_so(staged: Staged) -> None:
    seen = {0: BASE, 3: Seen(0.8, 1.0), 4: Seen(0.85, 1.9, 0.9, disturbed=True)}
    stage = staged(seen, {3: 0.9, 4: 0.55}, disturbed=[3, 4])
    stage.settle()
    assert len(stage.clock.contests) == 3
    assert stage.front == [0, 3]
    now = {record.number: record.metrics for record in stage.result.records}
    assert now[3]["latency_ms"] == 1.0  # undisturbed, as the search took it
    assert (now[4]["latency_ms"], now[4][CROWDED]) == (1.1, 1.0)
    (told,) = stage.said
    assert told.startswith("2 of the latencies on onnxruntime were disturbed")
    assert told.endswith(f"paretrim resume {stage.result.name}")


def test_when_the_machine_is_quieter_a_later_run_takes_the_disturbed_ones_again(staged: Staged) -> None:
    stage = staged({0: BASE, 3: Seen(0.8, 1.0)}, {3: 0.4}, disturbed=[3])
    stage.settle()
    stage.clock.disturbed.clear()
    stage.said.clear()
    stage.settle()
    assert stage.result.records[1].metrics["latency_ms"] == pytest.approx(0.8)
    assert stage.said == []


def test_models_that_are_too_large_together_are_timed_in_several_contests(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finals, "_TOGETHER_BYTES", 1)
    stage = staged({0: BASE, 3: Seen(0.8, 1.0), 4: Seen(0.7, 0.5)}, {3: 0.5, 4: 0.25})
    stage.settle()
    assert stage.clock.contests == [[0], [3], [4]]
    assert stage.front == [0, 3, 4]


def test_scores_are_compared_by_answers_and_not_by_their_values(
    staged: Staged, finished: Result, context: TrialContext
) -> None:
    # The baseline and its float16 form answer alike, whatever their records are made to say.
    stage = staged({0: BASE, 1: Seen(0.2, 0.5)}, {})
    finals.compare(stage.result, context.stations[0], context.metric, context.splits.validation)
    base, half = (finished.study.records()[number].sha256 for number in (0, 1))
    assert stage.result.alike == {frozenset((base, half))}
    assert {row.trial: row.ties for row in stage.result.require_report().front} == {
        0: {"accuracy": (1,)},
        1: {"accuracy": (0,)},
    }


def test_a_search_compares_all_pairs_of_its_front_and_of_nothing_else(finished: Result) -> None:
    report = finished.require_report()
    front = {row.sha256 for row in report.front}
    assert set().union(*finished.alike) <= front
    by_trial = {row.trial: row for row in report.front}
    for row in report.front:
        for name, others in row.ties.items():
            assert all(row.trial in by_trial[other].ties[name] for other in others)


def test_a_search_times_its_front_at_the_end(finished: Result) -> None:
    timed = finished.finals
    assert timed
    assert set(timed) <= {record.sha256 for record in finished.records}
    for final in timed.values():
        assert "when nothing trained" in final.ratio.how
        assert final.latency.value == pytest.approx(
            final.ratio.value * finished.study.noted("references")["onnxruntime"]
        )
