"""How a search comes to its end: the last phase, stopped and resumed; patience; training seconds; `paretrim stop`.

With real Ray and a real study, and trials that are made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paretrim.errors import UsageError
from paretrim.search.actor import TrialActor
from paretrim.search.backlog import Backlog
from paretrim.search.cli import app
from paretrim.search.context import TrialContext
from paretrim.search.driver import Outcome, drive
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Silence
from paretrim.search.result import objectives_of
from paretrim.search.store import JobFolder, Store
from paretrim.search.study import Asked, Study
from paretrim.search.trial import TrialRunner
from paretrim.tracking.records import Epoch, TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import tiny_job

TRIALS, POINTS, SEEDS = 6, 2, 3
FINALS = {"points": POINTS, "longer": 2, "seeds": SEEDS}


class MadeUp(TrialRunner):
    """Makes trials up, each smaller and worse than those before it, which all took 5 seconds of training."""

    def __init__(self, *_: Any) -> None:
        pass

    def run(self, asked: Asked, seconds: dict[str, float]) -> Iterator[Epoch | TrialRecord]:
        epochs = tuple(Epoch(0.5, 0.9) for _ in range(int(asked.recipe.number("recovery.epochs"))))
        yield from epochs
        seconds["recover"] = 5.0
        number = 0 if asked.kind == "baseline" else asked.number
        found = sample_record(number, accuracy=0.9 - number / 200, size_bytes=1e5 * 0.8**number)
        yield replace(
            found, kind=asked.kind, recipe=asked.recipe.values, seed=asked.recipe.seed, epochs=epochs, seconds=seconds
        )


class Alike(MadeUp):
    """Makes trials up of which none is better than another."""

    def run(self, asked: Asked, seconds: dict[str, float]) -> Iterator[Epoch | TrialRecord]:
        for event in super().run(asked, seconds):
            yield event if isinstance(event, Epoch) else replace(event, measurements=sample_record(0).measurements)


class MadeUpActor(TrialActor):
    Runner = MadeUp


class AlikeActor(TrialActor):
    Runner = Alike


class Tracker:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def logged(self) -> set[int]:
        return set(self.kept)

    def log_trial(self, record: TrialRecord) -> None:
        self.kept.append(record.number)

    def log_summary(self, summary: object) -> None:
        """Keep nothing."""


@dataclass
class Stops(Silence):
    """Asks for the end as `paretrim stop` does when a finalist has been trained, or lets the driver die then."""

    folder: JobFolder
    how: str

    def finished(self, record: TrialRecord) -> None:
        if record.kind == FINAL and self.how == "stop":
            self.folder.stop.touch()
        if record.kind == FINAL and self.how == "die":
            raise RuntimeError("the driver dies")


class Place:
    """A search that can be driven again and again."""

    def __init__(self, context: TrialContext, root: Path) -> None:
        self.context, self.store, self.tracker = context, Store(root), Tracker()
        self.folder = self.store.create("tiny")
        self.study = self._opened(create=True)
        self.study.begin(context.space.anchors(0))

    def _opened(self, *, create: bool = False) -> Study:
        objectives = objectives_of(tiny_job(), maximize=True)
        return Study(self.store.own.study, self.folder.name, objectives, (), 0, create=create)

    def drive(self, actor: type[TrialActor] = MadeUpActor, *, how: str = "", **budget: Any) -> Outcome:
        """Run until the budget is used, with the study read anew as a new process does."""
        job = tiny_job(
            budget={"trials": TRIALS, "parallel": 1, **budget},
            search={"preview": False, "warm_start": False, "finals": FINALS},
        )
        self.study = self._opened()
        backlog = Backlog(self.tracker, Silence())
        found = drive(job, self.context, self.study, backlog, self.folder, Stops(self.folder, how), actor)
        backlog.flush()
        return found

    def kinds(self, kind: str) -> list[TrialRecord]:
        return [record for record in self._opened().records() if record.kind == kind]


@dataclass(frozen=True)
class Course:
    """What a search had after each of its runs."""

    outcomes: Sequence[Outcome]
    records: Sequence[Sequence[TrialRecord]]
    finalists: Sequence[Sequence[int]]
    logged: Sequence[int]

    def finals(self, run: int) -> list[TrialRecord]:
        return [record for record in self.records[run] if record.kind == FINAL]


@pytest.fixture(scope="module")
def course(context: TrialContext, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A search that is stopped in its last phase, dies in it, ends, is resumed for nothing, and gets a larger budget."""
    place, outcomes, records, chosen = Place(context, tmp_path_factory.mktemp("course")), [], [], []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        records.append(place.study.records())
        chosen.append(place.study.noted("finalists")["numbers"])

    note(place.drive(how="stop"))
    with pytest.raises(RuntimeError, match="the driver dies"):
        place.drive(how="die")
    note(Outcome(interrupted=True))
    note(place.drive())
    note(place.drive())
    note(place.drive(trials=TRIALS + 2))
    return Course(outcomes, records, chosen, place.tracker.kept)


def test_a_search_that_is_told_to_stop_ends_with_the_trials_under_way(course: Course) -> None:
    assert course.outcomes[0] == Outcome(interrupted=False, ended="it was told to stop")
    assert 1 <= len(course.finals(0)) < POINTS * SEEDS
    assert len(course.records[0]) - len(course.finals(0)) == TRIALS


def test_whatever_ends_it_the_finalists_are_chosen_once_and_trained_once(course: Course) -> None:
    assert len(course.finals(0)) < len(course.finals(1)) < len(course.finals(2)) == POINTS * SEEDS
    for earlier, later in [(0, 1), (1, 2), (2, 3)]:
        assert course.records[later][: len(course.records[earlier])] == course.records[earlier]
        assert course.finalists[earlier] == course.finalists[later]
    assert course.records[3] == course.records[2]
    assert len(course.finalists[2]) == POINTS


def test_finalists_are_trained_longer_from_seeds_of_their_own(course: Course) -> None:
    seeds = {record.seed for record in course.records[2]}
    assert len({record.seed for record in course.finals(2)}) == POINTS * SEEDS
    assert len(seeds) >= POINTS * SEEDS + TRIALS - 2  # the anchors have one in common
    by_number = {record.number: record for record in course.records[2]}
    wanted = [{**by_number[number].recipe, "recovery.epochs": 2} for number in course.finalists[2]]
    found = [dict(record.recipe) for record in course.finals(2)]
    assert all(found.count(recipe) == SEEDS for recipe in wanted)
    assert all(len(record.epochs) == 2 for record in course.finals(2))


def test_a_larger_budget_has_a_last_phase_of_what_is_new(course: Course) -> None:
    before, after = course.finalists[3], course.finalists[4]
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    assert len(course.records[4]) == TRIALS + 2 + SEEDS * len(after)
    counts = [dict(record.recipe) for record in course.finals(4)]
    assert all(counts.count(recipe) % SEEDS == 0 for recipe in counts)


def test_each_trial_is_logged_once(course: Course) -> None:
    assert sorted(course.logged) == [record.number for record in course.records[4]]


def test_patience_ends_the_search_but_not_without_its_last_phase(context: TrialContext, tmp_path: Path) -> None:
    place = Place(context, tmp_path)
    outcome = place.drive(AlikeActor, trials=40, patience=3)
    assert outcome.ended == "the hypervolume has not risen for 3 trials"
    searched = [record for record in place.study.records() if record.kind != FINAL]
    assert 4 <= len(searched) <= 6  # one may have begun by then
    assert len(place.kinds(FINAL)) % SEEDS == 0


def test_training_seconds_end_the_search_and_all_of_it(context: TrialContext, tmp_path: Path) -> None:
    place = Place(context, tmp_path)
    outcome = place.drive(training_seconds=18)
    assert outcome.ended == "it has trained for 20 of 18 seconds"
    assert 4 <= len(place.study.records()) <= 5
    assert not place.kinds(FINAL)


def test_stop_asks_whoever_drives_the_search(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.create("tiny")
    store.mark_started(folder)
    arguments = ["stop", "--store", str(tmp_path)]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, UsageError)
    assert str(refused.exception) == "tiny-1 is not running; `paretrim front tiny-1` shows what it found"
    assert not folder.stop.exists()
    with folder.driven():
        assert folder.running()
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.stdout == "tiny-1 ends when the trials under way have; its front is printed where it runs\n"
    assert folder.stop.exists()
    assert not folder.running()
