"""The guide on a problem in closed form: what it proposes, and how much more of the front that gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from paretrim.evaluators.measurement import Measurement
from paretrim.search.guide import Guide, Habits
from paretrim.search.judge import Terms
from paretrim.search.space import Space
from paretrim.spaces.dimension import Choice, Value, existing
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.front import Objective, hypervolume
from paretrim.tracking.records import Preview, TrialRecord

from .helper_recipes import NEUTRAL, OBJECTIVES, SPACE, anchors, drawn, failed, objectives, profile, search, trial

SEEDS, TRIALS = (0, 1, 2), 24
TERMS = Terms("accuracy", OBJECTIVES, ())


def a_guide(
    seed: int = 0,
    earlier: Sequence[TrialRecord] = (),
    *,
    terms: Terms = TERMS,
    profiled: bool = True,
    ends: bool = False,
    batch: int = 2,
) -> Guide:
    # Trials are what is counted here, and not what they cost.
    habits = Habits(3, batch, seed=seed, ends=ends, share=False)
    return Guide(SPACE, terms, profile() if profiled else None, habits, earlier)


def proposing(guide: Guide) -> Callable[[list[TrialRecord], Callable[[Recipe], bool]], dict[str, Value] | None]:
    return lambda records, known: guide.propose(records, [], known)


def volume_of(records: Sequence[TrialRecord]) -> float:
    return hypervolume(records, OBJECTIVES, ())


@pytest.fixture(scope="module")
def guided() -> list[list[TrialRecord]]:
    return [search(TRIALS, seed, proposing(a_guide(seed))) for seed in SEEDS]


def test_it_reaches_more_than_random_recipes_do_in_three_times_as_many_trials(guided: list[list[TrialRecord]]) -> None:
    found = [volume_of(records) for records in guided]
    as_many = [volume_of(search(TRIALS, seed)) for seed in SEEDS]
    more = [volume_of(search(3 * TRIALS, seed)) for seed in SEEDS]
    assert np.mean(found) > np.mean(more) > np.mean(as_many)
    assert np.mean(found) > np.mean(as_many) + 0.01  # with the true objectives it would be 0.055 more


def test_an_earlier_search_helps() -> None:
    few = 8
    alone = [volume_of(search(few, seed, proposing(a_guide(seed, profiled=False)))) for seed in SEEDS]
    before = [search(50, 50 + seed) for seed in SEEDS]
    learned = [
        volume_of(search(few, seed, proposing(a_guide(seed, earlier, profiled=False))))
        for seed, earlier in zip(SEEDS, before, strict=True)
    ]
    assert np.mean(learned) > np.mean(alone) + 0.01


def test_no_recipe_is_proposed_twice_and_each_lies_in_the_space(guided: list[list[TrialRecord]]) -> None:
    for records in guided:
        recipes = [Recipe.of(record.recipe).items for record in records if record.kind == "search"]
        assert len(set(recipes)) == len(recipes)
        for record in records[2:]:
            values = dict(record.recipe)
            assert existing(SPACE.dimensions, values).keys() == values.keys()
            assert all(each.allows(values[each.name]) for each in SPACE.dimensions if each.name in values)


def test_the_same_records_give_the_same_proposals(guided: list[list[TrialRecord]]) -> None:
    records = guided[0][:12]
    under_way = [SPACE.recipe(drawn(np.random.default_rng(5)), 0)]

    def asked(count: int, seed: int = 0) -> list[dict[str, Value] | None]:
        guide = a_guide(seed)
        return [guide.propose(records, under_way, lambda _: False) for _ in range(count)]

    first = asked(2)
    assert None not in first
    assert first == asked(2)
    assert first != asked(2, seed=1)


def test_what_came_to_be_known_in_the_meantime_is_passed_over() -> None:
    guide, records = a_guide(), anchors()
    told = [guide.propose(records, [], lambda _: False)]
    first = a_guide().propose(records, [], lambda _: False)
    assert told[0] == first
    assert guide.propose(records, [], lambda _: True) is None  # all that waits was tried by the sampler
    assert guide.propose(records, [], lambda _: False) is not None


def test_known_recipes_are_never_proposed() -> None:
    records, tried = anchors(), set()
    for _ in range(3):
        values = a_guide().propose(records, [], lambda recipe: recipe.items in tried)
        assert values is not None
        recipe = SPACE.recipe(values, 0)
        assert recipe.items not in tried
        tried.add(recipe.items)


def test_one_ask_in_four_is_left_to_the_sampler_after_the_first(guided: list[list[TrialRecord]]) -> None:
    left = [a_guide().propose(guided[0][:count], [], lambda _: False) is None for count in (2, 4, 5, 6, 7, 10)]
    assert left == [False, False, False, True, False, True]
    ends = [a_guide(ends=True).propose(guided[0][:count], [], lambda _: False) is None for count in (4, 5, 6, 7)]
    assert ends == [False, True, True, True]


def test_nothing_is_proposed_before_the_baseline_is_done_or_where_nothing_is_searched() -> None:
    assert a_guide().propose([], [], lambda _: False) is None
    failed = replace(anchors()[0], state="failed", measurements=())
    assert a_guide().propose([failed, anchors()[1]], [], lambda _: False) is None
    constant = Space((), SPACE.anatomy, (Choice("recovery.epochs", (4,), 0),))
    guide = Guide(constant, Terms("accuracy", OBJECTIVES, ()), None, Habits(3, 2))
    assert guide.propose(anchors(), [], lambda _: False) is None


def test_what_it_proposes_meets_a_bound_on_a_cost() -> None:
    terms, base = Terms("accuracy", OBJECTIVES, (parse("size_bytes <= 12% of baseline"),)), objectives(NEUTRAL)

    def near(values: dict[str, Value] | None) -> bool:
        return objectives(values or {})["size_bytes"] <= 0.15 * base["size_bytes"]

    guide, records = a_guide(3, terms=terms, batch=8), search(49, 4)
    assert sum(near(guide.propose(records, [], lambda _: False)) for _ in range(6)) >= 5
    assert np.mean([near(drawn(np.random.default_rng(seed))) for seed in range(200)]) < 0.3


def test_the_hope_of_a_recipe_is_hardly_ever_too_low(guided: list[list[TrialRecord]]) -> None:
    records, guide = guided[0], a_guide()
    recipes = [SPACE.recipe(drawn(np.random.default_rng(seed)), 0) for seed in range(40)]
    assert guide.hope(records, recipes[0]) is None  # it has learned nothing
    while guide.propose(records, [], lambda _: False) is None:
        records = records[:-1]
    assert guide.hope(records[:6], recipes[0]) is None  # too few have ended
    hopes = [guide.hope(records, recipe) for recipe in recipes]
    scores = [objectives(recipe.values)["accuracy"] for recipe in recipes]
    assert sum(hope is not None and hope >= score for hope, score in zip(hopes, scores, strict=True)) >= 36
    assert max(hope or 0.0 for hope in hopes) < 1.2


def test_errors_are_hoped_to_be_few(guided: list[list[TrialRecord]]) -> None:
    """A metric of which less is better goes the other way."""

    def turned(record: TrialRecord) -> TrialRecord:
        error = Measurement("errors", 1.0 - record.metrics["accuracy"])
        epochs = tuple(replace(epoch, score=1.0 - (epoch.score or 0.0)) for epoch in record.epochs)
        return replace(record, measurements=(error, *record.measurements), epochs=epochs)

    terms = Terms("errors", (Objective("errors"), *OBJECTIVES[1:]), ())
    records, guide = [turned(record) for record in guided[0]][:-1], a_guide(terms=terms, profiled=False)
    while guide.propose(records, [], lambda _: False) is None:
        records = records[:-1]
    recipe = SPACE.recipe(drawn(np.random.default_rng(0)), 0)
    hope, doubt = guide.hope(records, recipe), guide.hope(records, recipe, errors=-2.0)
    assert hope is not None
    assert doubt is not None
    assert hope < doubt


def test_a_search_without_the_metric_among_its_objectives_has_no_hope(guided: list[list[TrialRecord]]) -> None:
    guide = a_guide(terms=Terms("accuracy", OBJECTIVES[1:], ()))
    while guide.propose(guided[0], [], lambda _: False) is None:
        guided[0].pop()
    assert guide.hope(guided[0], SPACE.recipe(drawn(np.random.default_rng(0)), 0)) is None


def test_an_earlier_search_may_have_had_other_objectives() -> None:
    objectives_now = (*OBJECTIVES, Objective("energy_mj"))
    records = [replace(r, measurements=(*r.measurements, Measurement("energy_mj", 5.0))) for r in anchors()]
    guide = a_guide(0, search(12, 9), terms=Terms("accuracy", objectives_now, ()))
    assert guide.propose(records, [], lambda _: False) is not None


def test_trials_that_ended_early_are_learned_from_too(guided: list[list[TrialRecord]]) -> None:
    early = Preview(tuple(m for m in guided[0][5].measurements if m.name != "accuracy"))
    stopped = replace(guided[0][5], state="stopped", measurements=(), preview=early)
    never = replace(stopped, number=6, epochs=())
    failed = TrialRecord(7, "search", "failed", guided[0][7].recipe, seconds={"total": 60.0})
    records = [*guided[0][:5], stopped, never, failed, trial(8, SPACE.recipe(drawn(np.random.default_rng(3)), 0))]
    assert a_guide().propose(records, [], lambda _: False) is not None


def test_what_fails_for_its_recipe_is_tried_less_and_less() -> None:
    # The best recipes have 4 bits in the largest layer; that they fail must be found out, and lived with.
    def failing(*, told: bool) -> Callable[[TrialRecord], TrialRecord]:
        def ends(record: TrialRecord) -> TrialRecord:
            return failed(record, unfit=told) if record.recipe["quantization.bits.outer"] == 4 else record

        return ends

    def late_failures(records: Sequence[TrialRecord]) -> float:
        return float(np.mean([record.state == "failed" for record in records[TRIALS // 2 :]]))

    told, untold = (search(TRIALS, 0, proposing(a_guide(0)), failing(told=told)) for told in (True, False))
    assert late_failures(told) < 0.5 * late_failures(untold)
    assert volume_of(told) > volume_of(untold)
