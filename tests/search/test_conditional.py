"""Knobs that exist only with some values of others, in a study: sampled, told, resumed."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import optuna
import pytest

from paretrim.evaluators.signature import Signature
from paretrim.search.job import Job
from paretrim.search.space import Space, build
from paretrim.search.study import Asked, Study
from paretrim.spaces.anatomy import Anatomy, Group, Layer
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value, existing, exists
from paretrim.spaces.grid import stepped
from paretrim.tracking.testing import OBJECTIVES, sample_record

ANATOMY = Anatomy(
    layers=(Layer("stem", 288, True, False), Layer("head", 320, False, True)),
    groups=(Group("stem", ("stem",), 32),),
    left_out=(),
    inputs=Signature.single((1, 8, 8)),
)
SEED = 5
# Of each kind of condition one, and one that hangs on another that is conditional itself.
MADE_UP = (
    Range("a.share", 0.0, 1.0, neutral=0.0, step=0.5),
    Choice("a.way", ("near", "far"), "near", when=(Condition("a.share"),)),
    Range("a.reach", 1.0, 9.0, neutral=1.0, when=(Condition("a.way", ("far",)),)),
    Choice("b.bits", (4, 8, "none"), "none"),
    Choice("b.family", ("uniform", "lsq"), "uniform", when=(Condition("b.bits", (4, 8)), Condition("a.way", ("far",)))),
)


def job_space() -> Space:
    given = {
        "pruning": {"importance": ["l1", "l2"]},
        "quantization": {"families": ["uniform", "lsq"], "calibration": ["minmax", "entropy"]},
        "recovery": {"epochs": [0, 2], "optimizer": ["sgd", "adamw"]},
    }
    return build(Job(model="mine:model", data="mine:data", space=given), ANATOMY)


SPACES = {"made-up": Space((), ANATOMY, MADE_UP), "of a job": job_space()}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]


def study_in(folder: Path, create: bool = False) -> Study:
    return Study(f"sqlite:///{folder / 'study.db'}", "mine-1", OBJECTIVES, (), SEED, create=create)


def asked_and_told(study: Study, space: Space, count: int) -> list[Asked]:
    found = []
    for _ in range(count):
        one = study.ask(space)
        cost = sum(value for value in one.recipe.values.values() if isinstance(value, float))
        study.tell(sample_record(one.number, {"latency_ms": 1.0 + cost}, kind=one.kind, recipe=one.recipe.values))
        found.append(one)
    return found


def names_that_exist(space: Space, asked: Asked) -> set[str]:
    return {each.name for each in space.dimensions if exists(each, asked.recipe.values)}


def test_a_recipe_has_just_the_knobs_that_exist_while_tpe_learns(space: Space, tmp_path: Path) -> None:
    study = study_in(tmp_path, create=True)
    study.use_sampler(25)  # the random start takes 8
    found = asked_and_told(study, space, 25)
    assert all(set(one.recipe.values) == names_that_exist(space, one) for one in found)
    allowed = {each.name: each for each in space.dimensions}
    assert all(allowed[name].allows(value) for one in found for name, value in one.recipe.values.items())
    there = [sum(name in one.recipe.values for one in found) for name in allowed if allowed[name].when]
    assert there
    assert all(there), "a knob never existed"
    assert min(there) < len(found), "no knob was ever left out"


def test_what_does_not_exist_is_not_in_the_study_either(space: Space, tmp_path: Path) -> None:
    study = study_in(tmp_path, create=True)
    found = asked_and_told(study, space, 10)
    stored = optuna.load_study(study_name="mine-1", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    searched = {each.name for each in space.searched}
    assert [set(trial.params) for trial in stored] == [set(one.recipe.values) & searched for one in found]


def test_interrupted_trials_come_back_with_their_recipes(space: Space, tmp_path: Path) -> None:
    study = study_in(tmp_path, create=True)
    study.use_sampler(20)
    asked_and_told(study, space, 12)
    open_ones = [study.ask(space) for _ in range(4)]
    again = study_in(tmp_path)
    again.use_sampler(20)
    assert [again.ask(space) for _ in range(4)] == open_ones
    assert again.ask(space).number == 16


def test_a_trial_that_died_while_it_was_sampled_keeps_what_it_had(tmp_path: Path) -> None:
    space = SPACES["made-up"]
    study_in(tmp_path, create=True)
    raw = optuna.load_study(study_name="mine-1", storage=f"sqlite:///{tmp_path / 'study.db'}").ask()
    raw.suggest_float("a.share", 0.0, 1.0, step=0.5)
    chosen = raw.suggest_categorical("a.way", ("near", "far")) if raw.params["a.share"] else None
    one = study_in(tmp_path).ask(space)
    assert one.number == 0
    assert one.recipe.values["a.share"] == raw.params["a.share"]
    assert one.recipe.values.get("a.way") == chosen
    assert set(one.recipe.values) == names_that_exist(space, one)


def test_tpe_learns_a_knob_that_is_there_in_half_of_the_trials(tmp_path: Path) -> None:
    reach = Range("a.reach", 0.0, 8.0, neutral=0.0, when=(Condition("a.way", ("far",)),))
    space = Space((), ANATOMY, (Choice("a.way", ("near", "far"), "near"), reach))
    study = study_in(tmp_path, create=True)
    study.use_sampler(40)
    found = []
    for _ in range(40):
        one = study.ask(space)
        # Far is better than near, and best at 6.
        gap = abs(one.recipe.number("a.reach") - 6.0) if one.recipe.values["a.way"] == "far" else 9.0
        metrics = {"accuracy": 1.0 - gap / 10, "latency_ms": 1 + gap, "size_bytes": 1 + gap, "memory_bytes": 1 + gap}
        study.tell(sample_record(one.number, metrics, recipe=one.recipe.values))
        found.append(gap)
    assert sum(found[-15:]) / 15 < sum(found[:15]) / 15
    assert sorted(found[-15:])[7] < 2.0


@pytest.mark.parametrize("heads", [2, 3, 6, 7, 13, 15, 23])
def test_the_last_step_of_a_range_can_be_sampled(heads: int, tmp_path: Path) -> None:
    # Four sixths are less than four times a sixth, as decimals of floats have it.
    top = math.floor(0.75 * heads) / heads
    knob = Range("pruning.heads.all", 0.0, top, neutral=0.0, step=1 / heads)
    assert last_of(knob, tmp_path) == pytest.approx(top)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.0, 0.9, 0.1), (0.7, 1.0, 0.05), (0.0, 0.8, 0.2), (0.3, 0.9, 0.15)]
)
def test_the_last_step_of_decimals_can_be_sampled(low: float, high: float, step: float, tmp_path: Path) -> None:
    assert last_of(stepped("a.share", low, high, step, neutral=0.0), tmp_path) == pytest.approx(high)


def last_of(knob: Dimension, folder: Path) -> float:
    study, space = study_in(folder, create=True), Space((), ANATOMY, (knob,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = study.ask(space).recipe.number(knob.name)
    assert knob.allows(value)
    (stored,) = optuna.load_study(study_name="mine-1", storage=f"sqlite:///{folder / 'study.db'}").trials
    distribution = stored.distributions[knob.name]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return distribution.high


class TestConditions:
    def test_any_of_several_conditions_is_enough(self) -> None:
        family = MADE_UP[4]
        assert exists(family, {"b.bits": 8})
        assert exists(family, {"b.bits": "none", "a.way": "far"})
        assert not exists(family, {"b.bits": "none", "a.way": "near"})
        assert not exists(family, {})

    def test_a_number_must_be_above_and_not_at_the_bound(self) -> None:
        above = Condition("a.share", above=0.5)
        assert [above.holds({"a.share": value}) for value in (0.5, 0.51, "much", None)] == [False, True, False, False]
        assert not above.holds({})

    def test_a_chain_falls_with_its_first_link(self) -> None:
        values: dict[str, Value] = {"a.share": 0.0, "a.way": "far", "a.reach": 3.0, "b.bits": "none", "b.family": "lsq"}
        assert existing(MADE_UP, values) == {"a.share": 0.0, "b.bits": "none"}

    def test_the_order_is_that_of_the_dimensions(self) -> None:
        values: dict[str, Value] = {
            "b.family": "lsq",
            "a.way": "far",
            "a.share": 0.5,
            "b.bits": 4,
            "a.reach": 2.0,
            "stranger": 1,
        }
        assert list(existing(MADE_UP, values)) == ["a.share", "a.way", "a.reach", "b.bits", "b.family"]

    def test_none_is_a_value_that_can_be_asked_for(self) -> None:
        assert Condition("a.way", (None,)).holds({"a.way": None})
        assert not Condition("a.way", (None,)).holds({})
