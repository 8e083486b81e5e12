"""The rules that choose a point of a front: by validation scores and measurements only.

- ``cheapest``: the smallest of one metric among the points that meet a condition; where none is given, the metric within
  one point, and of those points the ones that meet the job's soft constraints, if any do. Of points that are not told apart
  from the smallest, the one of fewest bytes.
- ``knee``: from where a gain in one objective costs most in the others; see tracking/knee.py.
- ``nearest``: to a wished point. Only what falls short of the wish counts, as in goal programming (Charnes and Cooper,
  "Management Models and Industrial Applications of Linear Programming", 1961): what is better than wished is no fault.
  Shortfalls are ratios (differences of logarithms), each divided by the front's own range, and add up as squares.
- ``lexicographic``: the best in the first objective; of those that are not told apart from it, the best in the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from paretrim.errors import NothingFoundError, UsageError, nearest
from paretrim.search import wishes
from paretrim.tracking import constraints
from paretrim.tracking.front import Objective
from paretrim.tracking.report import Report, Row

Rule = Literal["cheapest", "knee", "nearest", "lexicographic"]
RULES: Mapping[str, tuple[str, ...]] = {
    "cheapest": ("minimize", "where"),
    "knee": (),
    "nearest": ("wish", "where"),
    "lexicographic": ("order", "where"),
}
"""The options of each rule; ``wish`` and ``order`` are needed by theirs."""
_NEEDED = ("wish", "order")
# Distances that differ by less are one: the order of addition must not decide.
_DECIMALS = 9


@dataclass(frozen=True)
class Asked:
    """What a user asked for; None is not given.

    Attributes:
        rule: One of `RULES`; by default that of `wish` or `order`, else ``cheapest``.
        trial: A trial's number, in the place of all else.
        minimize: A metric to minimize; by default ``latency_ms``.
        where: A condition; by default, for ``cheapest``, the metric within one point of the baseline.
        wish: A point, such as ``latency_ms=0.03,size_bytes=20% of baseline``.
        order: Objectives, such as ``accuracy>latency_ms``.
    """

    rule: str | None = None
    trial: int | None = None
    minimize: str | None = None
    where: str | None = None
    wish: str | Mapping[str, float] | None = None
    order: str | Sequence[str] | None = None

    def checked(self) -> str:
        """Return the rule that is asked for.

        Raises:
            UsageError: Options contradict each other, or one is missing.
        """
        given = [name for name in ("minimize", "where", "wish", "order") if getattr(self, name) is not None]
        if self.trial is not None and (given or self.rule):
            others = ", ".join([*(["the rule"] if self.rule else []), *(f"'{name}'" for name in given)])
            raise UsageError(f"'trial' names one point; leave {others} out, or leave 'trial' out")
        rule = self.rule or ("nearest" if self.wish is not None else "lexicographic" if self.order is not None else "")
        rule = rule or "cheapest"
        if rule not in RULES:
            raise UsageError(f"unknown pick rule '{rule}'; allowed: {', '.join(RULES)}{nearest(rule, list(RULES))}")
        for name in given:
            if name not in RULES[rule]:
                others = " or ".join(each for each, takes in RULES.items() if name in takes)
                raise UsageError(f"'{name}' goes with {others}, and the rule is {rule}; leave one of the two out")
        for name in set(_NEEDED) & set(RULES[rule]) - set(given):
            raise UsageError(f"the rule {rule} needs '{name}', {wishes.EXAMPLES[name]}")
        return rule


@dataclass(frozen=True)
class Field:
    """What is picked from.

    Attributes:
        report: The front, with its baseline.
        maximize: Whether more is better in the job's own metric.
        paired: Whether scores were compared in pairs of samples, so that the rows' ties in them are known.
        why_empty: Why the front has no points, where it has none.
    """

    report: Report
    maximize: bool
    paired: bool
    why_empty: str = ""

    @property
    def base(self) -> dict[str, float]:
        """The baseline's measurements."""
        return values_of(self.report.baseline)

    def objective(self, name: str) -> Objective:
        """Return an objective by its name, the job's own metric as one."""
        own = Objective(self.report.metric, self.maximize)
        return next((o for o in self.report.objectives if o.name == name), own)

    def within_a_point(self) -> str:
        """Return the condition that the metric is within one point of the baseline's."""
        name, value = self.report.metric, self.report.baseline.validation[self.report.metric]
        if not self.maximize:
            return f"{name} <= 101% of baseline"
        # A point is a hundredth of a share; of what is counted otherwise, such as in percent, a hundredth of its size.
        return f"{name} >= baseline - 0.01" if abs(value) <= 1.0 else f"{name} >= 99% of baseline"


def values_of(row: Row) -> dict[str, float]:
    """Return what was measured of a point on validation data and of its artifact."""
    return {**row.validation, **row.metrics}


def pick(asked: Asked, field: Field) -> Row:
    """Choose a point of a front.

    Raises:
        UsageError: Options contradict each other, or name what is not there.
        NothingFoundError: No point of the front meets the condition, or the front has no knee.
    """
    rule = asked.checked()
    if rule == "cheapest":
        return _cheapest(asked.minimize or "latency_ms", asked.where, field)
    rows = _points(field) if asked.where is None else _meeting(asked.where, field)
    if rule == "nearest":
        return _nearest(asked.wish or {}, rows, field)
    if rule == "lexicographic":
        return _lexicographic(asked.order or (), rows, field)
    return _knee(rows, field)


def _cheapest(wanted: str, where: str | None, field: Field) -> Row:
    _known(wanted, field)
    rows = _meeting(where or field.within_a_point(), field)
    if where is None:
        # Nobody said what matters more than what the job prefers.
        rows = [row for row in rows if not row.misses] or rows
    objective = field.objective(wanted)

    def cost(row: Row) -> float:
        # What was timed in turns with the baseline is told apart better by that ratio than by two times from two hours.
        ratio, base = row.ratio.get(wanted), field.base[wanted]
        return values_of(row)[wanted] if ratio is None else ratio * base

    least = min(rows, key=cost)
    alike = [row for row in rows if row is least or objective.box(cost(row)) == objective.box(cost(least))]
    return min(alike, key=lambda row: (values_of(row).get("size_bytes", 0.0), cost(row)))


def _knee(rows: Sequence[Row], field: Field) -> Row:
    found = next((row for row in rows if row.trial == field.report.knee), None)
    if found is None:
        others = ", ".join(rule for rule in RULES if rule != "knee")
        raise NothingFoundError(
            f"the front of {field.report.job} has no knee: none of its {len(rows)} points lies between its ends, "
            f"which are those that are the worst in an objective; pick by another rule: {others}"
        )
    return found


def _nearest(wish: str | Mapping[str, float], rows: Sequence[Row], field: Field) -> Row:
    allowed = list(dict.fromkeys([field.report.metric, *(o.name for o in field.report.objectives)]))
    wished = wishes.wish(wish, allowed, field.base)
    lacks = [_lack(name, value, field) for name, value in wished.items()]

    def distance(row: Row) -> tuple[float, float]:
        found = [lack(values_of(row)) for lack in lacks]
        # Among points that have all that is wished, the one that goes furthest beyond.
        return round(math.hypot(*(max(0.0, each) for each in found)), _DECIMALS), round(sum(found), _DECIMALS)

    return min(rows, key=distance)


def _lack(name: str, wished: float, field: Field) -> _Lack:
    over = [values_of(row)[name] for row in field.report.front]
    log = min(*over, wished) > 0
    ends = [math.log(value) if log else value for value in (min(over), max(over), wished)]
    return _Lack(name, ends[2], (ends[1] - ends[0]) or 1.0, log, field.objective(name).maximize)


@dataclass(frozen=True)
class _Lack:
    """By how much a point falls short of a wish in one metric, as a share of the front's range; negative when better."""

    name: str
    wished: float
    width: float
    log: bool
    maximize: bool

    def __call__(self, values: Mapping[str, float]) -> float:
        value = math.log(values[self.name]) if self.log else values[self.name]
        return (self.wished - value if self.maximize else value - self.wished) / self.width


def _lexicographic(order: str | Sequence[str], rows: Sequence[Row], field: Field) -> Row:
    left = list(rows)
    for name in wishes.order(order, [o.name for o in field.report.objectives]):
        objective = field.objective(name)
        best = min(left, key=lambda row: (objective.box(values_of(row)[objective.name]), _signed(row, objective)))
        left = [row for row in left if _like(row, best, objective, field)]
    return left[0]


def _signed(row: Row, objective: Objective) -> float:
    value = values_of(row)[objective.name]
    return -value if objective.maximize else value


def _like(row: Row, best: Row, objective: Objective, field: Field) -> bool:
    """Tell whether a point is not told apart from the best one by an objective.

    Costs tie in their box. Scores tie as the comparison in pairs of samples found; without one, inside the interval of the
    best.
    """
    name = objective.name
    if row is best or (name == field.report.metric and field.paired):
        return row is best or row.trial in best.ties.get(name, ())
    if name.removesuffix("_cv") == field.report.metric and name in best.interval:
        low, high = best.interval[name]
        return low <= values_of(row)[name] <= high
    return objective.box(values_of(row)[name]) == objective.box(values_of(best)[name])


def _points(field: Field) -> Sequence[Row]:
    if not field.report.front:
        raise NothingFoundError(field.why_empty or f"{field.report.job} has no points on its front")
    return field.report.front


def _meeting(where: str, field: Field) -> Sequence[Row]:
    condition, base = constraints.parse(where), field.base
    if condition.soft:
        raise UsageError(f"the condition '{where}' is to be met by the point that is picked; leave 'prefer' out")
    _known(condition.metric, field, f" in '{condition.text}'")
    rows = _points(field)
    fit = [row for row in rows if condition.met(values_of(row), base)]
    if not fit:
        row = min(rows, key=lambda each: condition.excess(values_of(each), base))
        raise NothingFoundError(
            f"no point of the front of {field.report.job} meets '{condition.text}'; the nearest is trial {row.trial} with "
            f"{condition.metric} {values_of(row)[condition.metric]:.6g}, and the bound is {condition.limit(base):.6g}"
        )
    return fit


def _known(metric: str, field: Field, place: str = "") -> None:
    allowed = list(field.base)
    if metric not in allowed:
        raise UsageError(f"unknown metric '{metric}'{place}; allowed: {', '.join(allowed)}{nearest(metric, allowed)}")
