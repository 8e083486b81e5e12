"""Exporting a point in another format than that of the search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paretrim.errors import OutputExistsError, UsageError
from paretrim.search.result import Result
from paretrim.search.verify import verify
from paretrim.tracking.bundle import Verdict

SUBJECTS = Path(__file__).resolve().parents[1] / "subjects"
FORMATS = {"openvino": "model.tar", "pt2": "model.pt2", "safetensors": "model.safetensors"}
Exported = tuple[str, Path, Verdict]


@pytest.fixture(scope="module")
def trial(finished: Result) -> int:
    """The smallest of the searched trials, which is pruned."""
    done = [r for r in finished.records if r.complete and r.kind == "search"]
    return min(done, key=lambda r: r.metrics["weights"]).number


@pytest.fixture(
    scope="module",
    params=["safetensors", *(pytest.param(form, marks=pytest.mark.slow) for form in ("openvino", "pt2"))],
)
def exported(
    finished: Result, trial: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    folder = tmp_path_factory.mktemp("out") / request.param
    return request.param, folder, finished.export(folder, trial=trial, format=request.param)


def told_of(folder: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((folder / "bundle.json").read_text())
    return told


def test_the_bundle_holds_a_file_of_its_own_hash(finished: Result, trial: int, exported: Exported) -> None:
    form, folder, verdict = exported
    told = told_of(folder)
    assert told["model"]["file"] == FORMATS[form]  # type: ignore[index]
    assert told["packed"]["sha256"] == verdict.sha256  # type: ignore[index]
    assert verdict.sha256 != next(r.sha256 for r in finished.records if r.number == trial)
    assert verdict.trial == told["trial"] == trial


def test_its_numbers_are_of_that_file(finished: Result, trial: int, exported: Exported) -> None:
    form, folder, verdict = exported
    measured = json.loads((folder / "measurements.json").read_text())
    packed = folder / f"{FORMATS[form]}.xz"
    assert measured["trial"]["metrics"]["size_bytes"] == packed.stat().st_size
    assert measured["baseline"]["metrics"]["size_bytes"] > 1.2 * packed.stat().st_size
    assert ("latency_ms" in measured["trial"]["metrics"]) is (form != "safetensors")
    scores = {each.name: each for each in verdict.comparisons if each.name.startswith("accuracy")}
    # On held-out data the search has scored its front alone.
    (sha256,) = (r.sha256 for r in finished.records if r.number == trial)
    held_out = {"accuracy, test"} if sha256 in finished.test_scores else set()
    assert set(scores) == {"accuracy, validation", *held_out}
    assert all(abs(each.now - each.logged) < 0.03 for each in scores.values())
    assert measured["trial"]["validation"]["accuracy"] == scores["accuracy, validation"].now


def test_it_was_checked_in_a_clean_process(exported: Exported) -> None:
    form, _, verdict = exported
    assert any(line.startswith("outputs on 16 samples") for line in verdict.checks) is (form != "safetensors")
    assert any("SHA-256" in line for line in verdict.checks)


def test_verifying_opens_only_what_executes_nothing(exported: Exported) -> None:
    form, folder, _ = exported
    found = verify(folder)
    assert found.holds
    assert "runtime" not in found.differences
    told = [check.here for check in found.checks if check.what == "outputs"]
    whys = {"pt2": "PyTorch may unpickle parts of it", "safetensors": "it holds weights alone"}
    assert [whys[form] in text for text in told] == ([True] if form in whys else [])


def test_the_card_says_how_to_run_it(exported: Exported) -> None:
    form, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"`{FORMATS[form]}.xz`" in card
    needed = {"openvino": "runs it with openvino and numpy", "pt2": "runs it with torch and numpy"}
    assert needed.get(form, "from fit import fitted") in card
    assert (folder / "fit.py").exists() is (form == "safetensors")


def test_weights_go_into_the_users_own_network(exported: Exported) -> None:
    form, folder, _ = exported
    if form != "safetensors":
        command = [sys.executable, str(folder / "predict.py"), "--check"]
    else:
        command = [sys.executable, str(folder / "fit.py"), "--check", "tiny:TinyNet"]
    paths = {**os.environ, "PYTHONPATH": f"{SUBJECTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=paths)
    assert done.returncode == 0, done.stderr
    assert "16 samples" in done.stdout


def test_nothing_is_left_of_the_baseline_in_another_format(finished: Result, exported: Exported) -> None:
    known = {record.sha256 for record in finished.study.records()}
    assert {path.name.partition(".")[0] for path in finished.folder.artifacts.glob("*.xz")} <= known


def test_the_format_of_the_search_is_the_scored_file(finished: Result, tmp_path: Path) -> None:
    verdict = finished.export(tmp_path / "same", trial=1, format="onnx")
    assert verdict.sha256 == finished.records[1].sha256


def test_an_unknown_format_is_refused_with_those_that_there_are(finished: Result, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown format 'onyx'; allowed: onnx, openvino, pt2, safetensors.*'onnx'"):
        finished.export(tmp_path / "other", trial=1, format="onyx")


def test_an_existing_folder_is_refused_before_anything_is_made(finished: Result, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        finished.export(tmp_path, trial=1, format="pt2")
