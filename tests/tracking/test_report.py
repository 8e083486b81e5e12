from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretrim.tracking.constraints import parse
from paretrim.tracking.front import baseline_metrics
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Report, Row, build, row_of
from paretrim.tracking.testing import OBJECTIVES, sample_record

ROW_KEYS = ["trial", "recipe", "validation", "test", "metrics", "ratio", "interval", "ties", "misses"]
# Measured beside the four objectives in a real search.
EXTRA = {
    "accuracy_torch": 0.91,
    "latency_ratio": 0.4,
    "latency_crowded": 0.0,
    "model_bytes": 300_000.0,
    "weights": 1000.0,
}
BASE = sample_record(0, EXTRA, latency_ratio=1.0)
FAST = sample_record(3, EXTRA, latency_ms=0.5, size_bytes=25_000.0)


def a_report(*records: TrialRecord, test_scores: dict[str, float] | None = None) -> Report:
    report = build("digits-1", "accuracy", records or (BASE, FAST), OBJECTIVES, [], test_scores or {})
    assert report is not None
    return report


def a_row(record: TrialRecord, base: TrialRecord = BASE) -> Row:
    return row_of(record, "accuracy", base.metrics, {})


def document(report: Report) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(report.to_json())
    return read


def csv_rows(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(report.to_csv())))


def test_the_json_has_the_promised_keys_and_no_others() -> None:
    read = document(a_report())
    assert list(read) == ["schema", "job", "baseline", "front", "knee"]
    assert (read["schema"], read["job"]) == (1, "digits-1")


def test_each_row_of_the_json_has_the_promised_keys_and_no_others() -> None:
    read = document(a_report())
    for row in (read["baseline"], *read["front"]):
        assert list(row) == ROW_KEYS


def test_each_key_of_a_row_is_documented_and_no_other() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "front.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == ROW_KEYS


def test_intervals_stand_under_the_names_of_what_they_are_of() -> None:
    row = document(a_report())["front"][0]
    assert set(row["interval"]) == {"accuracy", *row["metrics"]}
    assert row["interval"]["accuracy"] == pytest.approx([0.882, 0.918])


def test_a_number_that_was_taken_without_an_interval_has_none() -> None:
    plain = replace(FAST, measurements=tuple(replace(m, low=None) for m in FAST.measurements))
    assert a_row(plain).interval == {}


def test_ties_name_the_other_points_of_the_front_by_objective() -> None:
    near = sample_record(4, EXTRA, latency_ms=0.502, size_bytes=24_000.0, memory_bytes=4e6)
    ties = {row["trial"]: row["ties"] for row in document(a_report(BASE, FAST, near))["front"]}
    assert ties == {3: {"accuracy": [4], "latency_ms": [4]}, 4: {"accuracy": [3], "latency_ms": [3]}}


def test_scores_that_were_compared_in_pairs_tie_as_was_found() -> None:
    good = sample_record(4, EXTRA, accuracy=0.95)
    same = frozenset((FAST.sha256, good.sha256))
    found = {}
    for alike in (set(), {same}):
        report = build("digits-1", "accuracy", [BASE, FAST, good], OBJECTIVES, [], {}, {"accuracy": alike})
        assert report is not None
        found[len(alike)] = {row.trial: row.ties.get("accuracy") for row in report.front}
    assert found == {0: {3: None, 4: None}, 1: {3: (4,), 4: (3,)}}


def test_a_baseline_off_the_front_ties_with_nothing() -> None:
    assert document(a_report())["baseline"]["ties"] == {}


def test_a_ratio_stands_beside_each_metric_and_nothing_else() -> None:
    read = document(a_report())
    for row in (read["baseline"], *read["front"]):
        assert list(row["ratio"]) == list(row["metrics"])
        assert set(row["metrics"]) == {"latency_ms", "size_bytes", "memory_bytes", "model_bytes", "weights"}


def test_the_scores_stand_under_the_metrics_name() -> None:
    read = document(a_report(test_scores={FAST.sha256: 0.88}))
    assert read["front"][0]["validation"] == {"accuracy": 0.9}
    assert read["front"][0]["test"] == {"accuracy": 0.88}


def test_the_knee_is_named_by_its_trial() -> None:
    small = sample_record(4, EXTRA, accuracy=0.82, latency_ms=0.4, size_bytes=20_000.0, memory_bytes=1.9e6)
    middle = sample_record(3, EXTRA, accuracy=0.89, latency_ms=0.5, size_bytes=25_000.0, memory_bytes=1.95e6)
    assert document(a_report())["knee"] is None
    report = a_report(BASE, middle, small)
    assert (document(report)["knee"], report.knee) == (3, 3)
    assert {row["trial"]: row["knee"] for row in csv_rows(report)} == {"0": "False", "3": "True", "4": "False"}


def test_a_row_without_a_held_out_score_has_an_empty_one() -> None:
    read = document(a_report(test_scores={FAST.sha256: 0.88}))
    assert read["baseline"]["test"] == {}


def test_a_recipe_is_written_whole() -> None:
    assert document(a_report())["front"][0]["recipe"] == dict(FAST.recipe)


def test_the_ratio_of_latencies_is_the_paired_one() -> None:
    assert a_row(FAST).ratio["latency_ms"] == 0.4
    assert FAST.metrics["latency_ms"] / BASE.metrics["latency_ms"] == 0.5


def test_without_a_paired_ratio_it_is_the_quotient() -> None:
    assert a_row(sample_record(3, latency_ms=0.5)).ratio["latency_ms"] == 0.5


def test_other_ratios_are_quotients() -> None:
    assert a_row(FAST).ratio["size_bytes"] == 0.25


def test_there_is_no_ratio_to_a_baseline_of_zero() -> None:
    base = sample_record(0, memory_bytes=0.0)
    report = a_report(base, sample_record(3, memory_bytes=10.0, latency_ms=0.5))
    (row,) = [row for row in document(report)["front"] if row["trial"] == 3]
    assert row["metrics"]["memory_bytes"] == 10.0
    assert row["ratio"]["memory_bytes"] is None


def test_there_is_no_ratio_to_what_the_baseline_was_not_measured_by() -> None:
    assert a_row(sample_record(3, energy_mj=5.0)).ratio["energy_mj"] is None


def test_the_baselines_ratios_are_one() -> None:
    assert set(a_report().baseline.ratio.values()) == {1.0}


def test_the_front_is_best_in_the_first_objective_first() -> None:
    small = sample_record(3, accuracy=0.7, latency_ms=0.1)
    good = sample_record(4, accuracy=0.95, latency_ms=2.0)
    assert [row.trial for row in a_report(BASE, small, good).front] == [4, 0, 3]


def test_constraints_decide_who_is_on_the_front() -> None:
    report = build("digits-1", "accuracy", [BASE, FAST], OBJECTIVES, [parse("latency_ms <= 0.1")], {})
    assert report is not None
    assert report.front == ()
    assert report.baseline.trial == 0


@pytest.mark.parametrize("records", [[], [FAST], [sample_record(0, state="failed"), FAST]])
def test_there_is_no_report_before_the_baseline_is_done(records: list[TrialRecord]) -> None:
    assert build("digits-1", "accuracy", records, OBJECTIVES, [], {}) is None


def test_the_csv_has_the_baseline_first_and_once() -> None:
    report = a_report(BASE, FAST, sample_record(4, accuracy=0.99))
    assert [row["trial"] for row in csv_rows(report)] == ["0", "4", "3"]


def test_a_baseline_on_the_front_stands_once_in_the_csv() -> None:
    report = a_report(BASE, sample_record(3, accuracy=0.8, latency_ms=0.1))
    assert 0 in {row.trial for row in report.front}
    assert [row["trial"] for row in csv_rows(report)] == ["0", "3"]


def test_the_csv_of_an_empty_front_has_the_baseline() -> None:
    report = build("digits-1", "accuracy", [BASE], OBJECTIVES, [parse("latency_ms <= 0.1")], {})
    assert report is not None
    assert [row["kind"] for row in csv_rows(report)] == ["baseline"]


def test_the_csv_has_scores_metrics_ratios_and_recipe() -> None:
    first, second = csv_rows(a_report(test_scores={BASE.sha256: 0.89, FAST.sha256: 0.88}))
    assert (first["test_accuracy"], second["test_accuracy"]) == ("0.89", "0.88")
    assert (second["latency_ms"], second["latency_ms_ratio"]) == ("0.5", "0.4")
    assert second["pruning.ratio.stem"] == "0.25"


def test_the_frame_has_a_row_a_point() -> None:
    frame = a_report().to_frame()
    assert list(frame["trial"]) == [3]
    assert list(frame["validation_accuracy"]) == [0.9]


def test_a_metric_that_less_of_is_better_has_its_own_name_everywhere() -> None:
    records = [sample_record(0, mean_squared_error=0.3), sample_record(3, mean_squared_error=0.4)]
    row = row_of(records[1], "mean_squared_error", baseline_metrics(records), {})
    assert row.validation == {"mean_squared_error": 0.4}
    assert "mean_squared_error" not in row.metrics


def test_points_that_miss_soft_constraints_are_marked_and_stay() -> None:
    bounds = [parse("prefer latency_ms <= 50% of baseline"), parse("prefer size_bytes <= 1000000")]
    slow = sample_record(4, EXTRA, latency_ms=0.56, accuracy=0.95)
    report = build("digits-1", "accuracy", (BASE, FAST, slow), OBJECTIVES, bounds, {})
    assert report is not None
    rows = {row.trial: row for row in report.front}
    assert rows[4].missed == "latency_ms by 12%"
    assert document(report)["front"][[r.trial for r in report.front].index(4)]["misses"] == {
        "latency_ms": pytest.approx(0.12)
    }
    assert (rows[3].missed, dict(rows[3].misses)) == ("", {})
    table = report.to_frame().set_index("trial")
    assert table.loc[4, "misses"] == "latency_ms by 12%"
    assert "latency_ms by 12%" in report.to_csv()
