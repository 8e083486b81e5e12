from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretrim.errors import JobError, UsageError
from paretrim.search import reach
from paretrim.search.api import search
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.profile import glance
from paretrim.search.reach_words import recipe_words
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.spaces.recipe import Recipe
from tests.search.conftest import tiny_job

Check = Callable[..., list[str]]


def a_job(**changes: Any) -> Job:
    return tiny_job(**{"search": {"finals": {"points": 0}}, **changes})


@pytest.fixture(scope="module")
def knowing(context: TrialContext) -> TrialContext:
    """What the trials shared, with the model's sensitivity."""
    return replace(context, sensitivity=glance(context))


@pytest.fixture
def checked(knowing: TrialContext) -> Check:
    """Check bounds; return what was said."""

    def check(*constraints: str, **changes: object) -> list[str]:
        said: list[str] = []
        reach.check(a_job(constraints=constraints, **changes), knowing, said.append)
        return said

    return check


def test_a_size_that_is_far_out_of_reach_ends_with_the_bound_the_nearest_recipe_and_what_to_do(checked: Check) -> None:
    with pytest.raises(JobError) as caught:
        checked("size_bytes <= 0.5% of baseline", "accuracy >= baseline - 0.5")
    text = str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert "'size_bytes <= 0.5% of baseline' (that is 0.329 kB) cannot be met" in text
    assert "times the bound" in text
    assert "pruning.ratio 0.75 (inner, stem)" in text
    assert "Loosen it" in text
    assert "accuracy" not in text


def test_a_bound_that_the_smallest_recipe_meets_is_passed_over(checked: Check) -> None:
    said = checked("size_bytes <= 10% of baseline")
    assert said == ["looking for recipes that meet 'size_bytes <= 10% of baseline'"]


def test_a_bound_that_the_baseline_meets_is_not_looked_into(checked: Check) -> None:
    assert checked("size_bytes <= 100% of baseline") == []


def test_a_bound_that_may_just_be_met_is_told_and_tried(checked: Check) -> None:
    # The smallest file weighs 2.66 kB untrained, and training may take a third of that away.
    said = checked("size_bytes <= 2.7% of baseline")
    assert said[-1].startswith("perhaps nothing meets 'size_bytes <= 2.7% of baseline'")
    assert said[-1].endswith("the search goes on and tries")


@pytest.mark.parametrize(
    "changes",
    [
        {"constraints": ["accuracy >= baseline - 0.01"]},
        {"constraints": ["prefer size_bytes <= 1% of baseline"]},
        {"constraints": ["size_bytes <= 1% of baseline"], "search": {"preview": False}},
    ],
)
def test_nothing_is_made_where_no_hard_bound_on_a_cost_is_to_be_checked(
    changes: dict[str, object], knowing: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_Survey", None)
    said: list[str] = []
    reach.check(a_job(**changes), knowing, said.append)
    assert said == []


def test_a_bound_below_nothing_is_told_before_anything_is_searched(checked: Check) -> None:
    with pytest.raises(JobError, match="it is always more than 0"):
        checked("size_bytes <= baseline - 1000000")


def test_a_search_that_cannot_meet_its_bounds_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach._Survey, "_candidates", lambda *_: ())  # the baseline is far enough from it
    job = a_job(constraints=["size_bytes <= 0.5% of baseline"])
    with pytest.raises(JobError, match="as measured before any training, the job has 1 mistake"):
        search(job, store=tmp_path)
    assert Store(tmp_path).names() == []


def test_recipes_read_by_what_they_do(knowing: TrialContext) -> None:
    anchors = knowing.space.anchors(0)
    assert recipe_words(anchors["baseline"], knowing.space) == "the model as it is"
    assert recipe_words(anchors["int8"], knowing.space) == "quantization.bits 8 (head, inner, outer, stem)"
    cut = Recipe.of({**anchors["baseline"].values, "pruning.ratio.stem": 0.375})
    assert recipe_words(cut, knowing.space) == "pruning.ratio 0.375 (stem)"


@pytest.fixture(scope="module")
def stopped(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of which every candidate was stopped before training, since all break a bound by far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "check", lambda *_: None)
        bounds = ["size_bytes <= 0.5% of baseline", "prefer latency_ms <= 1% of baseline"]
        job = a_job(constraints=bounds, budget={"trials": 5, "parallel": 2})
        return search(job, store=tmp_path_factory.mktemp("stopped"))


@pytest.mark.slow
def test_where_all_were_stopped_before_training_the_nearest_misses_are_among_them(stopped: Result) -> None:
    candidates = [r for r in stopped.records if r.kind == "search"]
    assert candidates
    assert all(r.state == "stopped" and not r.epochs for r in candidates)
    sizes = {r.number: r.preview.metrics["size_bytes"] for r in candidates if r.preview is not None}
    nearest = min(sizes, key=lambda number: sizes[number])
    head, first, *_ = stopped.why_empty().splitlines()
    assert "the one that binds is 'size_bytes <= 0.5% of baseline' (that is size_bytes <= 329)" in head
    assert f"missed by {sizes[nearest] / 329 - 1:.1%} at the least" in head
    assert first.startswith(f"  trial {nearest} (search, not trained, measured as it was before): size_bytes")


@pytest.mark.slow
def test_a_soft_bound_stops_nothing_and_is_no_miss(stopped: Result) -> None:
    assert not any("prefer" in r.cause or "latency_ms is" in r.cause for r in stopped.records)
    assert "latency_ms" not in stopped.why_empty()
    assert stopped.require_report().baseline.misses["latency_ms"] == pytest.approx(99.0, rel=0.3)
