from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.errors import UsageError
from paretrim.tracking.constraints import ALLOWED, Constraint, hard, misses, parse

BASELINE = {"accuracy": 0.9, "latency_ms": 2.0, "size_bytes": 1000.0}
NUMBERS = st.floats(0.0001, 1e6).map(lambda value: round(value, 4))

LIMITS = [
    ("accuracy >= 0.85", 0.85),
    ("accuracy >= .85", 0.85),
    ("score >= -3", -3.0),
    ("size_bytes <= 1e5", 100_000.0),
    ("accuracy >= baseline", 0.9),
    ("accuracy >= baseline - 0.05", 0.85),
    ("accuracy>=baseline-0.05", 0.85),
    ("latency_ms <= baseline + 0.5", 2.5),
    ("latency_ms <= 50% of baseline", 1.0),
    ("latency_ms <= 50 % of baseline", 1.0),
    ("latency_ms <= 50% baseline", 1.0),
    ("latency_ms <= 0.25 * baseline", 0.5),
    ("latency_ms <= baseline * 0.25", 0.5),
    ("latency_ms <= baseline / 4", 0.5),
    ("latency_ms <= baseline - 10%", 1.8),
    ("latency_ms <= baseline + 10%", 2.2),
]
WRONG = [
    "",
    "accuracy",
    "accuracy >=",
    ">= 0.5",
    "accuracy = 0.5",
    "accuracy == 0.5",
    "accuracy => 0.5",
    "accuracy >= basline - 0.1",
    "accuracy >= half of baseline",
    "accuracy >= 50%",
    "accuracy >= baseline - ",
    "accuracy >= baseline * 10%",
    "accuracy >= baseline / 10%",
    "accuracy >= 0.5 and latency_ms <= 1",
    "0.5 <= accuracy",
    "accuracy >= 1,5",
    "accuracy >= nan",
    "1st >= 2",
]


@pytest.mark.parametrize(("text", "limit"), LIMITS)
def test_each_allowed_form_is_read(text: str, limit: float) -> None:
    assert parse(text).limit(BASELINE) == pytest.approx(limit)


@pytest.mark.parametrize("text", WRONG)
def test_another_text_gives_one_error_that_lists_the_allowed_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert f"'{text}'" in str(caught.value)
    assert ALLOWED in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_forms_in_the_message_are_readable_once_they_are_filled_in() -> None:
    for form in ALLOWED.split(", "):
        written = form.replace("METRIC", "latency_ms").replace("NUMBER", "0.5")
        assert parse(written).metric == "latency_ms"


def test_dividing_by_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="divides by zero"):
        parse("latency_ms <= baseline / 0")


def test_a_bound_that_is_not_a_finite_number_is_refused() -> None:
    with pytest.raises(UsageError):
        parse("latency_ms <= 1e999")


@pytest.mark.parametrize(("sense", "upper"), [("<=", True), ("<", True), (">=", False), (">", False)])
def test_the_sense_is_read(sense: str, upper: bool) -> None:
    assert parse(f"latency_ms {sense} 1").upper is upper


def test_the_text_is_kept_as_written() -> None:
    assert parse("  accuracy >= baseline - 0.05  ").text == "accuracy >= baseline - 0.05"


def test_the_excess_is_positive_when_an_upper_bound_is_broken() -> None:
    bound = parse("latency_ms <= 50% of baseline")
    assert bound.excess({"latency_ms": 1.5}, BASELINE) == pytest.approx(0.5)
    assert bound.excess({"latency_ms": 0.5}, BASELINE) == pytest.approx(-0.5)


def test_the_excess_is_positive_when_a_lower_bound_is_broken() -> None:
    bound = parse("accuracy >= 0.8")
    assert bound.excess({"accuracy": 0.4}, BASELINE) == pytest.approx(0.5)
    assert bound.excess({"accuracy": 0.88}, BASELINE) == pytest.approx(-0.1)


def test_the_excess_over_a_bound_of_zero_is_the_distance() -> None:
    assert parse("loss <= 0").excess({"loss": 0.25}, {}) == 0.25


def test_a_metric_that_was_not_measured_breaks_any_bound() -> None:
    bound = parse("memory_bytes <= 1e9")
    assert bound.excess({}, BASELINE) == math.inf
    assert not bound.met({}, BASELINE)


@pytest.mark.parametrize("text", ["accuracy >= baseline", "accuracy <= baseline", "accuracy >= 100% of baseline"])
def test_the_bound_itself_is_allowed(text: str) -> None:
    assert parse(text).met({"accuracy": 0.9}, BASELINE)


def test_rounding_does_not_break_a_bound() -> None:
    assert parse("accuracy >= baseline - 0.1").met({"accuracy": 0.2}, {"accuracy": 0.1 + 0.2})


@given(NUMBERS, NUMBERS, st.booleans())
def test_a_bound_is_met_exactly_when_the_excess_is_not_positive(value: float, limit: float, upper: bool) -> None:
    bound = parse(f"x {'<=' if upper else '>='} {limit}")
    assert bound.met({"x": value}, {}) == (value <= limit if upper else value >= limit)
    assert (bound.excess({"x": value}, {}) > 0) == (not bound.met({"x": value}, {}))


@given(NUMBERS, st.sampled_from("+-"), NUMBERS)
def test_an_offset_moves_the_bound_by_itself(base: float, sign: str, number: float) -> None:
    wanted = base + number if sign == "+" else base - number
    assert parse(f"x <= baseline {sign} {number}").limit({"x": base}) == pytest.approx(wanted)


@given(NUMBERS, st.integers(0, 500))
def test_a_percentage_and_its_factor_are_the_same_bound(base: float, percent: int) -> None:
    spellings = [f"{percent}% of baseline", f"{percent / 100} * baseline", f"baseline * {percent / 100}"]
    limits = [parse(f"x <= {spelling}").limit({"x": base}) for spelling in spellings]
    assert limits == pytest.approx([base * percent / 100] * len(limits))


@given(st.text(max_size=40))
def test_any_text_is_either_a_constraint_or_a_usage_error(text: str) -> None:
    try:
        found = parse(text)
    except UsageError as error:
        assert ALLOWED in str(error) or "divides by zero" in str(error)
    else:
        assert isinstance(found, Constraint)


@pytest.mark.parametrize("text", ["prefer latency_ms <= 50% of baseline", "  prefer   latency_ms<=0.5*baseline"])
def test_a_leading_prefer_makes_a_bound_soft(text: str) -> None:
    bound = parse(text)
    assert bound.soft
    assert (bound.metric, bound.upper, bound.limit(BASELINE)) == ("latency_ms", True, 1.0)
    assert not parse(text.replace("prefer", "")).soft


def test_a_metric_may_be_called_prefer() -> None:
    assert not parse("prefer <= 5").soft
    assert parse("prefer <= 5").metric == "prefer"
    assert parse("prefer prefer <= 5").soft


def test_only_soft_bounds_on_what_is_known_are_missed_each_by_its_share() -> None:
    bounds = [
        parse(t)
        for t in ("prefer latency_ms <= 1", "prefer memory_bytes <= 1", "size_bytes <= 1", "prefer accuracy >= 0")
    ]
    assert misses(bounds, {"latency_ms": 1.12, "size_bytes": 5.0, "accuracy": 0.5}, BASELINE) == {
        "latency_ms": pytest.approx(0.12)
    }
    assert [c.metric for c in hard(bounds)] == ["size_bytes"]


def test_of_two_soft_bounds_on_a_metric_the_one_missed_most_counts() -> None:
    bounds = [parse("prefer latency_ms <= 2"), parse("prefer latency_ms <= 1")]
    assert misses(bounds, {"latency_ms": 3.0}, {}) == {"latency_ms": pytest.approx(2.0)}
