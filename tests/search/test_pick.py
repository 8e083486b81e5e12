from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretrim.errors import NothingFoundError, UsageError
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.tracking.testing import sample_record

from .conftest import a_search
from .helper_results import COSTS, RECORDS, a_job, a_record, found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return a_search(Store(tmp_path_factory.mktemp("store")), RECORDS, a_job())


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
