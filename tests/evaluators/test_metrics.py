"""Metrics by name, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.errors import DataError, TrialError, UsageError
from paretrim.evaluators.metrics import NAMES, Metric, by_name

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 1])
CLASSES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50)


class TestScores:
    @given(CLASSES)
    def test_accuracy_is_the_share_of_right_answers(self, answers: list[tuple[int, int]]) -> None:
        given_, right = torch.tensor(answers).T
        score = by_name("accuracy")(torch.nn.functional.one_hot(given_, 4).float(), right)
        assert score == pytest.approx(np.mean([a == b for a, b in answers]), abs=1e-6)

    def test_f1_is_the_mean_over_classes(self) -> None:
        # Class 0: one hit, one false alarm; class 1: one hit, one miss; class 2: one hit.
        assert by_name("f1")(LOGITS, LABELS) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-6)

    def test_errors_of_a_regression(self) -> None:
        outputs, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 4.0, 0.0])
        assert by_name("mean_squared_error")(outputs, labels) == pytest.approx(20 / 3)
        assert by_name("mean_absolute_error")(outputs, labels) == pytest.approx(2.0)

    def test_more_is_better_for_classes_and_less_for_errors(self) -> None:
        assert {name: (by_name(name).task, by_name(name).maximize) for name in NAMES} == {
            "accuracy": ("classification", True),
            "f1": ("classification", True),
            "mean_squared_error": ("regression", False),
            "mean_absolute_error": ("regression", False),
        }

    def test_scores_are_the_shortest_decimals_of_their_precision(self) -> None:
        outputs = torch.zeros((200, 2))
        outputs[:, 0] = 1.0
        labels = (torch.arange(200) < 3).long()
        assert by_name("accuracy")(outputs, labels) == 0.985

    def test_a_function_of_the_user_is_scored_as_it_answers(self) -> None:
        metric = Metric("worst", "regression", False, lambda outputs, labels: float((outputs - labels).abs().max()))
        assert metric(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])) == 3.0


class TestMisfits:
    def test_an_unknown_name_gets_a_suggestion(self) -> None:
        with pytest.raises(UsageError, match=r"unknown metric 'acuracy'; allowed: .*did you mean 'accuracy'"):
            by_name("acuracy")

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_score_that_is_not_finite_raises_trial_error(self, value: float) -> None:
        metric = Metric("broken", "regression", False, lambda outputs, labels: value)
        with pytest.raises(TrialError, match=f"the metric 'broken' is {value}"):
            metric(LOGITS, LABELS)

    def test_a_metric_that_raises_becomes_a_trial_error_with_the_shapes(self) -> None:
        with pytest.raises(
            TrialError, match=r"'accuracy' does not fit outputs of shape \(4, 3\) and labels of shape \(7,\)"
        ):
            by_name("accuracy")(LOGITS, torch.zeros(7, dtype=torch.int64))


class TestLoss:
    def test_classes_are_learned_with_cross_entropy(self) -> None:
        picked = torch.log_softmax(LOGITS, dim=1)[torch.arange(4), LABELS]
        assert float(by_name("f1").loss(LOGITS, LABELS.int())) == pytest.approx(-float(picked.mean()))

    def test_numbers_are_learned_with_squares_whatever_their_shape(self) -> None:
        loss = by_name("mean_absolute_error").loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
        assert float(loss) == pytest.approx((1 + 4) / 2)


class TestCheck:
    @pytest.mark.parametrize(
        ("outputs", "labels", "complaint"),
        [
            (LOGITS, torch.tensor([0, 1, 2, 3]), "labels run from 0 to 3, but the model has 3 outputs: 0 to 2 fit"),
            (LOGITS, torch.tensor([-1, 0, 1, 2]), "labels run from -1 to 2"),
            (LOGITS, torch.tensor([0.0, 1.0]), r"integer labels of shape \(N,\); given torch.float32"),
            (LOGITS, torch.zeros((4, 3), dtype=torch.int64), "integer labels"),
            (LOGITS[:, 0], LABELS, r"outputs of shape \(N, classes\); the model gives \(4,\)"),
        ],
    )
    def test_labels_that_are_no_classes_raise_data_error(
        self, outputs: torch.Tensor, labels: torch.Tensor, complaint: str
    ) -> None:
        with pytest.raises(DataError, match=complaint):
            by_name("accuracy").check(outputs, labels)

    def test_labels_that_do_not_fit_a_regression_raise_data_error(self) -> None:
        with pytest.raises(DataError, match=r"labels of shape \(2,\) do not fit outputs of \(3,\)"):
            by_name("mean_squared_error").check(LOGITS, torch.zeros((4, 2)))

    @given(CLASSES)
    def test_labels_that_fit_pass(self, answers: list[tuple[int, int]]) -> None:
        given_, right = torch.tensor(answers).T
        by_name("accuracy").check(torch.nn.functional.one_hot(given_, 4).float(), right)
        by_name("mean_squared_error").check(given_.float()[:, None], right)
        assert int(right.max()) < 4
