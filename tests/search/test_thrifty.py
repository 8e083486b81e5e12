"""A real search with everything on: stopped in its last phase, resumed, replayed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretrim.search.api import resume, search
from paretrim.search.cli import app
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Silence
from paretrim.search.replay import replay
from paretrim.search.result import Result
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.savings import savings

from .conftest import tiny_job

pytestmark = pytest.mark.slow

TRIALS, SEEDS, EPOCHS = 4, 2, 2
SPACE = {
    "recovery": {"epochs": EPOCHS},
    "pruning": {"ratio": [0.0, 0.5], "step": 0.5, "scope": "balanced"},
    "distillation": "off",
    "sparsity": "off",
    "lowrank": "off",
}


@dataclass
class StopsInTheEnd(Silence):
    """Asks a search to stop when the first finalist has been trained, as `paretrim stop` does from another terminal."""

    store: Path

    def finished(self, record: TrialRecord) -> None:
        if record.kind == FINAL:
            done = CliRunner().invoke(app, ["stop", "thrifty-1", "--store", str(self.store)], catch_exceptions=False)
            assert done.stdout.startswith("thrifty-1 ends when the trials under way have")


@dataclass(frozen=True)
class Run:
    """A search that was stopped, its state then, and the same when it was resumed and had ended."""

    stopped: Result
    before: list[TrialRecord]
    tested: dict[str, float]
    after: Result

    @property
    def finals(self) -> list[TrialRecord]:
        return [record for record in self.after.study.records() if record.kind == FINAL]


@pytest.fixture(scope="module")
def run(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    store = tmp_path_factory.mktemp("thrifty")
    job = tiny_job(
        name="thrifty",
        space=SPACE,
        budget={"trials": TRIALS, "parallel": 1},
        search={"finals": {"points": 1, "longer": 1.5, "seeds": SEEDS}},
    )
    stopped = search(job, store=store, monitor=StopsInTheEnd(store))
    before, tested = stopped.study.records(), stopped.test_scores
    return Run(stopped, before, tested, resume(store=store))


def test_a_search_that_is_told_to_stop_keeps_what_is_done_and_has_its_front(run: Run) -> None:
    assert run.stopped.outcome is not None
    assert run.stopped.outcome.ended == "it was told to stop"
    assert not run.stopped.interrupted
    assert TRIALS < len(run.before) < TRIALS + SEEDS
    assert run.tested


def test_resume_trains_the_finalists_that_are_left_and_none_twice(run: Run) -> None:
    records = run.after.study.records()
    assert records[: len(run.before)] == run.before
    assert [record.number for record in records] == list(range(TRIALS + SEEDS))
    assert len(run.finals) == SEEDS
    assert len({record.seed for record in run.finals}) == SEEDS
    (number,) = run.after.study.noted("finalists")["numbers"]
    for record in run.finals:
        assert record.complete, record.cause
        assert record.recipe == {**records[number].recipe, "recovery.epochs": 3}
        assert len(record.epochs) == 3


def test_to_resume_what_is_done_trains_nothing(run: Run) -> None:
    again = resume(store=run.after.store.root)
    assert again.study.records() == run.after.study.records()


def test_candidates_are_previewed_and_anchors_and_finalists_go_to_their_end(run: Run) -> None:
    for record in run.before:
        searched = record.kind == "search"
        assert (record.preview is not None) == searched
        assert searched or record.complete, record.cause
        if record.preview is not None:
            assert {"latency_ms", "memory_bytes", "size_bytes"} <= record.preview.metrics.keys()


def test_finalists_begin_from_the_parent_of_their_recipe(run: Run) -> None:
    # Of 2 epochs and of 3 the first one is the parent's.
    assert [[epoch.inherited for epoch in record.epochs] for record in run.finals] == [[True, False, False]] * SEEDS
    assert savings(run.finals).parents_shared == SEEDS


def test_replay_makes_the_same_file_without_any_kept_parent(run: Run) -> None:
    record = run.finals[-1]
    assert record.epochs[0].inherited
    made = replay(run.after, record.number, lambda _: None)
    assert made.same
