"""Searches of models of each kind of question, told from the shapes of outputs and labels: a smaller file answers as well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from paretrim.search import api
from paretrim.search.verify import verify

from .conftest import tiny_job


@dataclass(frozen=True)
class Question:
    """A kind of question.

    Attributes:
        name: Of the functions in tests/subjects/questions.py.
        metric: Of the job.
        good: What the baseline reaches on validation data.
        loss: How much worse a model of at most a quarter of the size may be.
    """

    name: str
    metric: str
    good: float
    loss: float = 0.02


QUESTIONS = (
    Question("numbers", "r2", 0.4),
    Question("dollars", "r2", 0.4),
    Question("pixels", "iou", 0.8),
    Question("labels", "f1", 0.93),
    Question("yes_or_no", "auroc", 0.97),
    Question("tokens", "accuracy", 0.9),
    Question("ranks", "ndcg", 0.95),
)


@pytest.mark.slow
@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda each: each.name)
def test_a_quarter_of_the_size_answers_as_well(one_ray: None, asked: Question, tmp_path: Path) -> None:
    job = tiny_job(
        name=asked.name,
        model=f"questions:for_{asked.name}",
        data=f"questions:{asked.name}",
        metric=asked.metric,
        storage={"folder": str(tmp_path)},
        space={"quantization": {"weight_bits": [4, 8]}, "recovery": {"epochs": 2}, "pruning": {"ratio": [0.0, 0.25]}},
        groups="global",
        search={"finals": {"points": 0}},
    )
    result = api.search(job)
    report, metric = result.require_report(), result.job.metric_name
    assert [record.cause for record in result.records if record.state == "failed"] == []
    baseline = report.baseline.validation[metric]
    assert baseline > asked.good
    small = result.pick("lexicographic", order=[metric], where="size_bytes <= 25% of baseline")
    assert small.validation[metric] > baseline - asked.loss
    result.export(tmp_path / "bundle", trial=small.trial)
    assert verify(tmp_path / "bundle").holds
