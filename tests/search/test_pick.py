from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from paretrim.errors import ArtifactError, NothingFoundError, UnknownJobError, UsageError
from paretrim.search.job import Job
from paretrim.search.result import Result, artifact_of, open_result
from paretrim.search.store import Store
from paretrim.search.study import SCHEMA
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
    stored = optuna.load_study(study_name="digits-1", storage=made.store.study_url)
    trial = optuna.Trial(stored, stored.trials[8]._trial_id)
    trial.set_user_attr("paretrim:record", a_record(8, 0.7, 0.1).to_json())
    assert open_result(None, Store(tmp_path)).pick(trial=8).trial == 8
    assert stored.trials[8].state == TrialState.RUNNING
    open_result(None, Store(tmp_path)).reopen().use_sampler(10)
    frozen = optuna.load_study(study_name="digits-1", storage=made.store.study_url).trials[8]
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
