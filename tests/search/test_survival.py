"""What becomes of trials when something under them dies, or nothing can be written; without Ray."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError

from paretrim.errors import StoreError, UsageError
from paretrim.evaluators import child
from paretrim.search import driver, engine, room
from paretrim.search.actor import RECORD, hang_file
from paretrim.search.ahead import Ahead
from paretrim.search.judge import Lenient
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Silence
from paretrim.search.searcher import StudySearcher
from paretrim.search.store import JobFolder
from paretrim.search.study import Study
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record

from .conftest import SPACE, tiny_job

TRIALS = 4
FULL = "Traceback ...\nOSError: [Errno 28] No space left on device: 'model.onnx'"


@dataclass
class Stage:
    """A searcher over a real study, with what it did.

    Attributes:
        study: The study.
        searcher: The searcher.
        folder: Where processes leave notes.
        ended: Records of the trials that ended.
        ray_died: Whether Ray died.
    """

    study: Study
    searcher: StudySearcher
    folder: Path
    ended: list[TrialRecord]
    ray_died: bool = False

    def begin(self, name: str) -> int:
        """Hand a trial out."""
        config = self.searcher.suggest(name)
        assert isinstance(config, dict), config
        return int(config["number"])

    def say(self, name: str, record: TrialRecord) -> None:
        """Let a trial tell how it ended."""
        self.searcher.on_trial_complete(name, {RECORD: record.to_json()})

    def die(self, name: str) -> None:
        """Let the process of a trial die."""
        self.searcher.on_trial_complete(name, None, error=True)


def a_study(folder: Path, *, create: bool = True) -> Study:
    study = Study(f"sqlite:///{folder / 'study.db'}", "tiny-1", OBJECTIVES, (), 0, create=create)
    if create:
        study.begin({"baseline": Recipe.of({}), "float16": Recipe.of({}, 1)})
    return study


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return staged(a_study(tmp_path), tmp_path)


def staged(study: Study, folder: Path, last_phase: Callable[[], None] = lambda: None, *, many: bool = False) -> Stage:
    study.use_sampler(TRIALS, "random")
    ended: list[TrialRecord] = []
    searcher = StudySearcher(
        study,
        Ahead(study, SPACE, 0, TRIALS),
        trials=TRIALS,
        allowed=lambda: 2,
        limit_s=60,
        scratch=folder,
        finished=ended.append,
        monitor=Silence(),
        judge=Lenient(),
        adrift=lambda: made.ray_died,
        last_phase=last_phase,
        many=many,
    )
    made = Stage(study, searcher, folder, ended)
    return made


def of(number: int, kind: str, recipe: Recipe) -> TrialRecord:
    return replace(sample_record(number, kind=kind, recipe=recipe.values), seed=recipe.seed)


def finals() -> list[Recipe]:
    return [Recipe.of({"pruning.ratio.stem": 0.5}, seed) for seed in (7, 8)]


def test_a_trial_whose_process_died_is_made_again_once(stage: Stage) -> None:
    stage.say("a", sample_record(stage.begin("a"), kind="baseline"))
    number = stage.begin("b")
    stage.die("b")
    assert stage.begin("c") == number
    stage.die("c")
    assert [r.state for r in stage.ended] == ["complete", "failed"]
    assert "its process died" in stage.ended[1].cause
    assert stage.begin("d") != number


def test_a_trial_is_made_again_when_what_measured_it_was_killed(stage: Stage) -> None:
    cause = f"measuring latency: the process {child.ending(-9)}"
    number = stage.begin("a")
    stage.say("a", sample_record(number, kind="baseline", state="failed", cause=cause))
    assert stage.begin("b") == number
    assert not stage.searcher.fatal


def test_a_trial_that_hung_is_not_made_again(stage: Stage) -> None:
    stage.say("a", sample_record(stage.begin("a"), kind="baseline"))
    number = stage.begin("b")
    hang_file(stage.folder, number).write_text('  File "tiny.py", line 1 in forward')
    stage.die("b")
    assert "took longer than 1 minutes" in stage.ended[-1].cause
    assert stage.begin("c") != number


def test_trials_under_way_when_ray_dies_are_given_back_and_cost_no_attempt(stage: Stage, tmp_path: Path) -> None:
    numbers = [stage.begin("a"), stage.begin("b")]
    stage.ray_died = True
    stage.die("a")
    stage.searcher.give_back()
    assert stage.searcher.suggest("c") == "FINISHED"
    assert not stage.ended
    for study in (stage.study, a_study(tmp_path, create=False)):
        assert sorted(study.ask(SPACE).number for _ in numbers) == numbers
        assert not any(study.cause_of_too_many_attempts(number) for number in numbers)


def test_a_full_disk_fails_no_trial_and_ends_the_search(stage: Stage) -> None:
    number = stage.begin("a")
    stage.say("a", sample_record(number, kind="baseline", state="failed", cause=FULL))
    assert "No space left on device" in stage.searcher.unwritten
    assert stage.searcher.suggest("b") == "FINISHED"
    assert not stage.ended
    assert stage.study.ask(SPACE).number == number


@pytest.fixture
def cluster(tmp_path: Path) -> Stage:
    """A searcher whose trials run on machines that come and go; its baseline has ended."""
    made = staged(a_study(tmp_path), tmp_path, many=True)
    made.say("baseline", sample_record(made.begin("baseline"), kind="baseline"))
    return made


def test_a_machine_without_room_costs_a_trial_nothing_and_others_come_first(cluster: Stage) -> None:
    first, second = cluster.begin("a"), cluster.begin("b")
    cluster.searcher.give_back()
    first = cluster.begin("a")
    cluster.say("a", sample_record(first, state="failed", cause=f"{FULL}\non node-7: No space left on device"))
    assert not cluster.searcher.unwritten
    assert cluster.begin("c") == second
    assert cluster.begin("d") == first
    assert len(cluster.ended) == 1


def test_a_trial_that_finds_room_nowhere_fails_and_the_search_goes_on(cluster: Stage) -> None:
    for _ in range(10 * TRIALS + 10):
        config = cluster.searcher.suggest("a")
        if not isinstance(config, dict):
            break
        cluster.say("a", sample_record(int(config["number"]), state="failed", cause=FULL))
    assert config == "FINISHED"
    assert not cluster.searcher.unwritten
    assert [r.state for r in cluster.ended] == ["complete", *["failed"] * (TRIALS - 1)]


def test_a_machine_that_cannot_begin_does_not_use_the_budget_up(cluster: Stage) -> None:
    number = cluster.begin("a")
    why = "raised in its creation task\nparetrim.errors.ClusterError: the machine node-7 does not see /store"
    cluster.searcher.failed("a", why)
    cluster.die("a")
    assert len(cluster.ended) == 1
    assert number in {cluster.begin("b"), cluster.begin("c")}


def test_a_study_that_cannot_be_written_ends_the_search(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: TrialRecord) -> None:
        raise StorageInternalError("during the commit") from sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(stage.study, "tell", full)
    stage.say("a", sample_record(stage.begin("a"), kind="baseline"))
    assert stage.searcher.unwritten == "database or disk is full"
    assert stage.searcher.suggest("b") == "FINISHED"


def test_other_faults_of_a_study_are_not_hidden(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(record: TrialRecord) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(stage.study, "tell", broken)
    with pytest.raises(ValueError, match="a fault"):
        stage.say("a", sample_record(stage.begin("a"), kind="baseline"))


def test_the_last_phase_is_completed_and_comes_first(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    study.append(FINAL, finals()[:1])  # it died here
    study = a_study(tmp_path, create=False)
    assert study.append(FINAL, finals()) == 1
    assert study.append(FINAL, finals()) == 0
    again = a_study(tmp_path, create=False)
    again.put_first(FINAL)
    asked = [again.ask(SPACE) for _ in range(3)]
    assert [one.kind for one in asked] == [FINAL, FINAL, "baseline"]
    assert [one.recipe for one in asked[:2]] == finals()
    again.tell(of(asked[0].number, FINAL, asked[0].recipe))
    assert again.left(FINAL) == 1
    assert again.append(FINAL, finals()) == 0


def test_a_search_that_died_in_its_last_phase_goes_on_with_the_rest_of_it(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    for _ in range(TRIALS):
        one = study.ask(SPACE)
        study.tell(of(one.number, one.kind, one.recipe))
    study.append(FINAL, finals()[:1])  # it died here
    study = a_study(tmp_path, create=False)

    def last_phase() -> None:
        study.append(FINAL, finals())

    stage = staged(study, tmp_path, last_phase)
    names: list[str] = []
    while isinstance(config := stage.searcher.suggest(name := f"t{len(names)}"), dict):
        names.append(name)
        stage.say(
            name, sample_record(config["number"], kind=config["kind"], recipe=finals()[0].values, seed=len(names))
        )
    assert config == "FINISHED"
    assert [r.kind for r in stage.ended] == [FINAL, FINAL]


def test_finalists_are_chosen_once_for_the_trials_that_there_are(tmp_path: Path) -> None:
    job = tiny_job(search={"finals": {"points": 1, "seeds": 2}})
    study = a_study(tmp_path)
    for better in range(TRIALS):
        one = study.ask(SPACE)
        found = of(one.number, one.kind, one.recipe)
        study.tell(replace(found, measurements=sample_record(one.number, accuracy=0.8 + better / 100).measurements))
    driver._last_phase(job, study, Silence())
    asked = study.ask(SPACE)
    study.tell(of(asked.number, asked.kind, asked.recipe))
    study = a_study(tmp_path, create=False)
    driver._last_phase(job, study, Silence())
    assert (study.count(FINAL), study.left(FINAL)) == (2, 1)
    asked = study.ask(SPACE)
    study.tell(of(asked.number, asked.kind, asked.recipe))
    more = study.ask(SPACE)
    study.tell(
        replace(of(more.number, "search", more.recipe), measurements=sample_record(9, accuracy=0.99).measurements)
    )
    driver._last_phase(job, study, Silence())
    assert (study.count(FINAL), study.left(FINAL)) == (4, 2)


def test_a_search_that_died_before_it_began_leaves_its_name_free(tmp_path: Path) -> None:
    a_study(tmp_path)
    study = a_study(tmp_path)
    one = study.ask(SPACE)
    study.tell(sample_record(one.number, kind="baseline"))
    with pytest.raises(UsageError, match="trials of a search 'tiny-1', whose folder is gone"):
        a_study(tmp_path)


def test_what_killed_processes_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "gettempdir", lambda: str(tmp_path))
    folder = JobFolder("tiny-1", tmp_path / "tiny-1")
    names = ("paretrim-abcd1234", "paretrim-new_0000", "other", "tiny-1/scratch/bench-1", "tiny-1/artifacts")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    os.utime(tmp_path / names[0], (0, 0))
    os.utime(tmp_path / "other", (0, 0))
    for name in ("a.onnx.12.partial", "a.samples.partial.npz", "a.onnx.xz"):
        (folder.artifacts / name).touch()
    engine._tidy(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "paretrim-new_0000", "tiny-1"]
    assert [path.name for path in folder.path.rglob("*")] == ["artifacts", "a.onnx.xz"]


def test_a_full_disk_is_found_behind_other_errors() -> None:
    error = RuntimeError("cannot export")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "model.onnx")
    assert room.why_unwritten(error) == "No space left on device: model.onnx"
    assert room.why_unwritten(RuntimeError("cannot export")) == ""


def test_a_folder_is_full_when_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.why_full(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert room.why_full(tmp_path).startswith("No space left on device")


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"No space left on device(.|\n)*paretrim resume tiny-1"),
        room.writable(tmp_path, "go on with: paretrim resume tiny-1"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyError), room.writable(tmp_path, ""):
        raise KeyError("another")
