"""The knee of a front: the point from which a gain in one objective costs most in the others. Pure arithmetic.

Of the published definitions this takes the smallest Manhattan distance to the ideal point, with each objective scaled
to its range over the front (Chiu, Yen and Juan, "Minimum Manhattan Distance Approach to Multiple Criteria Decision
Making in Multiobjective Optimization Problems", IEEE Transactions on Evolutionary Computation, 2016). It is the point
that bulges most from the hyperplane on which all scaled objectives add up to the same, as in Das ("On Characterizing
the 'Knee' of the Pareto Curve Based on Normal-Boundary Intersection", 1999), but needs no extreme point for each
objective: with four of them one point is often extreme in several. Unlike marginal utility (Branke et al., "Finding
Knees in Multi-objective Optimization", 2004), it does not pass over a point because another lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretrim.tracking.front import Objective, normalized

_LEAST = 3
# Sums that differ by less are one: the order of addition must not decide.
_DECIMALS = 9


def knee(
    points: Sequence[Mapping[str, float]], objectives: Sequence[Objective], baseline: Mapping[str, float]
) -> int | None:
    """Return the position of a front's knee; of several, the first in the given order.

    Only points inside the hypervolume's box come into question and set the ranges: a model that lost a tenth of its
    score would otherwise stretch the scale until the scores of all others look alike.

    Args:
        points: Measurements of the points of a front, in the order of the front.
        objectives: What is compared.
        baseline: The baseline's measurements, which fix the box.

    Returns:
        None where fewer than three points come into question: two ends have no knee between them.
    """
    places = [[normalized(o, point[o.name], baseline[o.name]) for o in objectives] for point in points]
    inside = [i for i, place in enumerate(places) if all(x < 1.0 for x in place)]
    if len(inside) < _LEAST:
        return None
    ranges = [_range([places[i][k] for i in inside]) for k in range(len(objectives))]
    return min(inside, key=lambda i: (_distance(places[i], ranges), i))


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _distance(place: Sequence[float], ranges: Sequence[tuple[float, float]]) -> float:
    pairs = zip(place, ranges, strict=True)
    return round(sum((x - low) / (high - low) for x, (low, high) in pairs if high > low), _DECIMALS)
