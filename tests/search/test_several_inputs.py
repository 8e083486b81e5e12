"""Searches of models of several inputs, from the job to the bundle that runs without paretrim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretrim.errors import DataError
from paretrim.evaluators import recorded, target
from paretrim.evaluators.served import served
from paretrim.evaluators.target import TargetSettings
from paretrim.search import api, prepare
from paretrim.search.job import Job
from paretrim.search.result import Result, artifact_of
from paretrim.search.station import samples_path
from paretrim.search.verify import verify

from .conftest import tiny_job

NAMES = {"reader": ("input_ids", "attention_mask"), "halves": ("input_0", "input_1")}


def job(kind: str, **changes: Any) -> Job:
    data = {"reader": "several:texts", "halves": "several:pictures"}[kind]
    given = {"name": kind, "model": f"several:{kind}", "data": data, "budget": {"trials": 4, "parallel": 2}}
    return tiny_job(**{**given, **changes})


@pytest.fixture(scope="module", params=["reader", pytest.param("halves", marks=pytest.mark.slow)])
def searched(one_ray: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    store = tmp_path_factory.mktemp(request.param)
    return api.search(job(request.param, storage={"folder": str(store)}))


def test_a_search_ends_with_smaller_models_that_answer_alike(searched: Result) -> None:
    report = searched.require_report()
    assert all(record.complete for record in searched.records), [record.cause for record in searched.records]
    assert report.baseline.validation["accuracy"] > 0.8
    # Where the machine was busy throughout, none of them is on the front.
    alike = [r.metrics for r in searched.records if r.complete and r.metrics["accuracy"] > 0.8]
    assert min(each["size_bytes"] for each in alike) < 0.6 * report.baseline.metrics["size_bytes"]


def test_samples_are_recorded_under_the_inputs_names(searched: Result) -> None:
    artifact = artifact_of(searched, 0)
    found = recorded.read(samples_path(artifact.path))
    assert tuple(found.inputs) == NAMES[searched.job.name]
    address = target.find(TargetSettings())
    with artifact.unpacked() as path, served(address, path) as session:
        assert np.allclose(session(*found.inputs.values()), found.outputs, atol=1e-5)


def test_a_bundle_runs_on_arrays_by_name(searched: Result, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    searched.export(folder, trial=0)
    assert verify(folder).holds
    found = recorded.read(folder / "samples.npz")
    np.savez(tmp_path / "in.npz", **dict(found.inputs))  # type: ignore[arg-type]
    command = [sys.executable, "-I", str(folder / "predict.py"), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.allclose(np.load(tmp_path / "out.npy"), found.outputs, atol=1e-4)
    card = (folder / "MODEL_CARD.md").read_text()
    assert all(f"`{name}` of shape" in card for name in NAMES[searched.job.name])


def test_an_input_that_is_missing_is_named(searched: Result, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    searched.export(folder, trial=0)
    first, second = NAMES[searched.job.name]
    np.savez(tmp_path / "in.npz", **{first: np.zeros((1, 8))})  # type: ignore[arg-type]
    command = [sys.executable, "-I", str(folder / "predict.py"), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"the model takes {first}, {second}" in done.stderr
    assert f"and {second} is not in it" in done.stderr


@pytest.mark.slow
def test_another_format_takes_several_inputs_too(searched: Result, tmp_path: Path) -> None:
    form = {"reader": "pt2", "halves": "openvino"}[searched.job.name]
    verdict = searched.export(tmp_path / form, trial=1, format=form)
    scores = [each for each in verdict.comparisons if each.name.startswith("accuracy")]
    assert scores
    assert all(each.agrees for each in scores)


@pytest.fixture(scope="module")
def unlabelled(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    store = tmp_path_factory.mktemp("unlabelled")
    given = {"data": "several:unlabelled", "metric": "agreement", "budget": {"trials": 4, "parallel": 2}}
    return api.search(job("halves", **given, storage={"folder": str(store)}))


@pytest.mark.slow
def test_without_labels_the_baseline_agrees_with_itself(unlabelled: Result) -> None:
    report = unlabelled.require_report()
    assert report.baseline.validation == {"agreement": 1.0}
    assert report.baseline.test == {"agreement": 1.0}


@pytest.mark.slow
def test_without_labels_smaller_models_agree_mostly(unlabelled: Result) -> None:
    int8 = next(r for r in unlabelled.records if r.kind == "int8")
    assert 0.9 < int8.metrics["agreement"] <= 1.0


@pytest.mark.slow
def test_without_labels_a_bundle_is_scored_by_agreement_again(unlabelled: Result, tmp_path: Path) -> None:
    verdict = unlabelled.export(tmp_path / "bundle", trial=0)
    assert [(c.name, c.now) for c in verdict.comparisons[:2]] == [
        ("agreement, validation", 1.0),
        ("agreement, test", 1.0),
    ]


def test_a_metric_that_asks_for_labels_is_refused_without_any() -> None:
    with pytest.raises(
        DataError, match="'accuracy' compares with labels; give some, or ask for the metric 'agreement'"
    ):
        prepare.load(job("halves", data="several:unlabelled"))
