"""The knee of a front: the point from which a gain in one objective costs most in the others. Pure arithmetic.

Of the published definitions this takes the smallest Manhattan distance to the ideal point, with each objective scaled
to its range over the front (Chiu, Yen and Juan, "Minimum Manhattan Distance Approach to Multiple Criteria Decision
Making in Multiobjective Optimization Problems", IEEE Transactions on Evolutionary Computation, 2016). It is the point
that bulges most from the plane on which all scaled objectives add up to the same, as in Das ("On Characterizing the
'Knee' of the Pareto Curve Based on Normal-Boundary Intersection", 1999), but needs no extreme point for each objective:
with four of them one point is often extreme in several. Unlike marginal utility (Branke et al., "Finding Knees in
Multi-objective Optimization", 2004), it does not pass over a point because another lies beside it.

A knee lies between the ends of a front, so the points that are its worst in an objective do not come into question. With
two objectives those are the two extreme points, the distance of which from Das's line is zero; with four, one of them
could otherwise win by the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paretrim.tracking.front import Objective, normalized

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
        None where no point lies between the ends.
    """
    places = [[normalized(o, point[o.name], baseline[o.name]) for o in objectives] for point in points]
    inside = [i for i, place in enumerate(places) if all(x < 1.0 for x in place)]
    columns = list(zip(*(places[i] for i in inside), strict=True))
    ranges = [(min(column), max(column)) for column in columns]
    scaled = {i: _scaled(places[i], ranges) for i in inside}
    between = [i for i in inside if scaled[i] and max(scaled[i]) < 1.0]
    return min(between, key=lambda i: (round(sum(scaled[i]), _DECIMALS), i), default=None)


def _scaled(place: Sequence[float], ranges: Sequence[tuple[float, float]]) -> list[float]:
    """Return a place with 0 as the front's best and 1 as its worst; an objective in which all are alike is left out."""
    return [(x - low) / (high - low) for x, (low, high) in zip(place, ranges, strict=True) if high > low]
