"""Two searches side by side: their fronts in one box, and what each has that the other has not."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from paretrim.errors import UsageError
from paretrim.search.result import Result
from paretrim.tracking.front import Metrics, Objective, baseline_metrics, normalized, trial_front, volume

# A cost of the machine, not of the file: two searches have each timed the baseline for themselves.
_OF_THE_MACHINE = ("latency_", "memory_", "energy_", "throughput_")


@dataclass(frozen=True)
class Side:
    """One of two searches, in the box of the first.

    Attributes:
        job: Its name.
        trials: Trials that ended.
        training_seconds: All training of it.
        hypervolume: What its front dominates of the box, from 0 to 1.
        front: Its points: the objectives by the trial's number, costs of the machine in terms of the first's baseline.
        own: Numbers of those that no point of the other search beats or equals.
        best: By objective, its best value.
    """

    job: str
    trials: int
    training_seconds: float
    hypervolume: float
    front: Mapping[int, Mapping[str, float]]
    own: tuple[int, ...]
    best: Mapping[str, float]


@dataclass(frozen=True)
class SideBySide:
    """Two searches.

    Attributes:
        metric: Name of their metric.
        objectives: What both have optimized.
        baseline: The first's baseline.
        together: Hypervolume of both fronts together.
        sides: The two.
        notes: What makes the comparison less than fair.
    """

    metric: str
    objectives: tuple[Objective, ...]
    baseline: Mapping[str, float]
    together: float
    sides: tuple[Side, Side]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return it as JSON."""
        document = {
            "schema": 1,
            "metric": self.metric,
            "objectives": [o.name for o in self.objectives],
            "baseline": dict(self.baseline),
            "hypervolume_together": self.together,
            "sides": [asdict(side) for side in self.sides],
            "notes": list(self.notes),
        }
        return json.dumps(document, indent=2)


def compare(first: Result, second: Result) -> SideBySide:
    """Compare two searches of the same metric.

    Raises:
        UsageError: They have other metrics, or no cost in common.
        NothingFoundError: One of them has no baseline yet.
    """
    metric = first.job.metric_name
    if second.job.metric_name != metric:
        raise UsageError(
            f"{first.name} was scored by {metric} and {second.name} by {second.job.metric_name}; only searches of the same "
            "metric can be compared"
        )
    theirs = {o.name for o in second.objectives}
    objectives = tuple(o for o in first.objectives if o.name in theirs)
    if len(objectives) < 2:
        raise UsageError(
            f"{first.name} and {second.name} have only {', '.join(o.name for o in objectives) or 'no objective'} in common; "
            "compare searches that share the metric and a cost"
        )
    if first.name == second.name and first.store.root == second.store.root:
        raise UsageError(f"{first.name} is one search; name another one to compare it with")
    first.require_report()
    second.require_report()
    shown = {metric, *(o.name for o in objectives)}
    base = {name: value for name, value in baseline_metrics(first.records).items() if name in shown}
    same = _prints(first).get("model") == _prints(second).get("model")
    fronts = [_front(each, objectives, shown) for each in (first, second)]
    scales = [{}, _scales(first, second, objectives) if same else {}]
    points = [
        {number: {n: v * scale.get(n, 1.0) for n, v in point.items()} for number, point in found.items()}
        for found, scale in zip(fronts, scales, strict=True)
    ]
    own = _own(points, objectives)
    sides = [
        _side(result, found, mine, objectives, base)
        for result, found, mine in zip((first, second), points, own, strict=True)
    ]
    union = [*points[0].values(), *points[1].values()]
    return SideBySide(
        metric, objectives, base, _volume(union, objectives, base), (sides[0], sides[1]), tuple(_notes(first, second))
    )


def _front(result: Result, objectives: Sequence[Objective], shown: Collection[str]) -> dict[int, dict[str, float]]:
    chosen = trial_front(result.records, objectives, result.job.bounds)
    return {r.number: {name: value for name, value in r.metrics.items() if name in shown} for r in chosen}


def _scales(first: Result, second: Result, objectives: Sequence[Objective]) -> dict[str, float]:
    """Return what a cost of the machine, as the second search took it, is multiplied by to be in terms of the first."""
    ours, theirs = baseline_metrics(first.records), baseline_metrics(second.records)
    names = [o.name for o in objectives if o.name.startswith(_OF_THE_MACHINE) and theirs.get(o.name)]
    return {name: ours[name] / theirs[name] for name in names}


def _own(
    points: Sequence[Mapping[int, Metrics]], objectives: Sequence[Objective]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return for each side the points that none of the other's beats or equals."""
    sides = []
    for mine, others in ((points[0], points[1]), (points[1], points[0])):
        kept = [
            number
            for number, point in mine.items()
            if not any(_covers(other, point, objectives) for other in others.values())
        ]
        sides.append(tuple(kept))
    return sides[0], sides[1]


def _covers(one: Metrics, other: Metrics, objectives: Sequence[Objective]) -> bool:
    """Tell whether a point is as good as another in all, with ties counted."""
    return all(o.box(one[o.name]) <= o.box(other[o.name]) for o in objectives)


def _side(
    result: Result,
    points: Mapping[int, Metrics],
    own: tuple[int, ...],
    objectives: Sequence[Objective],
    base: Metrics,
) -> Side:
    figures = result.figures()
    best = {
        o.name: (max if o.maximize else min)(point[o.name] for point in points.values()) for o in objectives if points
    }
    return Side(
        job=result.name,
        trials=int(figures["trials"]),
        training_seconds=figures["training_seconds"],
        hypervolume=_volume(points.values(), objectives, base),
        front={number: dict(point) for number, point in points.items()},
        own=own,
        best=best,
    )


def _volume(points: Iterable[Metrics], objectives: Sequence[Objective], base: Metrics) -> float:
    places = [[max(0.0, normalized(o, point[o.name], base[o.name])) for o in objectives] for point in points]
    return volume([place for place in places if max(place) < 1.0])


def _prints(result: Result) -> dict[str, str]:
    found: dict[str, str] = result.study.noted("fingerprints", {})
    return found


def _notes(first: Result, second: Result) -> Iterator[str]:
    ours, theirs = _prints(first), _prints(second)
    if ours.get("model") != theirs.get("model"):
        yield "they began with different models: costs are as each search measured them, in the box of the first one's baseline"
    if ours.get("data") != theirs.get("data"):
        yield "they had different data, so their scores do not say the same"
    if first.target != second.target or first.job.target.settings != second.job.target.settings:
        yield f"they were measured on different targets: {_place(first)}, and {_place(second)}"
    machines = [{r.environment.get("cpu", "") for r in each.records if r.complete} for each in (first, second)]
    if machines[0] != machines[1]:
        yield "they were measured on different processors: ratios to the baseline are compared, which may differ there"


def _place(result: Result) -> str:
    settings = result.job.targets[result.target].settings
    return f"{settings.runtime} with {settings.threads} threads and batches of {settings.batch_size}"
