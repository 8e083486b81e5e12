"""The metrics of a job: of a name or a function, cross-validated, and of energy."""

from __future__ import annotations

from typing import Any

import pytest

from paretrim.evaluators import meters
from paretrim.search.metric import NamedMetric, OwnMetric
from paretrim.search.result import objectives_of

from .helper_job import a_job, again, mistakes


def a_metric(outputs: object, labels: object) -> float:
    return 0.0


def test_a_metric_of_ones_own_can_be_an_objective_and_a_constraint() -> None:
    job = a_job(metric="mine:psnr", objectives=["psnr", "size_bytes"], constraints=["psnr >= baseline - 1"])
    assert job.bounds[0].metric == "psnr"


@pytest.mark.parametrize(
    ("given", "metric"),
    [
        ("spearman", NamedMetric(name="spearman")),
        ({"name": "accuracy"}, NamedMetric(name="accuracy")),
        ({"name": "fbeta_score", "beta": 2.0, "average": "macro"}, NamedMetric(name="fbeta_score", beta=2.0, average="macro")),  # type: ignore[call-arg]
        ("mine:psnr", OwnMetric(function="mine:psnr")),
        ({"function": "mine:Scores.loss", "direction": "minimize"}, OwnMetric(function="mine:Scores.loss", direction="minimize")),
        ({"function": a_metric}, OwnMetric(function=f"{__name__}:a_metric")),
    ],
)  # fmt: skip
def test_a_metric_is_a_name_a_function_or_a_mapping(given: object, metric: NamedMetric | OwnMetric) -> None:
    job = a_job(metric=given)
    assert job.metric == metric
    assert job.objectives[0] == job.metric_name == metric.label
    assert again(job) == job


def test_a_metric_may_be_below_zero() -> None:
    assert a_job(metric="mine:log_likelihood", constraints=["log_likelihood <= -1"]).bounds


def test_all_that_is_wrong_with_a_metric_is_told_and_no_more() -> None:
    metric = {"name": "f1", "averge": "macro", "thresold": 0.5}
    assert set(mistakes(metric=metric, objectives=["f1", "latency"])) == {
        "metric.averge",
        "metric.thresold",
        "objectives.1",
    }
    own = {"function": "mine:psnr", "direction": "up"}
    assert set(mistakes(metric=own, objectives=["psnr", "latency"])) == {"metric.direction", "objectives.1"}


def test_a_wrong_metric_hides_no_mistake_of_the_objectives() -> None:
    assert set(mistakes(metric="acuracy", objectives=["accuracy", "latency"])) == {"metric", "objectives.1"}


@pytest.mark.parametrize(
    ("metric", "name"),
    [("accuracy", "accuracy_cv"), ("f1", "f1_cv"), (a_metric, "a_metric_cv")],
    ids=["accuracy", "f1", "own"],
)
def test_a_cross_validated_score_is_a_metric_only_where_it_is_asked_for(metric: object, name: str) -> None:
    asked = {"metric": metric, "objectives": [name, "latency_ms"], "constraints": [f"{name} >= baseline - 0.1"]}
    job = a_job(**asked, cross_validation=5)
    assert job.objectives == (name, "latency_ms")
    refused = mistakes(**asked)
    assert set(refused) == {"objectives.0", "constraints.0"}
    assert all(message.startswith(f"unknown metric '{name}'") for message in refused.values())


@pytest.mark.parametrize("count", [0, 1, 101, 2.5])
def test_cross_validation_needs_two_folds_at_least(count: float) -> None:
    assert f"given {count}" in mistakes(cross_validation=count)["cross_validation"]


def test_a_cross_validated_score_is_maximized_when_the_metric_is() -> None:
    job = a_job(cross_validation=5, objectives=["accuracy_cv", "latency_ms"])
    assert [(o.name, o.maximize) for o in objectives_of(job, maximize=True)] == [
        ("accuracy_cv", True),
        ("latency_ms", False),
    ]
    assert not any(o.maximize for o in objectives_of(job, maximize=False))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"objectives": ["accuracy", "energy_millijoules"]}, "objectives.1"),
        ({"constraints": ["energy_millijoules <= 5"]}, "constraints.0"),
    ],
)
def test_energy_is_refused_with_the_reason_where_there_is_no_meter(
    given: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "readable", list)
    message = mistakes(**given)[field]
    assert message == f"energy_millijoules cannot be measured on this machine: {meters.looked_for()}"
    assert "energy_millijoules" not in mistakes(objectives=["energy"])["objectives.0"]


def test_energy_is_a_metric_where_there_is_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "readable", lambda: [meters.Meter("a meter", lambda: 0.0)])
    assert a_job(objectives=["accuracy", "energy_millijoules"]).objectives[1] == "energy_millijoules"


def test_timings_have_noise_and_sizes_have_none() -> None:
    job = a_job()
    assert job.noise("latency_ms") > 0
    assert (job.noise("size_bytes"), job.noise("accuracy")) == (0.0, 0.0)
