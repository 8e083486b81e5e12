"""Metrics by name and of one's own, against scikit-learn, scipy and their definitions."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from paretrim.errors import DataError, TrialError, UsageError
from paretrim.evaluators.metrics import Metric, by_name
from paretrim.evaluators.tasks import PADDING, Task

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 1])
CLASSES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50)
RANDOM = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=RANDOM)


# Outputs of a model that is right more often than not.
MULTICLASS = (normal(200, 4), torch.randint(4, (200,), generator=RANDOM))
MULTICLASS[0][torch.arange(200), MULTICLASS[1]] += 1.0
BINARY = (normal(200, 1), torch.randint(2, (200,), generator=RANDOM))
BINARY[0][:, 0] += BINARY[1]
MULTILABEL = (normal(200, 5), torch.randint(2, (200, 5), generator=RANDOM))
NUMBERS = (normal(200, 1), normal(200))
NUMBERS[0][:, 0] += NUMBERS[1]
TOKENS = (normal(20, 6, 4), torch.randint(4, (20, 6), generator=RANDOM))
TOKENS[0].scatter_add_(2, TOKENS[1][..., None], torch.full((20, 6, 1), 3.0))
TOKENS[1][:5, 3:] = PADDING
PIXELS = (normal(12, 3, 5, 4), torch.randint(3, (12, 5, 4), generator=RANDOM))
PIXELS[0].scatter_add_(1, PIXELS[1][:, None], torch.full((12, 1, 5, 4), 3.0))
PIXELS[1][:3, 2:] = PADDING
MASKS = (normal(12, 1, 5, 4), torch.randint(2, (12, 5, 4), generator=RANDOM))
MASKS[0][:, 0] += 2 * MASKS[1]
ITEMS = (normal(40, 8), torch.randint(2, (40, 8), generator=RANDOM))
ITEMS[1][:, 0] = 1

Pair = tuple[torch.Tensor, torch.Tensor]


def softmax(outputs: torch.Tensor) -> Any:
    return outputs.double().softmax(dim=-1).numpy()


def reciprocal_rank(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    order = outputs.argsort(dim=1, descending=True)
    return float((1.0 / (labels.gather(1, order).argmax(dim=1) + 1)).mean())


def kept(labels: torch.Tensor, outputs: torch.Tensor) -> tuple[Any, Any]:
    """Return the labels and best classes of the tokens that are no padding."""
    real = labels != PADDING
    return labels[real].numpy(), outputs.argmax(dim=2)[real].numpy()


SCORES: list[tuple[str, Pair, Callable[[torch.Tensor, torch.Tensor], float]]] = [
    ("accuracy", MULTICLASS, lambda o, y: reference.accuracy_score(y, o.argmax(1))),
    ("f1", MULTICLASS, lambda o, y: reference.f1_score(y, o.argmax(1), average="macro")),
    ("auroc", MULTICLASS, lambda o, y: reference.roc_auc_score(y, softmax(o), multi_class="ovr")),
    ("matthews_corrcoef", MULTICLASS, lambda o, y: reference.matthews_corrcoef(y, o.argmax(1))),
    ("cohen_kappa", MULTICLASS, lambda o, y: reference.cohen_kappa_score(y, o.argmax(1))),
    ("jaccard_index", MULTICLASS, lambda o, y: reference.jaccard_score(y, o.argmax(1), average="macro")),
    ("hamming_distance", MULTICLASS, lambda o, y: reference.hamming_loss(y, o.argmax(1))),
    ("accuracy", BINARY, lambda o, y: reference.accuracy_score(y, o[:, 0] > 0)),
    ("auroc", BINARY, lambda o, y: reference.roc_auc_score(y, o[:, 0])),
    ("average_precision", BINARY, lambda o, y: reference.average_precision_score(y, o[:, 0])),
    ("specificity", BINARY, lambda o, y: reference.recall_score(1 - y, o[:, 0] <= 0)),
    ("f1", MULTILABEL, lambda o, y: reference.f1_score(y, o > 0, average="macro")),
    ("exact_match", MULTILABEL, lambda o, y: reference.accuracy_score(y, o > 0)),
    ("auroc", MULTILABEL, lambda o, y: reference.roc_auc_score(y, o, average="macro")),
    ("accuracy", PIXELS, lambda o, y: reference.accuracy_score(*kept(y.flatten(1), o.flatten(2).mT))),
    ("iou", PIXELS, lambda o, y: reference.jaccard_score(*kept(y.flatten(1), o.flatten(2).mT), average="macro")),
    ("accuracy", MASKS, lambda o, y: reference.accuracy_score(y.flatten(), (o > 0).long().flatten())),
    ("iou", MASKS, lambda o, y: reference.jaccard_score(y.flatten(), (o > 0).long().flatten())),
    ("accuracy", TOKENS, lambda o, y: reference.accuracy_score(*kept(y, o))),
    ("f1", TOKENS, lambda o, y: reference.f1_score(*kept(y, o), average="macro")),
    ("exact_match", TOKENS, lambda o, y: float(((o.argmax(2) == y) | (y == PADDING)).all(1).float().mean())),
    ("hamming_distance", TOKENS, lambda o, y: reference.hamming_loss(*kept(y, o))),
    (
        "perplexity",
        TOKENS,
        lambda o, y: math.exp(torch.nn.functional.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=PADDING)),
    ),
    ("mean_squared_error", NUMBERS, lambda o, y: reference.mean_squared_error(y, o[:, 0])),
    ("r2_score", NUMBERS, lambda o, y: reference.r2_score(y, o[:, 0])),
    ("explained_variance", NUMBERS, lambda o, y: reference.explained_variance_score(y, o[:, 0])),
    ("spearman", NUMBERS, lambda o, y: stats.spearmanr(y, o[:, 0]).statistic),
    ("pearson_corr_coef", NUMBERS, lambda o, y: stats.pearsonr(y, o[:, 0]).statistic),
    ("kendall", NUMBERS, lambda o, y: stats.kendalltau(y, o[:, 0]).statistic),
    ("ndcg", ITEMS, lambda o, y: reference.ndcg_score(y, o)),
    ("mrr", ITEMS, reciprocal_rank),
]


class TestScores:
    @pytest.mark.parametrize(("name", "pair", "expected"), SCORES, ids=[f"{n} {p[0].shape[1:]}" for n, p, _ in SCORES])
    def test_a_score_is_what_others_compute(
        self, name: str, pair: Pair, expected: Callable[[torch.Tensor, torch.Tensor], float]
    ) -> None:
        assert by_name(name)(*pair) == pytest.approx(expected(*pair), abs=1e-5)

    @given(CLASSES)
    def test_accuracy_is_the_share_of_right_answers(self, answers: list[tuple[int, int]]) -> None:
        given_, right = torch.tensor(answers).T
        score = by_name("accuracy")(torch.nn.functional.one_hot(given_, 4).float(), right)
        assert score == pytest.approx(np.mean([a == b for a, b in answers]), abs=1e-6)

    def test_f1_is_the_mean_over_classes(self) -> None:
        # Class 0: one hit, one false alarm; class 1: one hit, one miss; class 2: one hit.
        assert by_name("f1")(LOGITS, LABELS) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-6)

    @pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
    def test_outputs_are_logits_whatever_they_look_like(self, scale: float) -> None:
        outputs = torch.tensor([[0.1], [0.9], [0.4], [0.8]]) * scale
        # As probabilities two of them would be a no.
        assert by_name("accuracy")(outputs, torch.tensor([1, 1, 1, 1])) == 1.0
        assert by_name("recall")(outputs, torch.tensor([1, 1, 1, 1])) == 1.0

    def test_options_are_those_of_torchmetrics(self) -> None:
        outputs, labels = MULTICLASS
        weighted = by_name("fbeta_score", {"beta": 2.0, "average": "weighted"})
        expected = reference.fbeta_score(labels, outputs.argmax(1), beta=2.0, average="weighted")
        assert weighted(outputs, labels) == pytest.approx(expected, abs=1e-5)
        best_two = by_name("accuracy", {"top_k": 2})(outputs, labels)
        assert best_two == pytest.approx(reference.top_k_accuracy_score(labels, outputs, k=2), abs=1e-6)

    def test_scores_are_the_shortest_decimals_of_their_precision(self) -> None:
        outputs = torch.zeros((200, 2))
        outputs[:, 0] = 1.0
        labels = (torch.arange(200) < 3).long()
        assert by_name("accuracy")(outputs, labels) == 0.985

    def test_a_function_of_the_user_is_scored_as_it_answers(self) -> None:
        metric = Metric("worst", False, lambda outputs, labels: float((outputs - labels).abs().max()))
        assert metric(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])) == 3.0

    @pytest.mark.parametrize(("name", "pair", "_"), SCORES, ids=[f"{n} {p[0].shape[1:]}" for n, p, _ in SCORES])
    def test_what_samples_add_makes_the_score(self, name: str, pair: Pair, _: object) -> None:
        means = by_name(name).means(*pair)
        if means is not None:
            assert means.at(np.arange(len(pair[1]))) == pytest.approx(by_name(name)(*pair), abs=1e-6)
            half = np.arange(0, len(pair[1]), 2)
            assert means.at(half) == pytest.approx(by_name(name)(pair[0][half], pair[1][half]), abs=1e-6)

    def test_metrics_are_handed_to_other_processes(self) -> None:
        metric = by_name("fbeta_score", {"beta": 2.0})
        metric(*MULTICLASS)
        copy = pickle.loads(pickle.dumps(metric))
        assert copy == metric
        assert copy(*MULTICLASS) == metric(*MULTICLASS)


class TestTasks:
    @pytest.mark.parametrize(
        ("pair", "task"),
        [
            (MULTICLASS, Task.MULTICLASS),
            ((LOGITS[:, :2], LABELS), Task.MULTICLASS),
            (BINARY, Task.BINARY),
            ((BINARY[0][:, 0], BINARY[1][:, None] > 0), Task.BINARY),
            (MULTILABEL, Task.MULTILABEL),
            (TOKENS, Task.TOKENS),
            (PIXELS, Task.DENSE),
            (MASKS, Task.BINARY),
            ((MASKS[0], MASKS[1][:, None]), Task.BINARY),
            (NUMBERS, Task.REGRESSION),
            ((normal(5, 3, 2), normal(5, 3, 2)), Task.REGRESSION),
        ],
    )
    def test_the_task_follows_from_shapes_and_types(self, pair: Pair, task: Task) -> None:
        assert Metric("own", True, lambda outputs, labels: 0.0).task(*pair) is task

    def test_the_metric_decides_where_shapes_leave_it_open(self) -> None:
        assert by_name("accuracy").task(*ITEMS) is Task.MULTILABEL
        assert by_name("ndcg").task(*ITEMS) is Task.RANKING
        assert by_name("mean_squared_error").task(*BINARY) is Task.REGRESSION


class TestNames:
    @pytest.mark.parametrize(
        ("names", "maximize"),
        [
            (["f1", "f1_score"], True),
            (["fbeta", "fbeta_score", "f_beta_score"], True),
            (["spearman", "spearman_corrcoef", "spearman_corr_coef"], True),
            (["kendall", "kendall_rank_corr_coef"], True),
            (["r2", "r2_score"], True),
            (["mean_squared_error"], False),
            (["perplexity"], False),
            (["calibration_error"], False),
            (["specificity", "pearson_corr_coef", "ndcg", "mrr", "map"], True),
        ],
    )
    def test_spellings_of_a_name_are_one_metric_with_its_direction(self, names: list[str], maximize: bool) -> None:
        options = {"beta": 1.0} if names[0] == "fbeta" else None
        assert [by_name(name, options).maximize for name in names] == [maximize] * len(names)
        assert [by_name(name, options).name for name in names] == names

    @pytest.mark.parametrize(
        ("name", "meant"), [("acuracy", "accuracy"), ("spearmn", "spearman"), ("f1_scor", "f1_score")]
    )
    def test_an_unknown_name_gets_a_suggestion(self, name: str, meant: str) -> None:
        with pytest.raises(UsageError, match=rf"unknown metric '{name}'; allowed: .*did you mean '{meant}'"):
            by_name(name)

    @pytest.mark.parametrize("name", ["roc", "confusion_matrix", "precision_recall_curve", "stat_scores"])
    def test_what_is_not_one_number_that_can_be_compared_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match=f"no single number of which more or less is better in '{name}'; allowed:"):
            by_name(name)

    @pytest.mark.parametrize(
        ("name", "options", "complaint"),
        [
            ("fbeta_score", {}, "'fbeta_score' needs a value for beta"),
            ("fbeta_score", {"beta": "two"}, "beta: .*`beta` to be a float larger than 0, but got two"),
            ("f1", {"averge": "macro"}, "averge: is not an option of 'f1'; allowed: average, .*mean 'average'"),
            ("f1", {"num_classes": 3}, "num_classes: is not an option of 'f1'"),
            ("f1", {"average": "none"}, "average: it gives 32 numbers, not one number"),
            ("kendall", {"t_test": True}, "t_test: it gives a tuple, not one number"),
            ("f1", {"threshold": 0.3, "top_k": 2}, "threshold and top_k are options of 'f1' for different kinds"),
        ],
    )
    def test_options_that_do_not_do_are_told(self, name: str, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(UsageError, match=complaint):
            by_name(name, options)

    def test_common_names_do_not_wait_for_torchmetrics(self) -> None:
        code = (
            "import sys; from paretrim.search.job import Job; Job(model='m:m', data='m:d', metric='f1'); "
            "print('torchmetrics' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"


class TestMisfits:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_score_that_is_not_finite_raises_trial_error(self, value: float) -> None:
        metric = Metric("broken", False, lambda outputs, labels: value)
        with pytest.raises(TrialError, match=f"the metric 'broken' is {value}, though all outputs are finite"):
            metric(LOGITS, LABELS)

    def test_outputs_that_are_not_finite_are_blamed_on_the_model(self) -> None:
        with pytest.raises(TrialError, match="the model's outputs are NaN or infinite"):
            by_name("accuracy")(LOGITS * math.nan, LABELS)

    def test_a_correlation_of_equal_answers_is_not_defined(self) -> None:
        with pytest.raises(TrialError, match="the metric 'pearson_corr_coef' is nan, though all outputs are finite"):
            by_name("pearson_corr_coef")(torch.ones(5, 1), torch.arange(5.0))

    def test_an_area_of_one_class_is_not_defined(self) -> None:
        with pytest.raises(DataError, match=r"'auroc' does not fit .*: No negative samples in targets"):
            by_name("auroc")(torch.rand(5, 1), torch.ones(5, dtype=torch.int64))

    @pytest.mark.parametrize(
        ("name", "outputs", "labels", "taken"),
        [
            ("accuracy", LOGITS, torch.zeros(7, dtype=torch.int64), "outputs (N, classes) with integer labels (N,)"),
            ("accuracy", LOGITS, torch.zeros(4), "outputs (N,) or (N, 1) with labels (N,) of 0 and 1"),
            ("perplexity", LOGITS, LABELS, "outputs (N, positions, classes) with integer labels (N, positions)"),
            ("spearman", LOGITS, LABELS.float(), "outputs and labels of as many numbers per sample"),
            ("ndcg", LOGITS, LABELS, "outputs (N, items) with the items' relevance (N, items)"),
        ],
    )
    def test_a_metric_that_does_not_fit_tells_shapes_and_types_and_what_it_takes(
        self, name: str, outputs: torch.Tensor, labels: torch.Tensor, taken: str
    ) -> None:
        with pytest.raises(DataError) as caught:
            by_name(name)(outputs, labels)
        found = f"'{name}' does not fit outputs of shape (4, 3) (torch.float32) with labels of shape"
        assert str(caught.value).startswith(f"{found} {tuple(labels.shape)} ({labels.dtype}); it takes ")
        assert taken in str(caught.value)

    def test_several_correlations_are_not_one_number(self) -> None:
        with pytest.raises(DataError, match="'spearman' does not fit outputs of shape"):
            by_name("spearman")(LOGITS, LOGITS.flip(0))


class TestLoss:
    def test_classes_are_learned_with_cross_entropy(self) -> None:
        picked = torch.log_softmax(LOGITS, dim=1)[torch.arange(4), LABELS]
        assert float(by_name("f1").loss(LOGITS, LABELS.int())) == pytest.approx(-float(picked.mean()))

    @pytest.mark.parametrize(
        "pair", [BINARY, (BINARY[0][:, 0], BINARY[1]), MULTILABEL], ids=["(N, 1)", "(N,)", "(N, L)"]
    )
    def test_yes_and_no_are_learned_from_logits(self, pair: Pair) -> None:
        outputs, labels = pair
        chance = outputs.sigmoid().reshape(labels.shape)
        expected = -torch.where(labels == 1, chance, 1 - chance).log().mean()
        assert float(by_name("auroc").loss(outputs, labels)) == pytest.approx(float(expected), rel=1e-5)

    def test_tokens_are_learned_but_for_the_padding(self) -> None:
        outputs, labels = TOKENS
        assert math.exp(by_name("perplexity").loss(outputs, labels)) == pytest.approx(by_name("perplexity")(*TOKENS))

    def test_rankings_are_learned_from_shares_of_relevance(self) -> None:
        outputs, labels = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 1.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]])
        chance = outputs.softmax(dim=1)
        expected = -(chance[0, 0].log() / 2 + chance[0, 1].log() / 2) / 2
        assert float(by_name("ndcg").loss(outputs, labels)) == pytest.approx(float(expected))

    def test_numbers_are_learned_with_squares_whatever_their_shape(self) -> None:
        loss = by_name("mean_absolute_error").loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
        assert float(loss) == pytest.approx((1 + 4) / 2)


class TestCheck:
    @pytest.mark.parametrize(
        ("name", "outputs", "labels", "complaint"),
        [
            ("f1", LOGITS, [0, 1, 2, 3], "labels run from 0 to 3, but the model has 3 outputs: 0 to 2 fit"),
            ("f1", LOGITS, [-1, 0, 1, 2], "labels run from -1 to 2"),
            ("f1", LOGITS, [0.0, 1.0], r"with labels of shape \(1,\) \(torch.float32\).*; .* as integers: labels.long"),
            ("f1", LOGITS[:, :1], [0, 1, 2], "labels run from 0 to 2, but each .* yes or no: 0 and 1 fit"),
            ("f1", LOGITS, [[0, 1, 3]], "labels run from 0 to 3, but each .* yes or no"),
            ("f1", TOKENS[0], [[0, 1, 2, 3, -100, 4]], "labels run from 0 to 4, but the model has 4 outputs: 0 to 3"),
            ("ndcg", LOGITS, [[0.5, 1.0, -1.0]], "labels run from -1.0 to 1.0, but relevance is 0 or more"),
            ("mean_squared_error", LOGITS, [[0.5, math.nan, -1.0]], "labels are NaN or infinite"),
            ("mean_squared_error", LOGITS, [[0.5, 1.0]], r"does not fit outputs of shape \(1, 3\)"),
        ],
    )
    def test_labels_that_do_not_fit_raise_data_error(
        self, name: str, outputs: torch.Tensor, labels: list[Any], complaint: str
    ) -> None:
        with pytest.raises(DataError, match=complaint):
            by_name(name).check(outputs, torch.tensor(labels))

    @given(CLASSES)
    def test_labels_that_fit_pass(self, answers: list[tuple[int, int]]) -> None:
        given_, right = torch.tensor(answers).T
        by_name("accuracy").check(torch.nn.functional.one_hot(given_, 4).float(), right)
        by_name("mean_squared_error").check(given_.float()[:, None], right)
        assert int(right.max()) < 4
