"""Evolving recipes over predictions: thousands of recipes, none of them made.

Non-dominated sorting with crowding (Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Judge = Callable[[Floats], Floats]
"""Rows of knobs between 0 and 1, shape ``(N, D)``, to objectives in which less is better, shape ``(N, M)``."""

_SIZE, _GENERATIONS = 160, 24
_STEP = 0.15


def evolve(start: Floats, judge: Judge, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the last generation, and its objectives.

    Args:
        start: Rows to begin with, shape ``(N, D)``; random ones fill up the first generation.
        judge: Predicts the objectives.
        generator: Of chance.
    """
    missing = max(0, _SIZE - len(start))
    rows = np.concatenate([start[:_SIZE], generator.random((missing, start.shape[1]))])
    values = judge(rows)
    for _ in range(_GENERATIONS):
        children = _children(rows, values, generator)
        both, both_values = np.concatenate([rows, children]), np.concatenate([values, judge(children)])
        chosen = _best(both_values, _SIZE)
        rows, values = both[chosen], both_values[chosen]
    return rows, values


def _children(rows: Floats, values: Floats, generator: np.random.Generator) -> Floats:
    count, knobs = rows.shape
    place = np.empty(count)
    place[_best(values, count)] = np.arange(count)
    pairs = [generator.integers(count, size=(count, 2)) for _ in range(2)]
    mothers, fathers = (pair[np.arange(count), np.argmin(place[pair], axis=1)] for pair in pairs)
    crossed = np.where(generator.random((count, knobs)) < 0.5, rows[mothers], rows[fathers])
    # One or two knobs move a little, one may be drawn anew.
    little = generator.random((count, knobs)) < 1.5 / knobs
    anew = generator.random((count, knobs)) < 1.0 / knobs
    moved = np.where(little, crossed + generator.normal(0.0, _STEP, (count, knobs)), crossed)
    return np.clip(np.where(anew, generator.random((count, knobs)), moved), 0.0, 1.0)


def _best(values: Floats, count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the best rows, by rank and then by how much room they have around them."""
    import moocore  # noqa: PLC0415 - slow to import

    ranks = np.asarray(moocore.pareto_rank(values))
    return np.lexsort((-_room(values, ranks), ranks))[:count]


def _room(values: Floats, ranks: npt.NDArray[np.int64]) -> Floats:
    room = np.zeros(len(values))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        for column in values[members].T:
            order = np.argsort(column, kind="stable")
            room[members[order[[0, -1]]]] = np.inf
            span = float(np.ptp(column)) if np.isfinite(column).all() else 0.0
            if span > 0.0:
                room[members[order[1:-1]]] += (column[order[2:]] - column[order[:-2]]) / span
    return room
