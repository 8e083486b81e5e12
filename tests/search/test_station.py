"""A station scores an artifact: what it refuses, and how much worse than the torch model it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paretrim.errors import ArtifactError, TrialError
from paretrim.evaluators import evaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.metrics import Metric
from paretrim.search.context import TrialContext
from paretrim.search.station import Station, StationPlan, samples_path

Score = Callable[[torch.Tensor, torch.Tensor], float]


@pytest.fixture
def plan(context: TrialContext) -> StationPlan:
    return context.stations[0]


@pytest.fixture(autouse=True)
def _scores_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave latency and memory out, which take seconds."""
    monkeypatch.setattr(evaluator, "installed", dict)


def a_station(context: TrialContext, plan: StationPlan, folder: Path, metric: Metric | None = None) -> Station:
    return Station(plan, metric or context.metric, context.splits.validation, folder, Lane())


def percent(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return 100.0 * float((outputs.argmax(dim=1) == labels).float().mean())


def wrong_in_percent(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return 100.0 - percent(outputs, labels)


def refusal(station: Station, artifact: Artifact, expected: float) -> str:
    """Return why a station refuses an artifact, or nothing when it does not."""
    try:
        station.score(artifact, expected, {})
    except TrialError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("maximize", "score"), [(True, percent), (False, wrong_in_percent)], ids=["more", "less"])
def test_of_a_score_above_one_a_share_of_it_is_tolerated(
    maximize: bool, score: Score, context: TrialContext, plan: StationPlan, tmp_path: Path
) -> None:
    metric = Metric("mine", maximize, score)
    station = a_station(context, replace(plan, tolerance=0.02), tmp_path, metric)
    (scored,) = (m.value for m in station.score(plan.baseline, 0.0 if maximize else 1e9, {}) if m.name == "mine")
    tolerated = 0.02 * scored if maximize else -0.02 * scored
    assert abs(tolerated) > 0.1
    assert refusal(station, plan.baseline, scored + 0.9 * tolerated) == ""
    told = f"worse by {abs(1.2 * tolerated):.4f}, more than export_tolerance (0.02)"
    assert told in refusal(station, plan.baseline, scored + 1.2 * tolerated)


def test_of_a_share_the_tolerance_is_as_it_stands(context: TrialContext, plan: StationPlan, tmp_path: Path) -> None:
    station = a_station(context, replace(plan, tolerance=0.02), tmp_path)
    (scored,) = (m.value for m in station.score(plan.baseline, 0.0, {}) if m.name == "accuracy")
    assert refusal(station, plan.baseline, scored + 0.019) == ""
    assert "worse by 0.0210" in refusal(station, plan.baseline, scored + 0.021)


def test_an_artifact_that_scores_better_than_the_torch_model_is_welcome(
    context: TrialContext, plan: StationPlan, tmp_path: Path
) -> None:
    assert refusal(a_station(context, plan, tmp_path), plan.baseline, 0.0) == ""


def test_a_wrong_shape_of_the_output_is_told(context: TrialContext, plan: StationPlan, tmp_path: Path) -> None:
    station = a_station(context, replace(plan, output_shape=(7,)), tmp_path)
    with pytest.raises(ArtifactError, match=r"outputs of shape \(250, 10\); expected was \(250, 7\)"):
        station.score(plan.baseline, 0.0, {})


def test_a_score_stands_beside_the_torch_models_and_the_change_to_the_baseline(
    context: TrialContext, plan: StationPlan, tmp_path: Path
) -> None:
    seconds: dict[str, float] = {}
    found = {m.name: m for m in a_station(context, plan, tmp_path).score(plan.baseline, 0.3, seconds)}
    assert found["accuracy_torch"].value == 0.3
    change = found["accuracy_change"]
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)
    assert set(seconds) == {"accuracy"}


def test_answers_are_recorded_beside_the_artifact(context: TrialContext, plan: StationPlan, tmp_path: Path) -> None:
    path = samples_path(plan.baseline.path)
    path.unlink(missing_ok=True)
    a_station(context, plan, tmp_path).score(plan.baseline, 0.0, {})
    with np.load(path) as held:
        assert held["inputs"].shape == (16, 1, 8, 8)
        assert held["outputs"].shape == (16, 10)


def test_a_station_says_what_it_measures_with(context: TrialContext, plan: StationPlan, tmp_path: Path) -> None:
    environment = a_station(context, plan, tmp_path).environment()
    assert environment["runtime"].startswith("onnxruntime")
    assert (environment["threads"], environment["batch"]) == ("1", "1")
    assert environment["cpu"]


def test_another_split_is_scored_with_the_same_metric(context: TrialContext, plan: StationPlan, tmp_path: Path) -> None:
    station = a_station(context, plan, tmp_path)
    whole = station.score_on(plan.baseline, context.splits.validation)
    half = station.score_on(plan.baseline, context.splits.validation.part(torch.arange(0, 250, 2)))
    rest = station.score_on(plan.baseline, context.splits.validation.part(torch.arange(1, 250, 2)))
    assert (half + rest) / 2 == pytest.approx(whole)
