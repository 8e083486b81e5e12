"""A search on two targets: every trial is lowered and measured on both, and each has a front of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from paretrim.errors import UsageError
from paretrim.search.result import Result, artifact_of
from paretrim.search.store import Store
from paretrim.tracking.records import Elsewhere
from paretrim.tracking.report import Report
from paretrim.tracking.testing import sample_record

from .conftest import SIGNED, a_search, tiny_job

BOTH = ("onnxruntime", "signed")


def paretrim(result: Result, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paretrim", *arguments, "--store", str(result.store.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def report_of(result: Result, target: str) -> Report:
    return result.on(target).require_report()


def test_every_trial_is_measured_on_both_targets(several: Result) -> None:
    for record in several.records:
        assert record.complete, record.cause
        there = record.on("signed")
        assert there.complete, there.cause
        assert set(there.metrics) == set(record.metrics) - {"latency_search_ms"}
        assert there.environment["runtime"] == record.environment["runtime"]


def test_the_signed_eight_bit_file_is_another_one_and_the_float_file_the_same(several: Result) -> None:
    base, _, int8 = several.records[:3]
    assert base.sha256 == base.on("signed").sha256
    assert int8.sha256 != int8.on("signed").sha256


def test_what_is_of_the_recipe_is_the_same_on_both(several: Result) -> None:
    for record in several.records:
        for name in ("accuracy_cv", "weights"):
            assert record.metrics[name] == record.on("signed").metrics[name]


@pytest.mark.parametrize("target", BOTH)
def test_each_target_has_a_front_its_finals_and_its_held_out_scores(several: Result, target: str) -> None:
    seen, report = several.on(target), report_of(several, target)
    shas = {row.sha256 for row in (report.baseline, *report.front)}
    assert set(seen.test_scores) == shas
    assert seen.finals
    assert set(seen.finals) <= {record.sha256 for record in seen.records}
    assert all("accuracy" in row.test for row in report.front)


def test_by_default_a_search_is_seen_on_its_own_target(several: Result) -> None:
    assert several.target == "onnxruntime"
    assert several.on("onnxruntime").records == several.records


def test_an_unknown_target_is_told_which_there_are(several: Result) -> None:
    with pytest.raises(UsageError) as caught:
        several.on("singed")
    assert str(caught.value) == (
        f"{several.name} has no target 'singed'; it has onnxruntime, signed; did you mean 'signed'?"
    )


def test_what_was_noted_of_one_target_stays_out_of_the_others(several: Result, tmp_path: Path) -> None:
    apart = a_search(Store(tmp_path), several.study.records(), several.job)
    first, second = apart.on("onnxruntime"), apart.on("signed")
    first.keep_test_scores({"a": 0.5})
    second.keep_test_scores({"b": 0.25})
    second.keep_finals(several.on("signed").finals)
    first.keep_alike([frozenset(("a", "b"))])
    assert (first.test_scores, second.test_scores) == ({"a": 0.5}, {"b": 0.25})
    assert (first.finals, second.finals) == ({}, several.on("signed").finals)
    assert (first.alike, second.alike) == ({frozenset(("a", "b"))}, set())


def test_scores_that_were_not_compared_on_a_target_tie_there_when_they_are_equal(tmp_path: Path) -> None:
    made = [sample_record(0), sample_record(3, latency_ms=0.5, size_bytes=200_000.0)]
    records = [replace(r, elsewhere={"signed": Elsewhere(r.measurements, r.sha256[::-1])}) for r in made]
    result = a_search(Store(tmp_path), records, tiny_job(also=[SIGNED]))
    result.keep_alike([])
    here, there = ({row.trial: row.ties.get("accuracy") for row in report_of(result, name).front} for name in BOTH)
    assert here == {0: None, 3: None}
    assert there == {0: (3,), 3: (0,)}


def test_a_trial_that_failed_on_one_target_is_off_its_front_only(several: Result, tmp_path: Path) -> None:
    broken = [replace(record, elsewhere={"signed": Elsewhere(cause="no")}) for record in several.study.records()[1:]]
    apart = a_search(Store(tmp_path), [several.study.records()[0], *broken], several.job)
    assert [row.trial for row in report_of(apart, "signed").front] == [0]
    with pytest.raises(UsageError, match=r"trial 2 of .* failed, so it has nothing to export: no"):
        apart.on("signed").pick(trial=2)
    assert apart.pick(trial=2).trial == 2


def test_the_artifact_of_a_trial_is_that_of_the_target(several: Result) -> None:
    here, there = artifact_of(several, 2), artifact_of(several.on("signed"), 2)
    assert here.path != there.path
    assert there.sha256 == several.records[2].elsewhere["signed"].sha256
    assert here.path.exists()
    assert there.path.exists()


def test_tracking_has_both_targets_in_one_run(several: Result) -> None:
    client = MlflowClient(several.store.own.tracking)
    experiment = client.get_experiment_by_name(several.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`paretrim.trial` = '2'")
    record = several.study.records()[2]
    assert run.data.metrics["signed/latency_ms"] == record.on("signed").metrics["latency_ms"]
    assert run.data.metrics["accuracy_cv"] == record.metrics["accuracy_cv"]


def test_front_prints_the_front_of_a_target(several: Result) -> None:
    done = paretrim(several, "front", "--target", "signed")
    assert done.returncode == 0, done.stderr
    assert f"{several.name}: the front on signed, after 4 trials" in done.stdout
    assert "Next:" not in done.stdout


def test_front_json_has_the_rows_of_a_target_with_intervals_and_ties(several: Result) -> None:
    done = paretrim(several, "front", "--json", "--target", "signed")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    report = report_of(several, "signed")
    assert document == json.loads(report.to_json())
    assert document["schema"] == 1
    for row in (document["baseline"], *document["front"]):
        assert {"accuracy", "accuracy_cv", "latency_ms"} <= set(row["interval"])
        assert set(row["ties"]) <= {"accuracy_cv", "latency_ms", "size_bytes"}


def test_front_of_an_unknown_target_is_one_sentence(several: Result) -> None:
    done = paretrim(several, "front", "--target", "singed")
    assert done.returncode == 2
    assert "did you mean 'signed'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_writes_the_file_of_a_target(several: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = paretrim(several, "export", "--target", "signed", "--trial", "2", "-o", str(out))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "bundle.json").read_text())
    assert manifest["packed"]["sha256"] == several.records[2].on("signed").sha256
    assert (out / "model.onnx").exists()
