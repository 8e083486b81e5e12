from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.tracking.front import Objective
from paretrim.tracking.knee import knee
from paretrim.tracking.testing import OBJECTIVES

TWO = (Objective("accuracy", maximize=True), Objective("size_bytes"))
BASE = {"accuracy": 0.9, "latency_ms": 1.0, "size_bytes": 1000.0, "memory_bytes": 100.0}


def bend(points: Sequence[tuple[float, float]]) -> int | None:
    return knee([{"accuracy": a, "size_bytes": s} for a, s in points], TWO, BASE)


def test_the_knee_is_where_the_front_bends() -> None:
    assert bend([(0.95, 900.0), (0.94, 300.0), (0.90, 250.0), (0.85, 200.0)]) == 1


def test_the_ends_are_no_knees() -> None:
    # By the sum alone the first of these would be as good as the second.
    assert bend([(0.95, 900.0), (0.90, 550.0), (0.85, 200.0)]) == 1


@pytest.mark.parametrize("points", [[], [(0.9, 500.0)], [(0.95, 900.0), (0.85, 200.0)]])
def test_without_a_point_between_there_is_none(points: list[tuple[float, float]]) -> None:
    assert bend(points) is None


def test_of_two_that_are_alike_the_first_is_taken() -> None:
    assert bend([(0.95, 900.0), (0.93, 400.0), (0.93, 400.0), (0.85, 200.0)]) == 1


def test_a_point_outside_the_box_does_not_stretch_the_scale() -> None:
    inside = [(0.95, 900.0), (0.94, 700.0), (0.93, 300.0), (0.90, 100.0)]
    assert bend(inside) == bend([*inside, (0.1, 1.0)]) == 2


def test_a_point_that_is_best_in_several_objectives_of_four_can_be_the_knee() -> None:
    def point(accuracy: float, latency: float, size: float, memory: float) -> dict[str, float]:
        return {"accuracy": accuracy, "latency_ms": latency, "size_bytes": size, "memory_bytes": memory}

    front = [
        point(0.92, 0.9, 900, 90),
        point(0.91, 0.3, 200, 20),
        point(0.89, 0.31, 210, 19),
        point(0.86, 0.4, 190, 30),
    ]
    assert knee(front, OBJECTIVES, BASE) == 1


@given(st.lists(st.tuples(st.floats(0.81, 0.99), st.floats(1.0, 1900.0)), min_size=3, max_size=12))
def test_the_knee_does_not_depend_on_the_units_of_costs(points: list[tuple[float, float]]) -> None:
    large = [{"accuracy": a, "size_bytes": s * 1024.0} for a, s in points]
    assert knee(large, TWO, {**BASE, "size_bytes": 1024_000.0}) == bend(points)


@given(st.lists(st.tuples(st.floats(0.81, 0.99), st.floats(1.0, 1900.0)), min_size=3, max_size=12))
def test_the_knee_is_never_the_worst_in_anything(points: list[tuple[float, float]]) -> None:
    found = bend(points)
    scores, sizes = {a for a, _ in points}, {s for _, s in points}
    if found is not None:
        assert len(scores) == 1 or points[found][0] > min(scores)
        assert len(sizes) == 1 or points[found][1] < max(sizes)
