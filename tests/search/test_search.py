"""A whole search with real Ray, SQLite, MLflow and ONNX Runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from paretrim.errors import JobError, LoweringError, ResumeError, UserCodeError
from paretrim.search.api import load_result, resume, search
from paretrim.search.context import TrialContext
from paretrim.search.result import Result
from paretrim.search.study import Asked
from paretrim.search.trial import TrialRunner
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import SEARCHED

from .conftest import tiny_job


def test_anchors_are_the_first_three_trials(finished: Result) -> None:
    assert [r.kind for r in finished.records[:3]] == ["baseline", "float16", "int8"]
    assert [r.number for r in finished.records] == list(range(6))


def test_every_trial_has_all_measurements_of_its_file(finished: Result) -> None:
    for record in finished.records:
        assert record.complete, record.cause
        assert {"accuracy", "accuracy_torch", "latency_ms", "latency_ratio", "memory_bytes", "size_bytes"} <= set(
            record.metrics
        )
        path = finished.folder.artifacts / f"{record.sha256}.onnx.xz"
        assert path.stat().st_size == record.metrics["size_bytes"]


def test_int8_is_smaller_than_the_baseline_and_scores_alike(finished: Result) -> None:
    baseline, _, int8 = (r.metrics for r in finished.records[:3])
    assert int8["size_bytes"] < 0.5 * baseline["size_bytes"]
    assert int8["accuracy"] > baseline["accuracy"] - 0.05


def test_every_trial_says_what_it_was_measured_with_and_how_long_each_step_took(finished: Result) -> None:
    for record in finished.records:
        assert {"cpu", "runtime", "threads", "batch"} <= set(record.environment)
        assert {"reshape", "bake", "lower", "accuracy", "latency", "memory"} <= set(record.seconds)
        assert all(record.environment.values())
        assert not record.elsewhere


def test_front_is_a_data_frame_with_validation_and_test_scores(finished: Result) -> None:
    front = finished.front
    assert len(front) >= 1
    assert {"trial", "validation_accuracy", "test_accuracy", "latency_ms", "latency_ms_ratio"} <= set(front.columns)
    assert front["test_accuracy"].notna().all()


def test_only_the_front_and_the_baseline_are_scored_on_test_data(finished: Result) -> None:
    report = finished.require_report()
    assert set(finished.test_scores) == {row.sha256 for row in (report.baseline, *report.front)}


def test_tracking_holds_each_trial_once_as_a_flat_run(finished: Result) -> None:
    client = MlflowClient(finished.store.own.tracking)
    experiment = client.get_experiment_by_name(finished.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    trials = sorted(int(run.data.tags["paretrim.trial"]) for run in runs if "paretrim.trial" in run.data.tags)
    assert trials == [r.number for r in finished.records]
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)
    front = {int(run.data.tags["paretrim.trial"]) for run in runs if run.data.tags.get("pareto") == "true"}
    assert front == set(finished.front["trial"])


def test_tracking_holds_each_record_whole_with_its_environment(finished: Result, tmp_path: Path) -> None:
    client = MlflowClient(finished.store.own.tracking)
    experiment = client.get_experiment_by_name(finished.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`paretrim.trial` = '2'")
    record = finished.study.records()[2]
    file = client.download_artifacts(run.info.run_id, "record.json", str(tmp_path))
    assert TrialRecord.from_json(Path(file).read_text()) == record
    assert run.data.tags["paretrim.cpu"] == record.environment["cpu"]


def test_tracking_shows_the_latency_of_the_end_after_that_of_the_search(finished: Result) -> None:
    client = MlflowClient(finished.store.own.tracking)
    experiment = client.get_experiment_by_name(finished.name)
    assert experiment is not None
    now, then = finished.records, finished.study.records()
    for run in client.search_runs([experiment.experiment_id], "tags.`paretrim.trial` != ''"):
        number = int(run.data.tags["paretrim.trial"])
        history = client.get_metric_history(run.info.run_id, "latency_ms")
        first = (0, then[number].metrics["latency_ms"])
        later = [(1, now[number].metrics["latency_ms"])] if SEARCHED in now[number].metrics else []
        assert [(point.step, point.value) for point in history] == [first, *later]


def test_a_result_can_be_opened_again(finished: Result) -> None:
    again = load_result(finished.name, store=finished.store.root)
    assert again.records == finished.records
    assert again.require_report().to_json() == finished.require_report().to_json()


@pytest.mark.slow  # what a replay makes is held against the file in test_replay.py, too
def test_the_same_recipe_and_seed_make_the_same_file(finished: Result, context: TrialContext, tmp_path: Path) -> None:
    # Without Ray: the runner of trials does not know it.
    record = finished.records[4]
    recipe = Recipe.of(record.recipe, record.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the search's processes; another number sums in another order
    try:
        *_, made = TrialRunner(context, tmp_path).run(Asked(4, "search", recipe), {})
    finally:
        torch.set_num_threads(threads)
    assert isinstance(made, TrialRecord)
    assert made.sha256 == record.sha256


@pytest.mark.slow
def test_resume_with_a_larger_budget_says_that_the_test_data_was_seen(finished: Result, tmp_path: Path) -> None:
    store = shutil.copytree(finished.store.root, tmp_path / "store")
    larger = resume(finished.name, trials=7, store=store)
    assert [r.number for r in larger.records] == list(range(7))
    assert larger.study.records()[:6] == finished.study.records()
    client = MlflowClient(larger.store.own.tracking)
    experiment = client.get_experiment_by_name(larger.name)
    assert experiment is not None
    (summary,) = client.search_runs([experiment.experiment_id], "tags.`paretrim.summary` = 'true'")
    assert "first seen after 6 trials" in summary.data.tags["paretrim.test"]


def test_resume_refuses_a_changed_model(finished: Result) -> None:
    true = finished.study.noted("fingerprints")
    finished.study.note("fingerprints", {**true, "model": "another"})
    try:
        with pytest.raises(ResumeError, match="its model changed"):
            resume(finished.name, trials=7, store=finished.store.root)
    finally:
        finished.study.note("fingerprints", true)


def test_a_constraint_beyond_the_baseline_is_refused_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="1 is the most there is"):
        search(tiny_job(constraints=["accuracy >= baseline + 0.9"]), store=tmp_path)
    assert not list((tmp_path / "jobs").iterdir())


def test_a_model_that_does_not_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="does not export"):
        search(tiny_job(model="unexportable:model"), store=tmp_path)
    assert not list((tmp_path / "jobs").iterdir())


def test_a_model_path_that_does_not_import_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match="did you mean 'model'"):
        search(tiny_job(model="tiny:modle"), store=tmp_path)
    assert not (tmp_path / "jobs").exists()


def test_what_recovery_won_is_measured_where_there_was_any(finished: Result) -> None:
    for record in finished.records:
        assert ("recovery_gain" in record.metrics) == bool(record.epochs)
        if record.epochs:
            before, after = record.epochs[0].before, record.epochs[-1].score
            assert before is not None
            assert after is not None
            assert record.metrics["recovery_gain"] == after - before
    assert any(record.epochs for record in finished.records)
