"""The summary of a search, as MLflow shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from paretrim.tracking.constraints import parse
from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.mlflow_tracker import MlflowTracker, chart_pages
from paretrim.tracking.progress import progress, to_csv
from paretrim.tracking.sensitivity import Effect, Profile
from paretrim.tracking.testing import OBJECTIVES, sample_record, sample_summary
from paretrim.tracking.view import View

from .helper_mlflow import SUMMARY_FILES, Search


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
