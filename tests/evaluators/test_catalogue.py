"""The names of metrics: that the documented ones are those that are found, and that each of them works."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from paretrim.evaluators import catalogue
from paretrim.evaluators.bootstrap import interval
from paretrim.evaluators.metrics import by_name
from paretrim.evaluators.tasks import Task

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
NEEDED: dict[str, dict[str, Any]] = {
    "f_beta_score": {"beta": 0.5},
    "minkowski_distance": {"p": 3},
    "critical_success_index": {"threshold": 0.5},
}


def documented() -> list[str]:
    table = DOCS.read_text().partition("<!-- the names -->")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[3:] for name in re.findall(r"\w+", row.split("|")[2])]


def examples() -> dict[Task, tuple[torch.Tensor, torch.Tensor]]:
    """Return outputs of a fair model and labels for each task: 40 samples."""
    random = torch.Generator().manual_seed(3)
    noise, classes = torch.randn((40, 6), generator=random), torch.randint(6, (40,), generator=random)
    bits, tokens = torch.randint(2, (40, 6), generator=random), torch.randint(6, (40, 4), generator=random)
    one_hot = torch.nn.functional.one_hot
    positive = torch.rand((40,), generator=random) + 0.5
    return {
        Task.MULTICLASS: (noise + one_hot(classes, 6), classes),
        Task.BINARY: (noise[:, :1] + bits[:, :1], bits[:, 0]),
        Task.MULTILABEL: (noise + bits, bits),
        Task.TOKENS: (noise[:, None] + 3 * one_hot(tokens, 6), tokens),
        Task.DENSE: ((noise[:, None] + 3 * one_hot(tokens, 6)).movedim(2, 1), tokens),
        Task.REGRESSION: (positive[:, None] + noise[:, :1] / 10, positive),
        Task.RANKING: (noise + bits, bits),
    }


EXAMPLES = examples()


def test_the_documented_names_are_those_that_are_found() -> None:
    assert sorted(documented()) == list(catalogue.names())


@pytest.mark.parametrize("name", documented())
def test_each_documented_name_works_wherever_it_is_offered(name: str) -> None:
    metric = by_name(name, NEEDED.get(name))
    offered = catalogue.tasks(name, NEEDED.get(name, {}))
    assert offered
    for task in offered:
        pair = EXAMPLES[task]
        if name == "cosine_similarity":
            pair = (pair[0].repeat(1, 3), pair[1][:, None].repeat(1, 3))
        assert metric.task(*pair) is task
        assert math.isfinite(metric(*pair))


@pytest.mark.parametrize("name", ["accuracy", "auroc", "ndcg", "retrieval_auroc", "spearman"])
def test_a_better_model_scores_better(name: str) -> None:
    metric = by_name(name)
    task = next(task for task in Task if task in catalogue.tasks(catalogue.find(name) or "", {}))
    outputs, labels = EXAMPLES[task]
    assert metric(outputs, labels) > metric(-outputs, labels)


@pytest.mark.parametrize("scale", [0.001, 1.0, 1000.0])
@pytest.mark.parametrize("name", ["ndcg", "mrr", "retrieval_auroc", "map"])
def test_a_ranking_is_of_the_order_of_scores_alone(name: str, scale: float) -> None:
    outputs, labels = EXAMPLES[Task.RANKING]
    expected = by_name(name)(outputs, labels)
    assert by_name(name)(outputs * scale - 100 * scale, labels) == pytest.approx(expected, abs=0.01)


def test_the_mean_over_rankings_has_an_interval_of_its_rows() -> None:
    outputs, labels = EXAMPLES[Task.RANKING]
    found = interval(by_name("mrr"), outputs, labels)
    rows = catalogue.by_row("mrr", {}, (outputs, labels))
    assert found.value == pytest.approx(float(rows.mean()), abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(rows.std()) / math.sqrt(40), rel=0.15)
