from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from paretrim.errors import ArtifactError, NothingFoundError, UnknownJobError, UsageError
from paretrim.search import searched
from paretrim.search.job import Job
from paretrim.search.result import Result, artifact_of, open_result
from paretrim.search.store import Store
from paretrim.search.study import SCHEMA
from paretrim.spaces.dimension import Choice, Condition, Range
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import SPACE, a_search

COSTS = ("latency_ms", "size_bytes", "memory_bytes")


def a_record(number: int, accuracy: float, latency_ms: float, size: float = 1000.0, **more: float) -> TrialRecord:
    return sample_record(
        number,
        more,
        accuracy=accuracy,
        latency_ms=latency_ms,
        size_bytes=size,
        memory_bytes=size * 10,
        model_bytes=size * 3,
        latency_ratio=latency_ms / 2.0,
    )


# Trials 3, 4 and 5 are on the front, and so is the baseline; 6 is beaten by 4, and 7 failed.
RECORDS = [
    a_record(0, 0.90, 2.0, 9000.0),
    a_record(3, 0.895, 1.0, 4000.0),
    a_record(4, 0.885, 0.5, 3000.0),
    a_record(5, 0.80, 0.2, 1000.0),
    a_record(6, 0.88, 0.9, 5000.0),
    sample_record(7, state="failed", cause="the training loss is nan"),
]


def a_job(**given: Any) -> Job:
    return Job(**{"name": "digits", "model": "mine:model", "data": "mine:data", **given})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return a_search(Store(tmp_path_factory.mktemp("store")), RECORDS, a_job())


def found(store: Path, *records: TrialRecord, **job: Any) -> Result:
    return a_search(Store(store), list(records), a_job(**job))


def test_the_front_is_as_these_tests_need_it(result: Result) -> None:
    assert [row.trial for row in result.require_report().front] == [0, 3, 4, 5]


def test_by_default_the_fastest_within_a_point_of_the_baseline_is_picked(result: Result) -> None:
    assert result.pick().trial == 3


def test_a_point_of_the_baseline_is_measured_against_the_baseline_and_not_the_best(tmp_path: Path) -> None:
    better = found(tmp_path, a_record(0, 0.9, 2.0), a_record(3, 0.99, 1.9), a_record(4, 0.891, 0.5))
    assert better.pick().trial == 4


def test_of_points_that_are_as_fast_the_smallest_is_picked(tmp_path: Path) -> None:
    alike = [a_record(0, 0.9, 2.0, 9000.0), a_record(3, 0.9, 2.001, 5000.0), a_record(4, 0.9, 2.002, 4000.0)]
    assert found(tmp_path, *alike).pick().trial == 4


def test_times_are_compared_by_what_was_timed_in_turns_with_the_baseline(tmp_path: Path) -> None:
    # An hour later the machine was slower, and the baseline in the same minute too.
    later = sample_record(
        3, accuracy=0.9, latency_ms=2.2, size_bytes=5000.0, memory_bytes=5e4, model_bytes=1.5e4, latency_ratio=0.7
    )
    assert found(tmp_path, a_record(0, 0.9, 2.0, 9000.0), later).pick().trial == 3


def test_another_metric_can_be_minimized(tmp_path: Path) -> None:
    choices = found(tmp_path, RECORDS[0], a_record(3, 0.9, 0.5, 5000.0), a_record(4, 0.9, 0.7, 2000.0))
    assert choices.pick().trial == 3
    assert choices.pick(minimize="size_bytes").trial == 4


@pytest.mark.parametrize(
    ("where", "trial"),
    [
        ("accuracy >= baseline - 0.02", 4),
        ("accuracy >= baseline", 0),
        ("accuracy >= 0", 5),
        ("size_bytes >= 50% of baseline", 0),
        ("size_bytes >= 3500", 3),
        ("memory_bytes <= 1e9", 5),
        ("model_bytes >= 12000", 3),
    ],
)
def test_a_condition_decides_who_comes_into_question(result: Result, where: str, trial: int) -> None:
    assert result.pick(where=where).trial == trial


def test_a_row_has_what_an_export_needs(result: Result) -> None:
    row = result.pick()
    assert row.sha256 == RECORDS[1].sha256
    assert row.validation == {"accuracy": 0.895}
    assert row.ratio["latency_ms"] == 0.5


def test_held_out_scores_do_not_sway_the_choice(tmp_path: Path) -> None:
    choices = found(tmp_path, *RECORDS)
    choices.keep_test_scores({RECORDS[0].sha256: 0.9, RECORDS[1].sha256: 0.1, RECORDS[2].sha256: 0.99})
    assert choices.pick().trial == 3
    assert choices.pick().test == {"accuracy": 0.1}


@pytest.mark.parametrize(
    "asked",
    [{"minimize": "latncy_ms"}, {"where": "latncy_ms <= 5"}, {"minimize": "size_bytes", "where": "latncy_ms < 1"}],
)
def test_an_unknown_metric_is_told_what_is_allowed_and_what_may_be_meant(result: Result, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'latncy_ms'.*allowed: accuracy, ") as caught:
        result.pick(**asked)  # type: ignore[arg-type]
    assert str(caught.value).endswith("did you mean 'latency_ms'?")
    assert all(cost in str(caught.value) for cost in COSTS)


def test_a_condition_that_cannot_be_read_is_told_the_allowed_forms(result: Result) -> None:
    with pytest.raises(UsageError, match="cannot read the constraint 'fast'; allowed: METRIC"):
        result.pick(where="fast")


@pytest.mark.parametrize(
    ("where", "nearest"),
    [
        ("accuracy >= 0.95", "the nearest is trial 0 with accuracy 0.9, and the bound is 0.95"),
        ("latency_ms <= 5% of baseline", "the nearest is trial 5 with latency_ms 0.2, and the bound is 0.1"),
    ],
)
def test_when_no_point_meets_the_condition_the_nearest_is_told(result: Result, where: str, nearest: str) -> None:
    with pytest.raises(NothingFoundError) as caught:
        result.pick(where=where)
    assert str(caught.value) == f"no point of the front of digits-1 meets '{where}'; {nearest}"


def test_a_trial_can_be_named_that_is_not_on_the_front(result: Result) -> None:
    row = result.pick(trial=6)
    assert (row.trial, row.validation) == (6, {"accuracy": 0.88})


def test_the_baseline_can_be_named(result: Result) -> None:
    assert result.pick(trial=0).kind == "baseline"


def test_a_failed_trial_is_refused_with_its_cause(result: Result) -> None:
    with pytest.raises(UsageError, match=r"trial 7 of digits-1 failed, so it has nothing to export: .* loss is nan"):
        result.pick(trial=7)


@pytest.mark.parametrize("trial", [8, -1])
def test_a_trial_that_does_not_exist_is_told_which_do(result: Result, trial: int) -> None:
    with pytest.raises(UsageError, match=f"digits-1 has no trial {trial}; it has 0 to 7"):
        result.pick(trial=trial)


def test_of_a_metric_that_is_minimized_the_default_is_within_a_hundredth(tmp_path: Path) -> None:
    records = [
        a_record(number, 0.5, latency, mean_squared_error=error)
        for number, latency, error in [(0, 2.0, 0.4), (3, 1.0, 0.403), (4, 0.5, 0.41)]
    ]
    regression = found(tmp_path, *records, metric="mean_squared_error", objectives=["mean_squared_error", "latency_ms"])
    regression.study.note("maximize", False)
    assert [row.trial for row in regression.require_report().front] == [0, 3, 4]
    assert regression.pick().trial == 3


def test_the_knee_is_picked_and_marked(result: Result) -> None:
    # By shares of the front's ranges, trial 3 adds up to 0.05 + 0.44 + 2 * 0.375 and trial 4 to 0.15 + 0.17 + 2 * 0.25.
    assert result.require_report().knee == result.pick("knee").trial == 4
    assert list(result.front["knee"]) == [False, False, True, False]


def test_a_front_without_a_point_between_its_ends_has_no_knee(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match="the front of digits-1 has no knee: none of its 2 points lies between"):
        found(tmp_path, RECORDS[0], RECORDS[1]).pick("knee")


@pytest.mark.parametrize(
    ("wish", "trial"),
    [
        ("latency_ms=1", 5),  # 3, 4 and 5 have it, and 5 goes furthest beyond
        ("accuracy=0.89,latency_ms=0.9", 3),
        ("accuracy = baseline - 0.02, size_bytes=3000", 4),
        ("latency_ms=10% of baseline", 5),
        ("accuracy=baseline", 0),
        ("accuracy=0.99", 0),
        ({"size_bytes": 3900, "accuracy": 0.9}, 3),
    ],
)
def test_the_point_nearest_to_a_wish_is_picked(result: Result, wish: str | dict[str, float], trial: int) -> None:
    assert result.pick("nearest", wish=wish).trial == trial


def test_what_is_better_than_wished_is_no_fault(tmp_path: Path) -> None:
    choices = found(tmp_path, RECORDS[0], a_record(3, 0.9, 0.95, 8000.0), a_record(4, 0.899, 0.1, 1000.0))
    assert choices.pick(wish="latency_ms=0.9").trial == 4
    assert choices.pick(wish="latency_ms=1,accuracy=0.9").trial == 3


@pytest.mark.parametrize(
    ("order", "trial"),
    [
        ("accuracy", 0),  # 0.895 and 0.885 are inside the interval of 0.9, and so left to the next
        ("accuracy>latency_ms", 4),
        ("accuracy > size_bytes > latency_ms", 4),
        ("latency_ms>accuracy", 5),
        (["size_bytes", "accuracy"], 5),
    ],
)
def test_objectives_are_taken_one_after_the_other(result: Result, order: str | list[str], trial: int) -> None:
    assert result.pick("lexicographic", order=order).trial == trial


def test_costs_within_their_noise_are_left_to_the_next_objective(tmp_path: Path) -> None:
    near = found(tmp_path, RECORDS[0], a_record(3, 0.88, 0.5, 5000.0), a_record(4, 0.90, 0.502, 5000.0))
    assert near.pick(order="latency_ms").trial == 4
    assert near.pick(order="size_bytes>latency_ms>accuracy").trial == 4


def test_scores_that_were_compared_in_pairs_tie_as_was_found(tmp_path: Path) -> None:
    compared = found(tmp_path, *RECORDS)
    compared.keep_alike([frozenset((RECORDS[0].sha256, RECORDS[1].sha256))])
    assert compared.pick(order="accuracy>latency_ms").trial == 3


def test_a_condition_goes_with_a_wish_and_an_order(result: Result) -> None:
    assert result.pick(order="latency_ms>accuracy", where="accuracy >= 0.88").trial == 4
    assert result.pick(wish="latency_ms=0.1", where="accuracy >= 0.89").trial == 3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"rule": "kne"},
            "unknown pick rule 'kne'; allowed: cheapest, knee, nearest, lexicographic; did you mean 'knee'?",
        ),
        ({"rule": "nearest"}, "the rule nearest needs 'wish', such as 'latency_ms=0.03"),
        ({"rule": "lexicographic"}, "the rule lexicographic needs 'order', such as 'accuracy>latency_ms"),
        (
            {"rule": "knee", "where": "accuracy >= 0"},
            "'where' goes with cheapest or nearest or lexicographic, and the rule is",
        ),
        ({"rule": "cheapest", "wish": "latency_ms=1"}, "'wish' goes with nearest, and the rule is cheapest"),
        ({"wish": "latency_ms=1", "order": "latency_ms"}, "'order' goes with lexicographic, and the rule is nearest"),
        (
            {"order": "latency_ms", "minimize": "latency_ms"},
            "'minimize' goes with cheapest, and the rule is lexicographic",
        ),
        ({"trial": 3, "rule": "knee"}, "'trial' names one point; leave the rule out, or leave 'trial' out"),
        ({"trial": 3, "minimize": "size_bytes"}, "'trial' names one point; leave 'minimize' out"),
        ({"wish": "latency_ms"}, "cannot read the wish 'latency_ms'; allowed: METRIC=NUMBER"),
        ({"wish": "latency_ms=fast"}, "cannot read the wish 'latency_ms=fast'"),
        ({"wish": ""}, "'wish' is empty"),
        ({"wish": "latncy_ms=1"}, "unknown objective 'latncy_ms' in 'wish'; allowed: accuracy, latency_ms, "),
        ({"wish": "latency_ms=1,latency_ms=2"}, "'wish' names latency_ms twice"),
        ({"wish": {"latency_ms": float("nan")}}, "the wish latency_ms=nan is no finite number"),
        ({"wish": {}}, "'wish' is empty"),
        ({"order": "accuracy>model_bytes"}, "unknown objective 'model_bytes' in 'order'"),
        ({"order": "accuracy>accuracy"}, "'order' names accuracy twice"),
        ({"order": []}, "'order' is empty"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_read_is_told(result: Result, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        result.pick(**asked)
    assert str(caught.value).startswith(told)


def test_a_search_tells_its_progress_and_why_nothing_of_its_knobs(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS)
    assert [step.trial for step in made.progress] == [0, 3, 4, 5, 6, 7]
    assert made.progress[-1].hypervolume == pytest.approx(made.hypervolume)
    assert made.figures()["training_seconds"] == made.progress[-1].training_seconds == pytest.approx(6 * 1.5)
    assert "they are not noted; `paretrim resume digits-1`" in made.importance.why_none
    made.study.note(searched.NOTE, searched.to_plain(SPACE.dimensions))
    assert "there are 4" in made.importance.why_none


def test_noted_knobs_are_read_as_they_were() -> None:
    dimensions = (
        Range("a", 1e-4, 1e-1, neutral=1e-3, log=True),
        Range("b", 0.0, 0.8, neutral=0.0, step=0.2, when=(Condition("c", (8, "none", True)),)),
        Choice("c", ("none", 8, True, None, 0.5), neutral="none", when=(Condition("a", above=0.5),)),
    )
    assert searched.from_plain(json.loads(json.dumps(searched.to_plain(dimensions)))) == dimensions


def test_nothing_can_be_picked_while_the_baseline_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError, match="digits-1 has no front: its baseline is not done yet"):
        found(tmp_path).pick()


def test_nothing_can_be_picked_when_the_baseline_failed(tmp_path: Path) -> None:
    broken = found(tmp_path, sample_record(0, state="failed", cause="the exported file scores 0.1"))
    with pytest.raises(NothingFoundError, match=r"its baseline failed: the exported file scores 0\.1"):
        broken.pick()


def test_when_nothing_meets_the_constraints_the_one_that_binds_and_the_nearest_are_told(tmp_path: Path) -> None:
    job = {"constraints": ["accuracy >= baseline - 0.02", "latency_ms <= 10% of baseline"]}
    impossible = found(tmp_path, *RECORDS, **job)
    with pytest.raises(NothingFoundError) as caught:
        impossible.pick()
    head, *misses = str(caught.value).splitlines()
    assert head.startswith("no trial meets all constraints; the one that binds is 'accuracy >= baseline - 0.02' ")
    assert "(that is accuracy >= 0.88), missed by 9.1%" in head
    assert [line.split()[1] for line in misses] == ["5", "4", "6"]
    assert misses[0] == "  trial 5 (search): accuracy 0.8 (by 9.1%)"


def test_the_constraint_that_no_trial_meets_is_told_as_a_number(tmp_path: Path) -> None:
    impossible = found(tmp_path, *RECORDS, constraints=["latency_ms <= 5% of baseline"])
    text = impossible.why_empty()
    assert "the one that binds is 'latency_ms <= 5% of baseline' (that is latency_ms <= 0.1), missed by 100.0%" in text
    assert "  trial 5 (search): latency_ms 0.2 (by 100.0%)" in text


def test_there_is_nothing_to_explain_when_the_front_is_not_empty(result: Result) -> None:
    assert result.why_empty() == ""


def test_the_front_is_a_frame_and_its_hypervolume_a_share(result: Result) -> None:
    assert list(result.front["trial"]) == [0, 3, 4, 5]
    assert 0 < result.hypervolume < 1


def test_a_search_without_trials_has_an_empty_front(tmp_path: Path) -> None:
    empty = found(tmp_path)
    assert empty.front.empty
    assert empty.hypervolume == 0.0
    assert empty.report is None


def test_figures_count_trials_by_how_they_ended(tmp_path: Path) -> None:
    counted = found(tmp_path, *RECORDS, sample_record(8, state="stopped"))
    counted.study.note("wall_seconds", 100.0)
    figures = counted.figures()
    assert (figures["trials"], figures["trials_failed"], figures["trials_stopped"]) == (7.0, 1.0, 1.0)
    assert (figures["front_points"], figures["wall_seconds"]) == (4.0, 100.0)
    assert figures["trial_seconds"] == pytest.approx(7 * 2.0)


def test_a_search_opens_again_as_it_was(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS, constraints=["accuracy >= 0.5"], seed=7, space={"distillation": "off"})
    opened = open_result(None, Store(tmp_path))
    assert opened.name == made.name == "digits-1"
    assert opened.job == made.job
    assert list(opened.records) == list(made.records)
    assert opened.objectives == made.objectives
    assert opened.pick() == made.pick()


def test_a_search_whose_folder_is_gone_can_still_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    found(tmp_path / "store", *RECORDS, folder=tmp_path / "code")
    (tmp_path / "code").rmdir()
    assert open_result("digits-1", Store(tmp_path / "store")).pick().trial == 3


def test_a_search_of_another_schema_is_refused(tmp_path: Path) -> None:
    found(tmp_path, *RECORDS).study.note("schema", 99)
    with pytest.raises(UsageError, match=f"digits-1 has schema 99; this version of paretrim reads schema {SCHEMA}"):
        open_result(None, Store(tmp_path))


def test_a_search_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnknownJobError):
        open_result("digits-1", Store(tmp_path))


def test_opening_reads_a_record_without_touching_the_trial_of_a_running_search(tmp_path: Path) -> None:
    made = found(tmp_path, *RECORDS)
    made.study.ask(SPACE)
    stored = optuna.load_study(study_name="digits-1", storage=made.store.own.study)
    trial = optuna.Trial(stored, stored.trials[8]._trial_id)
    trial.set_user_attr("paretrim:record", a_record(8, 0.7, 0.1).to_json())
    assert open_result(None, Store(tmp_path)).pick(trial=8).trial == 8
    assert stored.trials[8].state == TrialState.RUNNING
    open_result(None, Store(tmp_path)).reopen().use_sampler(10)
    frozen = optuna.load_study(study_name="digits-1", storage=made.store.own.study).trials[8]
    assert (frozen.state, frozen.values) == (TrialState.COMPLETE, [0.7, 0.1, 1000.0, 10_000.0])


def test_a_point_knows_its_artifact(result: Result) -> None:
    row = result.pick()
    path = result.folder.artifacts / f"{row.sha256}.onnx.xz"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    artifact = artifact_of(result, row.trial)
    assert (artifact.path, artifact.size_bytes, artifact.model_bytes) == (path, 4000, 12_000)
    assert artifact.model_sha256 == RECORDS[1].model_sha256


def test_an_artifact_that_is_gone_is_named(result: Result) -> None:
    with pytest.raises(ArtifactError, match=f"the artifact of trial 5 is missing: .*{RECORDS[3].sha256}"):
        artifact_of(result, 5)


def test_a_reopened_study_hands_out_what_was_never_told(tmp_path: Path) -> None:
    # Trials 1 and 2 were asked for and never told.
    study = found(tmp_path, *RECORDS).reopen()
    assert [study.ask(SPACE).number for _ in range(3)] == [1, 2, 8]
