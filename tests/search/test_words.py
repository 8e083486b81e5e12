from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from paretrim.search.words import clock, disturbed_line, front_table, heading, importance_table, quantity, tie_lines
from paretrim.tracking.constraints import parse
from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Report, build
from paretrim.tracking.testing import OBJECTIVES, sample_record

BASE = sample_record(0, latency_ms=0.2, size_bytes=918_000.0, memory_bytes=4_000_000.0)
SMALL = sample_record(3, accuracy=0.8, latency_ms=0.05, latency_ratio=0.2501, size_bytes=45_000.0, memory_bytes=0.0)

# As many small numbers as large ones.
SIZES = st.floats(-6, 12).map(lambda exponent: 10.0**exponent)


def a_report(*records: TrialRecord, test_scores: dict[str, float] | None = None, constraint: str = "") -> Report:
    bounds = [parse(constraint)] if constraint else []
    report = build("digits-1", "accuracy", records or (BASE, SMALL), OBJECTIVES, bounds, test_scores or {})
    assert report is not None
    return report


def rendered(report: Report, *, most: int | None = None, test: bool = True) -> list[str]:
    """Return the lines of a table as a wide terminal shows them."""
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(front_table(report, most=most, test=test))
    return [line.strip() for line in console.export_text().splitlines() if line.strip()]


def rows(lines: list[str]) -> list[str]:
    return [line for line in lines if line[0].isdigit()]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("latency_ms", 0.0313, "0.0313 ms"),
        ("latency_ms", 0.5, "0.500 ms"),
        ("latency_ms", 1.234, "1.23 ms"),
        ("latency_p99_ms", 12.34, "12.3 ms"),
        ("latency_ms", 123.4, "123 ms"),
        ("latency_ms", 1234.5, "1,234 ms"),
        ("size_bytes", 25_300.0, "25.3 kB"),
        ("model_bytes", 1_000.0, "1.00 kB"),
        ("memory_bytes", 2_500_000.0, "2.50 MB"),
        ("memory_bytes", 0.0, "0 MB"),
        ("accuracy", 0.9567, "0.9567"),
        ("energy_mj", 5.0, "5"),
        ("loss", -0.25, "-0.25"),
    ],
)
def test_a_quantity_has_its_unit(name: str, value: float, shown: str) -> None:
    assert quantity(name, value) == shown


@given(SIZES)
def test_a_quantity_is_shown_to_three_digits(value: float) -> None:
    number, unit = quantity("latency_ms", value).split()
    assert float(number.replace(",", "")) == pytest.approx(value, rel=0.00501)
    assert unit == "ms"


@given(SIZES)
def test_a_number_without_a_unit_is_shown_to_four_digits(value: float) -> None:
    assert float(quantity("accuracy", value)) == pytest.approx(value, rel=0.000501)


@given(SIZES)
def test_the_sign_changes_nothing_else(value: float) -> None:
    assert quantity("memory_bytes", -value) == f"-{quantity('memory_bytes', value)}"


def test_a_heading_is_how_people_say_a_metric() -> None:
    assert [heading(name) for name in ("latency_ms", "size_bytes", "energy_mj")] == ["latency", "size", "energy_mj"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.4, "59:59"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_a_clock_reads_as_minutes_or_hours(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@given(st.floats(0, 1e6))
def test_a_clock_tells_the_seconds(seconds: float) -> None:
    total = 0
    for part in clock(seconds).split(":"):
        total = total * 60 + int(part)
    assert total == round(seconds)


def test_the_first_row_is_the_baseline() -> None:
    base, small = rows(rendered(a_report()))
    assert base.split()[:2] == ["0", "baseline"]
    assert small.split()[:2] == ["3", "search"]


def test_the_first_row_is_the_baseline_when_nothing_is_on_the_front() -> None:
    (base,) = rows(rendered(a_report(constraint="accuracy >= 0.99")))
    assert base.split()[:3] == ["0", "baseline", "0.9000"]


def test_a_baseline_on_the_front_is_marked_and_stands_once() -> None:
    base, other = rows(rendered(a_report()))
    assert base.split()[:3] == ["0", "baseline", "*"]
    assert "*" not in other


def test_a_baseline_off_the_front_is_not_marked() -> None:
    better = sample_record(3, accuracy=0.95, latency_ms=0.1, size_bytes=10.0, memory_bytes=10.0)
    assert "*" not in " ".join(rendered(a_report(BASE, better)))


def test_the_knee_is_marked() -> None:
    middle = sample_record(4, accuracy=0.89, latency_ms=0.06, size_bytes=50_000.0, memory_bytes=10.0)
    lines = rows(
        rendered(
            a_report(
                BASE,
                replace(
                    SMALL,
                    measurements=sample_record(
                        3, accuracy=0.82, latency_ms=0.05, size_bytes=45_000.0, memory_bytes=9.0
                    ).measurements,
                ),
                middle,
            )
        )
    )
    assert [line.split()[0] for line in lines if "search, knee" in line] == ["4"]


def test_importance_is_a_table_of_shares_in_brackets_where_chance_may_have_given_them() -> None:
    found = Importance(
        ("accuracy", "latency_ms"),
        {
            "pruning.ratio.stem": (Weight(0.6, clear=True), Weight(0.05, clear=False)),
            "bits": (Weight(0.4, clear=False),) * 2,
        },
        60,
    )
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(importance_table(found))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert lines[0] == ["knob", "accuracy", "latency"]
    assert lines[2:] == [["pruning.ratio.stem", "60%", "(5%)"], ["bits", "(40%)", "(40%)"]]


def test_a_score_has_half_the_width_of_its_interval() -> None:
    base = rows(rendered(a_report()))[0]
    assert "0.9000 ±0.018" in base


def test_a_score_without_an_interval_stands_alone() -> None:
    base = replace(BASE, measurements=tuple(replace(m, low=None, high=None) for m in BASE.measurements))
    assert "±" not in rows(rendered(a_report(base)))[0]


def test_points_that_are_not_told_apart_are_listed_by_objective_once() -> None:
    faster = sample_record(4, accuracy=0.91, latency_ms=0.1, size_bytes=1e6, memory_bytes=4e6)
    assert tie_lines(a_report(BASE, faster, SMALL)) == ["not told apart by memory: 0 = 4"]
    assert tie_lines(a_report(BASE)) == []


def test_scores_are_told_apart_from_the_best_alone_since_their_ties_do_not_chain() -> None:
    good = sample_record(3, accuracy=0.95, latency_ms=3.0)
    middle = sample_record(4, accuracy=0.93, latency_ms=2.0)
    poor = sample_record(5, accuracy=0.91, latency_ms=1.0)
    alike = {frozenset((good.sha256, middle.sha256)), frozenset((middle.sha256, poor.sha256))}
    report = build("digits-1", "accuracy", [BASE, good, middle, poor], OBJECTIVES[:2], [], {}, {"accuracy": alike})
    assert report is not None
    assert tie_lines(report) == ["not told apart from the best accuracy, that of trial 3: 4"]


def test_trials_that_were_disturbed_are_counted_but_for_the_baseline() -> None:
    base = sample_record(0, latency_crowded=1.0)
    quiet, disturbed = sample_record(3, latency_crowded=0.0), sample_record(4, latency_crowded=1.0)
    (line,) = disturbed_line([base, quiet, disturbed, sample_record(5, state="failed")])
    assert line == "off the front, timed while others kept the machine busy: 1"
    assert disturbed_line([base, quiet]) == []


def test_costs_stand_beside_their_ratios() -> None:
    _, small = rows(rendered(a_report()))
    assert "0.0500 ms (0.25)" in small
    assert "45.0 kB (0.049)" in small


def test_a_ratio_that_does_not_exist_is_left_out() -> None:
    base = sample_record(0, memory_bytes=0.0)
    _, row = rows(rendered(a_report(base, sample_record(3, latency_ms=0.1, memory_bytes=1_500_000.0))))
    assert row.endswith("1.50 MB")


def test_held_out_scores_have_a_column_of_their_own() -> None:
    lines = rendered(a_report(test_scores={SMALL.sha256: 0.7777}))
    assert "held-out test" in " ".join(lines)
    assert "0.7777" in lines[-1]
    assert rows(lines)[0].split()[5] == "-"


def test_the_column_of_held_out_scores_can_be_left_out() -> None:
    assert "held-out test" not in " ".join(rendered(a_report(), test=False))


def test_headings_name_the_metric_and_the_costs() -> None:
    head = " ".join(rendered(a_report())[:2])
    assert all(word in head for word in ("accuracy", "latency", "size", "memory", "(ratio)"))


def test_rows_beyond_the_most_are_counted() -> None:
    records = [BASE, *(sample_record(n, accuracy=1 - n / 100, latency_ms=0.19 - n / 100) for n in range(3, 8))]
    lines = rendered(a_report(*records), most=2)
    assert len(rows(lines)) == 3
    assert lines[-1] == "and 3 more"


def test_no_rows_are_counted_when_all_are_shown() -> None:
    assert "more" not in " ".join(rendered(a_report(), most=1))


def test_points_that_miss_what_is_preferred_are_marked_and_otherwise_there_is_no_such_column() -> None:
    told = rendered(a_report(constraint="prefer latency_ms <= 1e-9"))
    assert "misses" in " ".join(told)
    assert all("latency_ms by" in row for row in rows(told))
    assert "misses" not in " ".join(rendered(a_report(constraint="prefer latency_ms <= 1e9")))
