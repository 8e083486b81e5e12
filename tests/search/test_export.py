"""Exporting a point of a real search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paretrim.errors import ArtifactError, OutputExistsError, UsageError
from paretrim.search.result import Result, artifact_of
from paretrim.tracking.bundle import Verdict


@pytest.fixture(scope="module")
def bundle(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verdict]:
    folder = tmp_path_factory.mktemp("out") / "bundle"
    return folder, finished.export(folder, trial=2)


def test_the_bundle_holds_the_very_file_that_was_scored(finished: Result, bundle: tuple[Path, Verdict]) -> None:
    folder, verdict = bundle
    record = finished.records[2]
    manifest = json.loads((folder / "bundle.json").read_text())
    assert verdict.sha256 == manifest["packed"]["sha256"] == record.sha256
    assert manifest["model"]["sha256"] == record.model_sha256
    stored = finished.folder.artifacts / f"{record.sha256}.onnx.xz"
    assert (folder / "model.onnx.xz").read_bytes() == stored.read_bytes()


def test_scores_are_measured_again_beside_what_was_logged(finished: Result, bundle: tuple[Path, Verdict]) -> None:
    names = [comparison.name for comparison in bundle[1].comparisons]
    assert names[0] == "accuracy, validation"
    assert "latency_ms, ratio to the baseline" in names
    assert bundle[1].comparisons[0].logged == bundle[1].comparisons[0].now


def test_the_script_runs_the_model_on_a_file(bundle: tuple[Path, Verdict], tmp_path: Path) -> None:
    folder = shutil.copytree(bundle[0], tmp_path / "moved")
    samples = np.load(folder / "samples.npz")
    np.save(tmp_path / "in.npy", samples["inputs"])
    command = [sys.executable, "-I", str(folder / "predict.py"), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run(command, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), samples["outputs"], atol=1e-4)


def test_an_existing_folder_is_refused_and_left_alone(finished: Result, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists; name a folder that does not"):
        finished.export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_damaged_artifact_is_refused_and_leaves_nothing(finished: Result, tmp_path: Path) -> None:
    row = finished.pick(trial=1)
    path = artifact_of(finished, row.trial).path
    intact = path.read_bytes()
    try:
        path.write_bytes(intact[:-40] + bytes(40))
        with pytest.raises(ArtifactError):
            finished.export(tmp_path / "bundle", trial=1)
    finally:
        path.write_bytes(intact)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_script_cannot_run_is_refused(finished: Result, tmp_path: Path) -> None:
    path = artifact_of(finished, 1).path
    other = path.rename(path.with_name(path.name.replace(".onnx.", ".mlir.")))
    try:
        with pytest.raises(
            UsageError, match=r"runs .*\.pt2.* files, and trial 1 .* is a '\.mlir' file; take it as it is"
        ):
            finished.export(tmp_path / "bundle", trial=1)
    finally:
        other.rename(path)
    assert not list(tmp_path.iterdir())


def test_other_recorded_outputs_are_noticed(finished: Result, tmp_path: Path) -> None:
    row = finished.pick(trial=0)
    path = artifact_of(finished, row.trial).path
    samples = path.with_name(path.name.removesuffix(".onnx.xz") + ".samples.npz")
    intact = samples.read_bytes()
    held = dict(np.load(samples))
    try:
        np.savez_compressed(samples, inputs=held["inputs"], outputs=held["outputs"] + 1.0)
        with pytest.raises(ArtifactError, match="outputs differ"):
            finished.export(tmp_path / "bundle", trial=0)
    finally:
        samples.write_bytes(intact)
    assert not list(tmp_path.iterdir())
