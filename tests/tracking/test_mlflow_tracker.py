from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.mlflow_tracker import MlflowTracker
from paretrim.tracking.records import Elsewhere, Epoch, State, TrialRecord
from paretrim.tracking.settled import SEARCHED, Final, settled
from paretrim.tracking.testing import TrackerContract, sample_record, sample_summary
from paretrim.tracking.tracker import MemoryTracker, TrackingError

from .helper_mlflow import SUMMARY_FILES, Search


class TestMemoryTrackerKeepsTheContract(TrackerContract):
    trackers: ClassVar[dict[Path, MemoryTracker]] = {}

    def open_tracker(self, store: Path) -> MemoryTracker:
        return self.trackers.setdefault(store, MemoryTracker())

    def kept_trials(self, store: Path) -> Sequence[int]:
        return list(self.trackers[store].trials)

    def kept_summaries(self, store: Path) -> int:
        return int(self.trackers[store].summary is not None)


class TestMlflowTrackerKeepsTheContract(TrackerContract):
    folder: Path

    @pytest.fixture(autouse=True)
    def use(self, folder: Path) -> None:
        self.folder = folder

    def search(self, store: Path) -> Search:
        return Search(f"sqlite:///{self.folder / 'mlflow.db'}", store.name, self.folder / "mlartifacts")

    def open_tracker(self, store: Path) -> MlflowTracker:
        return self.search(store).tracker

    def kept_trials(self, store: Path) -> Sequence[int]:
        return [int(run.data.tags["paretrim.trial"]) for run in self.search(store).runs()]

    def kept_summaries(self, store: Path) -> int:
        return len(self.search(store).runs("paretrim.summary"))


def test_a_memory_tracker_keeps_the_first_of_two_records() -> None:
    tracker = MemoryTracker()
    tracker.log_trial(sample_record(3, accuracy=0.9))
    tracker.log_trial(sample_record(3, accuracy=0.1))
    assert tracker.trials[3].metrics["accuracy"] == 0.9


def test_a_recipe_becomes_params(search: Search) -> None:
    search.tracker.log_trial(sample_record(3, recipe={"pruning.ratio.stem": 0.25, "quantization.bits.head": "none"}))
    wanted = {"pruning.ratio.stem": "0.25", "quantization.bits.head": "none", "seed": "3"}
    assert search.run(3).data.params == wanted


def test_measurements_become_metrics_with_their_units_and_intervals(search: Search) -> None:
    search.tracker.log_trial(sample_record(3, latency_ms=0.5, size_bytes=1000.0))
    metrics = search.run(3).data.metrics
    assert (metrics["latency_ms"], metrics["size_bytes"]) == (0.5, 1000.0)
    assert (metrics["latency_ms_low"], metrics["latency_ms_high"]) == (0.49, 0.51)
    assert metrics["recover_seconds"] == 1.5
    assert metrics["trial"] == 3.0


def test_training_becomes_curves(search: Search) -> None:
    search.tracker.log_trial(sample_record(3))
    history = search.client.get_metric_history(search.run(3).info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.7), (2, 0.5)]
    assert search.run(3).data.metrics["validation_while_training"] == 0.9


def test_a_trial_is_named_and_tagged(search: Search) -> None:
    record = sample_record(0)
    search.tracker.log_trial(record)
    run = search.run(0)
    assert run.info.run_name == "0000 baseline"
    assert run.data.tags["paretrim.kind"] == "baseline"
    assert run.data.tags["paretrim.state"] == "complete"
    assert run.data.tags["paretrim.artifact_sha256"] == record.sha256
    assert run.data.tags["paretrim.model_sha256"] == record.model_sha256


def test_a_trial_is_tagged_with_what_it_was_measured_with(search: Search) -> None:
    environment = {"cpu": "a processor", "runtime": "a runtime 1.0", "threads": "1", "flags": "x" * 100_000}
    search.tracker.log_trial(replace(sample_record(3), environment=environment))
    tags = search.run(3).data.tags
    assert {name: tags[f"paretrim.{name}"] for name in ("cpu", "runtime", "threads")} == {
        "cpu": "a processor",
        "runtime": "a runtime 1.0",
        "threads": "1",
    }
    assert tags["paretrim.flags"].startswith("xxx")


def test_measurements_on_a_further_target_stand_under_its_name(search: Search) -> None:
    there = Elsewhere((Measurement("latency_ms", 3.0, 2.9, 3.1), Measurement("accuracy", 0.8)), sha256="a" * 64)
    search.tracker.log_trial(replace(sample_record(3, latency_ms=0.5), elsewhere={"signed": there}))
    metrics = search.run(3).data.metrics
    assert (metrics["latency_ms"], metrics["signed/latency_ms"], metrics["signed/accuracy"]) == (0.5, 3.0, 0.8)
    assert (metrics["signed/latency_ms_low"], metrics["signed/latency_ms_high"]) == (2.9, 3.1)


@pytest.mark.parametrize("state", ["complete", "failed"])
def test_a_run_holds_its_record_whole(search: Search, tmp_path: Path, state: State) -> None:
    there = Elsewhere(cause="it does not load there")
    record = replace(sample_record(3, state=state, cause="x" * 10_000), elsewhere={"signed": there})
    search.tracker.log_trial(record)
    file = search.client.download_artifacts(search.run(3).info.run_id, "record.json", str(tmp_path))
    assert TrialRecord.from_json(Path(file).read_text()) == record


def a_final(latency_ms: float) -> Final:
    interval = (latency_ms * 0.99, latency_ms * 1.01)
    return Final(
        Measurement("latency_ms", latency_ms, *interval), Measurement("latency_ratio", latency_ms / 2), crowded=False
    )


def test_a_latency_that_was_taken_again_is_a_later_step_of_the_same_metric(search: Search) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.5, latency_ratio=0.25)]
    for record in records:
        search.tracker.log_trial(record)
    for _ in range(2):  # a summary that is written again adds nothing
        search.tracker.log_summary(sample_summary(settled(records, {records[1].sha256: a_final(0.4)})))
    run = search.run(3)
    history = search.client.get_metric_history(run.info.run_id, "latency_ms")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.4)]
    metrics = run.data.metrics
    assert (metrics["latency_ms"], metrics["latency_ratio"], metrics[SEARCHED]) == (0.4, 0.2, 0.5)
    assert metrics["latency_ms_low"] == pytest.approx(0.396)
    assert len(search.client.get_metric_history(search.run(0).info.run_id, "latency_ms")) == 1


def test_a_latency_that_was_taken_a_third_time_is_the_one_that_is_shown(search: Search) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.5, latency_ratio=0.25)]
    for record in records:
        search.tracker.log_trial(record)
    for latency in (0.4, 0.3):
        search.tracker.log_summary(sample_summary(settled(records, {records[1].sha256: a_final(latency)})))
    run = search.run(3)
    history = search.client.get_metric_history(run.info.run_id, "latency_ms")
    assert [point.value for point in history] == [0.5, 0.4, 0.3]
    assert run.data.metrics["latency_ms"] == 0.3


def test_runs_are_flat(search: Search) -> None:
    records = [sample_record(0), sample_record(3)]
    for record in records:
        search.tracker.log_trial(record)
    search.tracker.log_summary(sample_summary(records))
    assert [run.data.tags.get("mlflow.parentRunId") for run in search.runs("mlflow.runName")] == [None] * 3


def test_a_complete_trial_is_finished(search: Search) -> None:
    search.tracker.log_trial(sample_record(3))
    assert search.run(3).info.status == "FINISHED"


def test_a_failed_trial_is_failed_and_has_its_cause(search: Search) -> None:
    search.tracker.log_trial(sample_record(3, state="failed", cause="the training loss is nan"))
    assert search.run(3).info.status == "FAILED"
    assert search.run(3).data.tags["paretrim.cause"] == "the training loss is nan"


def test_a_stopped_trial_is_not_a_failed_one(search: Search) -> None:
    search.tracker.log_trial(sample_record(3, state="stopped", cause="behind the others"))
    assert search.run(3).info.status == "FINISHED"
    assert search.run(3).data.tags["paretrim.state"] == "stopped"


def test_a_cause_longer_than_a_tag_may_be_is_cut(search: Search) -> None:
    search.tracker.log_trial(sample_record(3, state="failed", cause="x" * 100_000))
    assert search.run(3).data.tags["paretrim.cause"].startswith("xxx")


def test_a_model_of_many_layers_is_logged_whole(search: Search) -> None:
    recipe = {f"quantization.bits.features.{i}": 8 for i in range(250)}
    search.tracker.log_trial(sample_record(3, recipe=recipe))
    assert len(search.run(3).data.params) == len(recipe) + len({"seed"})


def test_long_training_is_logged_whole(search: Search) -> None:
    epochs = tuple(Epoch(1.0 / step, 0.5) for step in range(1, 701))
    search.tracker.log_trial(TrialRecord(3, "search", "complete", epochs=epochs))
    history = search.client.get_metric_history(search.run(3).info.run_id, "train_loss")
    assert len(history) == len(epochs)


def test_a_run_that_a_death_left_unfinished_is_cleared_and_logged_again(search: Search) -> None:
    search.tracker.log_trial(sample_record(0))
    search.client.create_run(search.tracker.experiment_id, tags={"paretrim.trial": "3"})
    assert search.reopened().logged() == {0}
    assert [run.data.tags["paretrim.trial"] for run in search.runs()] == ["0"]
    search.tracker.log_trial(sample_record(3))
    assert search.run(3).info.status == "FINISHED"
    assert search.tracker.logged() == {0, 3}


def test_a_refused_trial_is_an_error_that_names_it_and_it_does_not_count_as_logged(search: Search) -> None:
    with pytest.raises(TrackingError, match="trial 3") as caught:
        search.tracker.log_trial(sample_record(3, {"not a name?!": 1.0}))
    assert search.uri in str(caught.value)
    assert search.tracker.logged() == set()


def test_files_lie_in_the_folder_that_was_given(search: Search) -> None:
    search.tracker.log_summary(sample_summary([sample_record(0)]))
    assert search.artifacts is not None
    assert {path.name for path in search.artifacts.rglob("*.*")} >= SUMMARY_FILES


def test_two_searches_in_one_database_do_not_mix(search: Search) -> None:
    other = Search(search.uri, f"{search.name}-2", search.artifacts)
    search.tracker.log_trial(sample_record(0))
    other.tracker.log_trial(sample_record(1))
    assert (search.tracker.logged(), other.tracker.logged()) == ({0}, {1})


def test_an_experiment_is_found_again_by_the_name_of_the_search(search: Search) -> None:
    assert search.reopened().experiment_id == search.tracker.experiment_id
