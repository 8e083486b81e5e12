"""Accuracy of the artifact, scored in its runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.errors import ArtifactError, TrialError
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import by_name
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.splits import HeldOut, Split
from paretrim.evaluators.target import Array, LoweringRequest, Session, TargetSettings


@dataclass(frozen=True)
class Task:
    """A trained model, its data, and how well it does in torch."""

    model: nn.Module
    split: Split
    accuracy: float


def spirals(count: int, seed: int) -> Split:
    """Return points on three arms of a spiral."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, 3, count)
    way = source.uniform(0.2, 1.0, count)
    angle = labels * 2 * np.pi / 3 + 3 * way + source.normal(0, 0.5, count)
    points = np.stack([way * np.cos(angle), way * np.sin(angle)], axis=1).astype(np.float32)
    return Split((points, labels), "validation")


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3))
    optimizer, train = torch.optim.Adam(model.parameters(), lr=0.01), spirals(600, seed=0).first(600)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(train.inputs), train.labels))
        optimizer.step()
    split = spirals(700, seed=1)
    batch = split.first(len(split))
    right = (model.eval()(batch.inputs).argmax(dim=1) == batch.labels).float().mean()
    return Task(model, split, float(right))


@pytest.fixture(scope="module")
def opened(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Session]:
    """Give a function that lowers the task's model to some bits and opens it."""

    @cache
    def lowered(bits: int) -> Session:
        folder, target = tmp_path_factory.mktemp("artifacts"), OnnxRuntimeCpu(TargetSettings())
        widths = {} if bits == 32 else dict.fromkeys(("0", "2", "4"), bits)
        with target.lower(task.model, LoweringRequest((2,), "float32", widths, task.split), folder).unpacked() as path:
            return target.open(path)

    return lowered


def constant(value: float) -> Session:
    def session(inputs: Array) -> Array:
        return np.full((len(inputs), 3), value, np.float32)

    return session


def test_the_artifact_scores_as_the_torch_model_does(task: Task, opened: Callable[[int], Session]) -> None:
    score = AccuracyEvaluator(by_name("accuracy"), task.split).score(opened(32))
    assert task.accuracy > 0.8
    assert score.name == "accuracy"
    assert score.value == pytest.approx(task.accuracy, abs=2 / 700)


def test_8_bits_score_nearly_as_well(task: Task, opened: Callable[[int], Session]) -> None:
    score = AccuracyEvaluator(by_name("accuracy"), task.split).score(opened(8))
    assert score.value == pytest.approx(task.accuracy, abs=0.03)


def test_the_interval_holds_the_accuracy(task: Task, opened: Callable[[int], Session]) -> None:
    score = AccuracyEvaluator(by_name("accuracy"), task.split).score(opened(32))
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
    assert score.high - score.low < 0.1
    assert score.how == "on 700 samples"


def test_the_whole_split_is_scored_in_order(task: Task) -> None:
    seen: list[Array] = []

    def session(inputs: Array) -> Array:
        seen.append(inputs)
        return np.eye(3, dtype=np.float32)[[int(x) for x in inputs[:, 0]]]

    labels = torch.arange(600) % 3
    split = Split((torch.stack([labels.float(), torch.arange(600.0)], dim=1), labels))
    assert AccuracyEvaluator(by_name("accuracy"), split).score(session).value == 1.0
    assert np.concatenate(seen)[:, 1].tolist() == list(range(600))


def test_other_metrics_have_no_interval(task: Task, opened: Callable[[int], Session]) -> None:
    assert AccuracyEvaluator(by_name("f1"), task.split).score(opened(32)).low is None


def test_a_regression_is_scored() -> None:
    split = Split((np.zeros((5, 2), np.float32), np.full((5, 3), 2.0, np.float32)))
    score = AccuracyEvaluator(by_name("mean_squared_error"), split).score(constant(5.0))
    assert score == Measurement("mean_squared_error", 9.0, how="on 5 samples")


@pytest.mark.parametrize("seal", [HeldOut, lambda data: data])
def test_only_a_split_can_be_scored_on(seal: Callable[[Any], Any]) -> None:
    data = (np.zeros((5, 2), np.float32), np.zeros(5, np.int64))
    with pytest.raises(TypeError, match=f"on a Split, not on a {type(seal(data)).__name__}"):
        AccuracyEvaluator(by_name("accuracy"), seal(data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_raise_artifact_error(task: Task, value: float) -> None:
    with pytest.raises(ArtifactError, match="answers with NaN or infinite values on the validation split"):
        AccuracyEvaluator(by_name("accuracy"), task.split).score(constant(value))


def test_a_metric_that_does_not_fit_raises_trial_error(task: Task) -> None:
    with pytest.raises(TrialError, match=r"'mean_squared_error' does not fit outputs of shape \(700, 3\)"):
        AccuracyEvaluator(by_name("mean_squared_error"), task.split).score(constant(1.0))
