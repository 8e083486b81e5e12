from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.errors import JobError
from paretrim.search.job import Job, impossible
from paretrim.spaces.pruning import PruningOptions
from paretrim.spaces.quantization import QuantizationOptions
from paretrim.spaces.recovery import RecoveryOptions
from paretrim.tracking.constraints import parse

from .helper_job import a_job, again, mistakes

TECHNIQUES = ["distillation", "pruning", "quantization", "recovery"]


def test_a_job_needs_only_a_model_and_data() -> None:
    job = a_job()
    assert job.objectives == ("accuracy", "latency_ms", "size_bytes", "memory_bytes")
    assert job.space == "auto"
    assert job.constraints == ()


def test_a_job_without_a_model_and_data_says_both() -> None:
    with pytest.raises(JobError) as caught:
        Job()
    assert [str(problem) for problem in caught.value.problems] == [
        "model: is required and missing",
        "data: is required and missing",
    ]


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes(
        nmae="x",
        metric="acuracy",
        space={"prunning": {}, "pruning": {"importance": "l3"}, "recovery": {"epochs": -1}},
        budget={"trails": 3, "minutes": 0},
        seed="many",
    )
    fields = {"nmae", "metric", "space.prunning", "space.pruning.importance", "space.recovery.epochs"}
    assert set(found) == fields | {"budget.trails", "budget.minutes", "seed"}


SUGGESTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"objectivs": []}, "objectivs", "objectives"),
    ({"metric": "acuracy"}, "metric", "accuracy"),
    ({"metric": {"name": "acuracy"}}, "metric.name", "accuracy"),
    ({"metric": {"name": "f1", "averge": "macro"}}, "metric.averge", "average"),
    ({"space": {"prunning": {}}}, "space.prunning", "pruning"),
    ({"space": {"recovery": {"epoch": 3}}}, "space.recovery.epoch", "epochs"),
    ({"budget": {"trails": 3}}, "budget.trails", "trials"),
    ({"target": {"thread": 2}}, "target.thread", "threads"),
    ({"target": {"runtime": "onxruntime"}}, "target.runtime", "onnxruntime"),
    ({"objectives": ["latency"]}, "objectives.0", "latency_ms"),
    ({"constraints": ["latncy_ms <= 5"]}, "constraints.0", "latency_ms"),
]


@pytest.mark.parametrize(("given", "field", "meant"), SUGGESTIONS, ids=[field for _, field, _ in SUGGESTIONS])
def test_a_misspelt_name_is_told_what_is_allowed_and_what_may_be_meant(
    given: dict[str, Any], field: str, meant: str
) -> None:
    message = mistakes(**given)[field]
    assert "allowed: " in message
    assert message.endswith(f"did you mean '{meant}'?")


WRONG_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"budget": {"trials": 0}}, "budget.trials", "input should be greater than or equal to 1; given 0"),
    ({"budget": {"trials": 2.5}}, "budget.trials", "given 2.5"),
    ({"budget": {"minutes": float("nan")}}, "budget.minutes", "given nan"),
    ({"target": {"threads": 0}}, "target.threads", "given 0"),
    ({"target": {"activations": "sgned"}}, "target.activations", "'unsigned' or 'signed'; given 'sgned'"),
    ({"target": {"runtime": "openvino", "optimization": "off"}}, "target.optimization", "'openvino' does not take"),
    ({"name": "my job"}, "name", "given 'my job'"),
    ({"seed": -1}, "seed", "greater than or equal to 0; given -1"),
    ({"export_tolerance": -0.1}, "export_tolerance", "given -0.1"),
    ({"model": "digits.model"}, "model", "'digits.model' is not an import path; write package.module:function"),
    ({"data": "digits:"}, "data", "'digits:' is not an import path"),
    ({"model": 5}, "model", "given 5"),
    ({"metric": "mine:not valid"}, "metric", "'mine:not valid' is not an import path"),
    ({"metric": 5}, "metric", "give the name of a metric, module:function, or a mapping with one of them"),
    ({"metric": {}}, "metric", "give the name of a metric, module:function, or a mapping with one of them"),
    ({"metric": {"name": 5}}, "metric.name", "given 5"),
    ({"metric": "roc"}, "metric", "no single number of which more or less is better in 'roc'"),
    ({"metric": "fbeta_score"}, "metric", "'fbeta_score' needs a value for beta"),
    ({"metric": {"name": "fbeta_score", "beta": -1}}, "metric.beta", "larger than 0, but got -1"),
    ({"metric": {"name": "f1", "average": "none"}}, "metric.average", "it gives 32 numbers, not one number"),
    ({"metric": {"name": "f1", "direction": "minimize"}}, "metric.direction", "is not an option of 'f1'; allowed"),
    ({"metric": {"function": "score"}}, "metric.function", "'score' is not an import path"),
    ({"metric": {"function": "m:f", "direction": "up"}}, "metric.direction", "'maximize' or 'minimize'; given 'up'"),
    ({"metric": {"function": "m:f", "name": "f"}}, "metric.name", "unknown key; allowed: function, direction"),
    ({"folder": "no-such-folder-here"}, "folder", "'no-such-folder-here' is not a folder"),
    ({"objectives": ["accuracy", "accuracy"]}, "objectives", "an objective is named twice: accuracy, accuracy"),
    (
        {"space": ["pruning"]},
        "space",
        "'auto', or a mapping of techniques with their settings, is needed; given ['pruning']",
    ),
    ({"space": {"pruning": {"ratio": [0.5, 0.2]}}}, "space.pruning", "the first must be the smaller"),
    ({"space": {"pruning": {"importance": "l3"}}}, "space.pruning.importance", "one of l1, l2, taylor"),
    ({"space": {"quantization": {"weight_bits": []}}}, "space.quantization.weight_bits", "is empty; name at least one"),
    ({"space": {"quantization": {"weight_bits": [9]}}}, "space.quantization.weight_bits.0", "given 9"),
    ({"space": {"recovery": {"learning_rate": [0.1, 0.1]}}}, "space.recovery", "the first must be the smaller"),
    ({"constraints": ["accuracy is good"]}, "constraints.0", "allowed: METRIC <= NUMBER"),
]


@pytest.mark.parametrize(("given", "field", "text"), WRONG_VALUES, ids=[f"{f} {t}" for _, f, t in WRONG_VALUES])
def test_a_wrong_value_is_told_what_was_given_or_allowed(given: dict[str, Any], field: str, text: str) -> None:
    assert text in mistakes(**given)[field]


def test_a_long_value_is_shortened_in_its_message() -> None:
    message = mistakes(seed="x" * 1000)["seed"]
    assert len(message) < 200
    assert message.endswith("...")


@pytest.mark.parametrize("off", ["off", False])
def test_a_technique_can_be_turned_off(off: object) -> None:
    job = a_job(space={"pruning": off})
    assert job.techniques["pruning"] is None
    assert job.techniques["recovery"] == RecoveryOptions()


@pytest.mark.parametrize("on", [True, None, {}, PruningOptions()])
def test_a_technique_without_settings_has_its_defaults(on: object) -> None:
    assert a_job(space={"pruning": on}).techniques["pruning"] == PruningOptions()


def test_none_among_the_bits_is_the_word() -> None:
    space = a_job(space={"quantization": {"weight_bits": [4, None]}}).techniques
    assert space["quantization"] == QuantizationOptions(weight_bits=(4, "none"))


IMPOSSIBLE = [
    (["accuracy >= 1.01"], "asks for accuracy of 1.01, and 1 is the most there is"),
    (["latency_ms <= 0"], "asks for latency_ms of at most 0, and it is always more than 0"),
    (["size_bytes <= -5"], "it is always more than 0"),
    (["accuracy >= 0.9", "accuracy <= 0.8"], "'accuracy >= 0.9' and 'accuracy <= 0.8' exclude each other"),
]


@pytest.mark.parametrize(("texts", "why"), IMPOSSIBLE)
def test_a_constraint_that_nothing_can_meet_is_refused(texts: list[str], why: str) -> None:
    assert why in mistakes(constraints=texts)["constraints"]


def test_constraints_that_leave_a_single_value_are_possible() -> None:
    assert len(a_job(constraints=["accuracy >= 0.9", "accuracy <= 0.9"]).bounds) == 2


@pytest.mark.parametrize(
    ("text", "baseline", "found"),
    [
        ("accuracy >= baseline + 0.05", {"accuracy": 0.97}, 1),
        ("accuracy >= baseline + 0.02", {"accuracy": 0.97}, 0),
        ("accuracy >= baseline + 0.05", {}, 0),
        ("latency_ms <= baseline - 3", {"latency_ms": 2.0}, 1),
        ("latency_ms <= baseline - 3", {"accuracy": 0.9}, 0),
    ],
)
def test_a_relative_constraint_is_judged_once_the_baseline_is_known(
    text: str, baseline: dict[str, float], found: int
) -> None:
    assert len(list(impossible([parse(text)], baseline))) == found


JOBS = [
    {},
    {"space": {"pruning": "off", "distillation": "off"}},
    {"space": dict.fromkeys(TECHNIQUES, "off")},
    {"space": {"pruning": {"ratio": [0.1, 0.5], "importance": "l1"}, "quantization": {"weight_bits": [None, 16]}}},
    {"metric": {"name": "fbeta_score", "beta": 2.0}, "objectives": ["fbeta_score"]},
    {"metric": {"function": "mine:psnr", "direction": "minimize"}},
    {"metric": "mine:psnr", "objectives": ["size_bytes", "psnr"], "constraints": ["psnr >= baseline - 1"]},
    {
        "budget": {"trials": 7, "minutes": 1.5, "parallel": 3, "trial_minutes": 0.5},
        "storage": {"tracking": "http://x:5000"},
    },
    {"target": {"threads": 4, "batch_size": 8}, "seed": 5, "name": "other.name-1", "export_tolerance": 0.5},
    {"also": [{"runtime": "openvino", "name": "ov"}, {"activations": "signed", "name": "s"}], "cross_validation": 3},
]


@pytest.mark.parametrize("given", JOBS, ids=str)
def test_a_job_reads_back_from_json_as_it_was(given: dict[str, Any]) -> None:
    job = a_job(**given)
    assert again(job) == job


@pytest.mark.parametrize("given", JOBS, ids=str)
def test_another_budget_changes_nothing_else(given: dict[str, Any]) -> None:
    job = a_job(**given)
    changed = job.with_budget({"trials": 99})
    assert changed.budget.trials == 99
    assert changed.model_dump(exclude={"budget"}) == job.model_dump(exclude={"budget"})
    assert changed.space == job.space
    assert changed.budget.model_dump(exclude={"trials"}) == job.budget.model_dump(exclude={"trials"})


def test_no_change_of_the_budget_gives_the_job_itself() -> None:
    job = a_job()
    assert job.with_budget({}) is job


def test_a_budget_that_is_no_budget_is_refused() -> None:
    with pytest.raises(JobError, match=r"budget\.trials"):
        a_job().with_budget({"trials": 0})


def test_the_identity_ignores_the_budget_and_where_things_lie(tmp_path: Path) -> None:
    moved = a_job(budget={"trials": 3}, folder=str(tmp_path), storage={"tracking": "http://x:1"}, name="other")
    assert moved.identity() == a_job().identity()


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 1},
        {"also": [{"name": "signed", "activations": "signed"}]},
        {"cross_validation": 3},
        {"space": {"pruning": "off"}},
        {"objectives": ["accuracy"]},
        {"constraints": ["accuracy >= 0.5"]},
        {"metric": {"name": "accuracy", "top_k": 5}},
    ],
    ids=str,
)
def test_the_identity_tells_what_would_make_trials_different(given: dict[str, Any]) -> None:
    assert a_job(**given).identity() != a_job().identity()


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        a_job().seed = 5


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(Job.model_fields)


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), ANYTHING, max_size=4))
def test_anything_is_either_a_job_or_a_list_of_mistakes(given: dict[str, Any]) -> None:
    try:
        job = a_job(**given)
    except JobError as error:
        assert error.problems
    else:
        assert job.objectives


@given(st.sampled_from(TECHNIQUES), ANYTHING)
def test_any_settings_of_a_technique_are_either_settings_or_mistakes(name: str, settings: object) -> None:
    try:
        job = a_job(space={name: settings})
    except JobError as error:
        assert all(problem.location[:2] == ("space", name) for problem in error.problems)
    else:
        assert name in job.space


def test_budgets_can_be_changed_together() -> None:
    job = a_job(budget={"training_seconds": 60, "patience": 9}).with_budget({"trials": 99})
    assert (job.budget.training_seconds, job.budget.patience, job.budget.trials) == (60.0, 9, 99)


@pytest.mark.parametrize("given", [[1], True, 1.5])
def test_an_output_is_a_name_or_a_position(given: object) -> None:
    with pytest.raises(JobError, match="the name of an output, or its position from 0, is needed") as caught:
        Job(model="tiny:model", data="tiny:data", output=given)
    assert len(caught.value.problems) == 1
