"""Accuracy of the artifact, scored in its runtime."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.errors import ArtifactError, DataError
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric, by_name
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import HeldOut, Split
from paretrim.evaluators.storage import of_widths
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
        torch.autograd.backward(functional.cross_entropy(train.inputs.through(model), train.labels))
        optimizer.step()
    split = spirals(700, seed=1)
    batch = split.first(len(split))
    right = (batch.inputs.through(model.eval()).argmax(dim=1) == batch.labels).float().mean()
    return Task(model, split, float(right))


@pytest.fixture(scope="module")
def opened(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Session]:
    """Give a function that lowers the task's model to some bits and opens it."""

    @cache
    def lowered(bits: int) -> Session:
        folder, target = tmp_path_factory.mktemp("artifacts"), OnnxRuntimeCpu(TargetSettings())
        widths = {} if bits == 32 else dict.fromkeys(("0", "2", "4"), bits)
        with target.lower(
            task.model, LoweringRequest(Signature.single((2,)), of_widths(widths), task.split), folder
        ).unpacked() as path:
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
    assert score.how == "on 700 samples, 1000 resamples"


def test_the_whole_split_is_scored_in_order(task: Task) -> None:
    seen: list[Array] = []

    def session(inputs: Array) -> Array:
        seen.append(inputs)
        return np.eye(3, dtype=np.float32)[[int(x) for x in inputs[:, 0]]]

    labels = torch.arange(600) % 3
    split = Split((torch.stack([labels.float(), torch.arange(600.0)], dim=1), labels))
    assert AccuracyEvaluator(by_name("accuracy"), split).score(session).value == 1.0
    assert np.concatenate(seen)[:, 1].tolist() == list(range(600))


@pytest.mark.parametrize("name", ["f1", "auroc", "calibration_error"])
def test_every_metric_has_an_interval(task: Task, opened: Callable[[int], Session], name: str) -> None:
    score = AccuracyEvaluator(by_name(name), task.split).score(opened(32))
    assert score.low is not None
    assert score.high is not None
    assert 0.0 < score.low < score.value < score.high < 1.0


def test_a_regression_is_scored() -> None:
    split = Split((np.zeros((5, 2), np.float32), np.full((5, 3), 2.0, np.float32)))
    score = AccuracyEvaluator(by_name("mean_squared_error"), split).score(constant(5.0))
    assert score == Measurement("mean_squared_error", 9.0, 9.0, 9.0, "on 5 samples, 1000 resamples")


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_a_change_is_compared_in_pairs(task: Task, opened: Callable[[int], Session], name: str) -> None:
    evaluator = AccuracyEvaluator(by_name(name), task.split)
    ours, baseline = evaluator.answers(opened(4)), evaluator.answers(opened(32))
    mine, theirs, change = evaluator.measure(ours), evaluator.measure(baseline), evaluator.change(ours, baseline)
    assert change.name == f"{name}_change"
    assert change.value == pytest.approx(mine.value - theirs.value, abs=1e-6)
    assert change.how.startswith("on 700 samples in pairs with the baseline, ")
    assert mine.low is not None
    assert mine.high is not None
    assert change.low is not None
    assert change.high is not None
    assert change.low <= change.value <= change.high
    assert change.high - change.low < mine.high - mine.low


def test_no_change_is_exactly_none(task: Task, opened: Callable[[int], Session]) -> None:
    evaluator = AccuracyEvaluator(by_name("f1"), task.split)
    change = evaluator.change(evaluator.answers(opened(32)), evaluator.answers(opened(32)))
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_answers_are_resampled_once(task: Task, opened: Callable[[int], Session]) -> None:
    scored = 0

    def counted(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        nonlocal scored
        scored += 1
        return float((outputs.argmax(dim=1) == labels).float().mean())

    evaluator = AccuracyEvaluator(Metric("mine", True, counted), task.split)
    baseline = evaluator.answers(opened(32))
    evaluator.measure(baseline)
    first = scored
    for bits in (8, 4):
        ours = evaluator.answers(opened(bits))
        evaluator.measure(ours)
        evaluator.change(ours, baseline)
    assert scored == 3 * first


@pytest.mark.parametrize(("shape", "fits"), [((3,), True), (None, True), ((3, 1), False), ((), False), ((4,), False)])
def test_answers_of_another_shape_than_expected_raise_artifact_error(
    task: Task, shape: tuple[int, ...] | None, fits: bool
) -> None:
    evaluator = AccuracyEvaluator(by_name("accuracy"), task.split, shape)
    if fits:
        assert evaluator.answers(constant(1.0)).shape == (700, 3)
        return
    complaint = rf"outputs of shape \(700, 3\); expected was {re.escape(str((700, *(shape or ()))))}"
    with pytest.raises(ArtifactError, match=complaint):
        evaluator.answers(constant(1.0))


def test_too_few_answers_raise_artifact_error(task: Task) -> None:
    with pytest.raises(ArtifactError, match=r"outputs of shape \(3, 3\); expected was \(700, 3\)"):
        AccuracyEvaluator(by_name("accuracy"), task.split).answers(lambda inputs: np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("seal", [HeldOut, lambda data: data])
def test_only_a_split_can_be_scored_on(seal: Callable[[Any], Any]) -> None:
    data = (np.zeros((5, 2), np.float32), np.zeros(5, np.int64))
    with pytest.raises(TypeError, match=f"on a Split, not on a {type(seal(data)).__name__}"):
        AccuracyEvaluator(by_name("accuracy"), seal(data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_raise_artifact_error(task: Task, value: float) -> None:
    with pytest.raises(ArtifactError, match="answers with NaN or infinite values on the validation split"):
        AccuracyEvaluator(by_name("accuracy"), task.split).score(constant(value))


def test_a_metric_that_does_not_fit_raises_data_error(task: Task) -> None:
    with pytest.raises(DataError, match=r"'mean_squared_error' does not fit outputs of shape \(700, 3\)"):
        AccuracyEvaluator(by_name("mean_squared_error"), task.split).score(constant(1.0))
