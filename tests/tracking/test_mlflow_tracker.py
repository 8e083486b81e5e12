from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from mlflow.tracking import MlflowClient

from paretrim.errors import ParetrimError
from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.constraints import parse
from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.mlflow_tracker import MlflowTracker, chart_pages
from paretrim.tracking.progress import progress, to_csv
from paretrim.tracking.records import Elsewhere, Epoch, State, TrialRecord
from paretrim.tracking.sensitivity import Effect, Profile
from paretrim.tracking.settled import SEARCHED, Final, settled
from paretrim.tracking.testing import OBJECTIVES, TrackerContract, sample_record, sample_summary
from paretrim.tracking.tracker import MemoryTracker, TrackingError
from paretrim.tracking.view import View

SUMMARY_FILES = {"front.json", "front.csv", "front.html", "front_table.json", "report.html"}
PATIENCE_S = 60.0


class Search:
    """A search in a database, as its tracker writes it and as MLflow shows it."""

    def __init__(self, uri: str, name: str, artifacts: Path | None) -> None:
        self.uri, self.name, self.artifacts = uri, name, artifacts
        self.tracker = self.reopened()
        self.client = MlflowClient(tracking_uri=uri)

    def reopened(self) -> MlflowTracker:
        return MlflowTracker(self.uri, self.name, self.artifacts)

    def runs(self, key: str = "paretrim.trial") -> list[Any]:
        found = self.client.search_runs([self.tracker.experiment_id], order_by=["attributes.start_time"])
        return [run for run in found if key in run.data.tags]

    def run(self, number: int) -> Any:
        (found,) = [run for run in self.runs() if run.data.tags["paretrim.trial"] == str(number)]
        return found

    def summary(self) -> Any:
        (found,) = self.runs("paretrim.summary")
        return found

    def files(self) -> set[str]:
        return {file.path for file in self.client.list_artifacts(self.summary().info.run_id)}

    def text(self, file: str, folder: Path) -> str:
        return Path(self.client.download_artifacts(self.summary().info.run_id, file, str(folder))).read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tests' one database lies: to make one takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def search(folder: Path, request: pytest.FixtureRequest) -> Search:
    return Search(f"sqlite:///{folder / 'mlflow.db'}", request.node.name, folder / "mlartifacts")


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


def test_the_front_and_the_feasible_trials_are_tagged_by_the_summary(search: Search) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.1), sample_record(4, accuracy=0.2, latency_ms=0.05)]
    for record in records:
        search.tracker.log_trial(record)
    assert {run.data.tags["pareto"] for run in search.runs()} == {"false"}
    search.tracker.log_summary(sample_summary(records, constraints=[parse("accuracy >= 0.5")]))
    marks = {n: (search.run(n).data.tags["pareto"], search.run(n).data.tags["feasible"]) for n in (0, 3, 4)}
    assert marks == {0: ("false", "true"), 3: ("true", "true"), 4: ("false", "false")}


def test_a_later_summary_takes_marks_away_again(search: Search) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.1), sample_record(4, latency_ms=0.01)]
    for record in records:
        search.tracker.log_trial(record)
    search.tracker.log_summary(sample_summary(records[:2]))
    before = search.run(3).data.tags["pareto"]
    search.tracker.log_summary(sample_summary(records))
    assert (before, search.run(3).data.tags["pareto"], search.run(4).data.tags["pareto"]) == ("true", "false", "true")


def test_the_summary_has_the_front_as_files_and_as_a_table(search: Search, tmp_path: Path) -> None:
    summary = sample_summary([sample_record(0), sample_record(3, latency_ms=0.1)])
    search.tracker.log_summary(summary)
    assert search.files() == SUMMARY_FILES
    assert search.text("front.json", tmp_path) == summary.report.to_json()
    assert search.text("front.csv", tmp_path) == summary.report.to_csv()
    assert search.text("front.html", tmp_path).startswith("<!doctype html>")
    table = json.loads(search.text("front_table.json", tmp_path))
    assert dict(zip(table["columns"], table["data"][0], strict=True))["latency_ms"] == 0.1


def test_the_summary_has_the_hypervolume_and_the_importance_where_they_were_reckoned(
    search: Search, tmp_path: Path
) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.1)]
    steps = progress(records, OBJECTIVES, [])
    knobs = Importance(("accuracy",), {"pruning.ratio.stem": (Weight(1.0, clear=True),)}, 60)
    search.tracker.log_summary(replace(sample_summary(records), progress=steps, importance=knobs))
    assert search.files() == SUMMARY_FILES | {"hypervolume.csv", "importance.csv", "importance.json"}
    assert search.text("hypervolume.csv", tmp_path) == to_csv(steps)
    assert search.text("importance.csv", tmp_path) == knobs.to_csv()
    assert search.text("importance.json", tmp_path) == knobs.to_json()


def test_the_summary_has_the_models_sensitivity_where_it_was_taken(search: Search, tmp_path: Path) -> None:
    found = Profile("accuracy", 64, 0.2, 0.9, 0.1, 1000.0, (Effect("pruning.ratio.stem", 0.5, 0.3, -0.1, 500.0),))
    search.tracker.log_summary(replace(sample_summary([sample_record(0)]), sensitivity=found))
    assert search.files() == SUMMARY_FILES | {"sensitivity.html", "sensitivity.json"}
    assert Profile.from_json(search.text("sensitivity.json", tmp_path)) == found
    assert "pruning.ratio" in search.text("sensitivity.html", tmp_path)


def test_the_summary_has_figures_notes_and_an_end(search: Search) -> None:
    search.tracker.log_summary(sample_summary([sample_record(0)], job="digits-7"))
    run = search.summary()
    assert run.data.metrics == {"hypervolume": 0.25, "trials": 1.0}
    assert (run.data.tags["paretrim.job"], run.data.tags["paretrim.state"]) == ("digits-7", "finished")
    assert run.info.status == "FINISHED"


def test_a_search_with_an_empty_front_has_a_summary_too(search: Search) -> None:
    search.tracker.log_summary(sample_summary([sample_record(0)], constraints=[parse("accuracy >= 0.99")]))
    assert search.files() == SUMMARY_FILES


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


def test_a_search_with_a_view_has_a_page_of_charts(search: Search) -> None:
    view = View("accuracy", ["latency_ms", "size_bytes"], [f"quantization.bits.{i}" for i in range(40)])
    charted = MlflowTracker(search.uri, f"{search.name}-charted", search.artifacts, view)
    pages = chart_pages(search.uri)
    assert pages[f"{search.name}-charted"].startswith(f"/#/experiments/{charted.experiment_id}/runs?")
    assert search.name not in pages


def test_the_charts_of_a_view_show_the_metric_against_each_cost(search: Search) -> None:
    view = View("accuracy", ["latency_ms", "size_bytes"], ["pruning.ratio.stem"])
    tracker = MlflowTracker(search.uri, search.name, search.artifacts, view)
    tags = search.client.get_experiment(tracker.experiment_id).tags
    (state,) = [json.loads(text) for name, text in tags.items() if name.startswith("mlflow.sharedViewState.")]
    *scatters, lines = state["compareRunCharts"]
    axes = [(chart["yaxis"]["key"], chart["xaxis"]["key"]) for chart in scatters]
    assert axes == [("accuracy", "latency_ms"), ("accuracy", "size_bytes")]
    assert lines["selectedParams"] == ["pruning.ratio.stem"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri, started = f"http://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(TrackingError) as caught:
        MlflowTracker(uri, "digits-1", None)
    assert isinstance(caught.value, ParetrimError)
    assert f"cannot use the tracking server at {uri}" in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("uri", ["nonsense://host", "sqlite-is-not-a-scheme:x"])
def test_a_uri_that_mlflow_does_not_know_is_an_error_that_shows_it(uri: str) -> None:
    with pytest.raises(TrackingError, match=re.escape(uri)):
        MlflowTracker(uri, "digits-1", None)


OPERATIONS: dict[str, Callable[[MlflowTracker], object]] = {
    "logged": lambda tracker: tracker.logged(),
    "log_trial": lambda tracker: tracker.log_trial(sample_record(3)),
    "log_summary": lambda tracker: tracker.log_summary(sample_summary([sample_record(0)])),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_database_that_breaks_under_way_is_an_error_that_names_it(
    search: Search, tmp_path: Path, operation: str
) -> None:
    database = tmp_path / "mlflow.db"
    # Not only its file: the latest of what was written may still lie beside it.
    with (
        closing(sqlite3.connect(search.uri.removeprefix("sqlite:///"))) as there,
        closing(sqlite3.connect(database)) as here,
    ):
        there.backup(here)
    tracker = MlflowTracker(f"sqlite:///{database}", "digits-1", tmp_path)
    database.write_bytes(b"no database any more " * 10_000)
    with pytest.raises(TrackingError, match=re.escape(str(database))):
        OPERATIONS[operation](tracker)


def wait_for(process: subprocess.Popen[bytes], uri: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{uri}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the MLflow server did not come up; its exit code is {process.poll()}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Run a real MLflow server on a free port of this machine and return its URI."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "server-files")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    try:
        wait_for(process, uri)
        yield uri
    finally:
        # The session holds the server and its workers, and nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_server_keeps_a_search(server: str, tmp_path: Path) -> None:
    search = Search(server, "digits-1", None)
    records = [sample_record(0), sample_record(3, latency_ms=0.1), sample_record(4, state="failed", cause="nan")]
    for record in records:
        search.tracker.log_trial(record)
    summary = sample_summary(records)
    search.tracker.log_summary(summary)
    search.reopened().log_summary(summary)
    assert search.reopened().logged() == {0, 3, 4}
    assert search.files() == SUMMARY_FILES
    assert search.text("front.json", tmp_path) == summary.report.to_json()
    assert (search.run(3).data.tags["pareto"], search.run(4).info.status) == ("true", "FAILED")
