"""What a search gives back: its front, figures and artifacts, opened again."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from paretrim.errors import ArtifactError, UnknownJobError, UsageError
from paretrim.search import searched
from paretrim.search.result import Result, artifact_of, open_result
from paretrim.search.store import Store
from paretrim.search.study import SCHEMA
from paretrim.spaces.dimension import Choice, Condition, Range
from paretrim.tracking.testing import sample_record

from .conftest import SPACE, a_search
from .helper_results import RECORDS, a_job, a_record, found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return a_search(Store(tmp_path_factory.mktemp("store")), RECORDS, a_job())


def test_a_search_tells_its_progress_and_why_nothing_of_its_knobs(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS)
    assert [step.trial for step in made.progress] == [0, 3, 4, 5, 6, 7]
    assert made.progress[-1].hypervolume == pytest.approx(made.hypervolume)
    assert made.figures()["training_seconds"] == made.progress[-1].training_seconds == pytest.approx(6 * 1.5)
    assert "they are not noted; `paretrim resume digits-1`" in made.importance.why_none
    made.study.note(searched.NOTE, searched.to_plain(SPACE.dimensions))
    assert "there are 4" in made.importance.why_none


def test_noted_knobs_are_read_as_they_were() -> None:
    dimensions = (
        Range("a", 1e-4, 1e-1, neutral=1e-3, log=True),
        Range("b", 0.0, 0.8, neutral=0.0, step=0.2, when=(Condition("c", (8, "none", True)),)),
        Choice("c", ("none", 8, True, None, 0.5), neutral="none", when=(Condition("a", above=0.5),)),
    )
    assert searched.from_plain(json.loads(json.dumps(searched.to_plain(dimensions)))) == dimensions


def test_the_front_is_a_frame_and_its_hypervolume_a_share(result: Result) -> None:
    assert list(result.front["trial"]) == [0, 3, 4, 5]
    assert 0 < result.hypervolume < 1


def test_a_search_without_trials_has_an_empty_front(tmp_path: Path) -> None:
    empty = found(tmp_path)
    assert empty.front.empty
    assert empty.hypervolume == 0.0
    assert empty.report is None


def test_figures_count_trials_by_how_they_ended(tmp_path: Path) -> None:
    counted = found(tmp_path, *RECORDS, sample_record(8, state="stopped"))
    counted.study.note("wall_seconds", 100.0)
    figures = counted.figures()
    assert (figures["trials"], figures["trials_failed"], figures["trials_stopped"]) == (7.0, 1.0, 1.0)
    assert (figures["front_points"], figures["wall_seconds"]) == (4.0, 100.0)
    assert figures["trial_seconds"] == pytest.approx(7 * 2.0)


def test_a_search_opens_again_as_it_was(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS, constraints=["accuracy >= 0.5"], seed=7, space={"distillation": "off"})
    opened = open_result(None, Store(tmp_path))
    assert opened.name == made.name == "digits-1"
    assert opened.job == made.job
    assert list(opened.records) == list(made.records)
    assert opened.objectives == made.objectives
    assert opened.pick() == made.pick()


def test_a_search_whose_folder_is_gone_can_still_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    found(tmp_path / "store", *RECORDS, folder=tmp_path / "code")
    (tmp_path / "code").rmdir()
    assert open_result("digits-1", Store(tmp_path / "store")).pick().trial == 3


def test_a_search_of_another_schema_is_refused(tmp_path: Path) -> None:
    found(tmp_path, *RECORDS).study.note("schema", 99)
    with pytest.raises(UsageError, match=f"digits-1 has schema 99; this version of paretrim reads schema {SCHEMA}"):
        open_result(None, Store(tmp_path))


def test_a_search_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnknownJobError):
        open_result("digits-1", Store(tmp_path))


def test_opening_reads_a_record_without_touching_the_trial_of_a_running_search(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS)
    made.study.ask(SPACE)
    stored = optuna.load_study(study_name="digits-1", storage=made.store.own.study)
    trial = optuna.Trial(stored, stored.trials[8]._trial_id)
    trial.set_user_attr("paretrim:record", a_record(8, 0.7, 0.1).to_json())
    assert open_result(None, Store(tmp_path)).pick(trial=8).trial == 8
    assert stored.trials[8].state == TrialState.RUNNING
    open_result(None, Store(tmp_path)).reopen().use_sampler(10)
    frozen = optuna.load_study(study_name="digits-1", storage=made.store.own.study).trials[8]
    assert (frozen.state, frozen.values) == (TrialState.COMPLETE, [0.7, 0.1, 1000.0, 10_000.0])


def test_a_point_knows_its_artifact(result: Result) -> None:
    row = result.pick()
    path = result.folder.artifacts / f"{row.sha256}.onnx.xz"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    artifact = artifact_of(result, row.trial)
    assert (artifact.path, artifact.size_bytes, artifact.model_bytes) == (path, 4000, 12_000)
    assert artifact.model_sha256 == RECORDS[1].model_sha256


def test_an_artifact_that_is_gone_is_named(result: Result) -> None:
    with pytest.raises(ArtifactError, match=f"the artifact of trial 5 is missing: .*{RECORDS[3].sha256}"):
        artifact_of(result, 5)


def test_a_reopened_study_hands_out_what_was_never_told(tmp_path: Path) -> None:
    # Trials 1 and 2 were asked for and never told.
    study = found(tmp_path, *RECORDS).reopen()
    assert [study.ask(SPACE).number for _ in range(3)] == [1, 2, 8]
