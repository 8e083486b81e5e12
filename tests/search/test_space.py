from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.signature import Signature
from paretrim.search.job import Job
from paretrim.search.space import Space, build
from paretrim.spaces.anatomy import Anatomy, Group, Layer
from paretrim.spaces.dimension import Choice, Range, existing, exists

ANATOMY = Anatomy(
    layers=(Layer("stem", 288, True, False), Layer("inner", 9216, False, False), Layer("head", 320, False, True)),
    groups=(Group("stem", ("stem",), 32), Group("inner", ("inner",), 32)),
    left_out=(("head", "gives the model's output"),),
    inputs=Signature.single((1, 8, 8)),
)
BITS = {f"quantization.bits.{name}" for name in ("stem", "inner", "head")}


def a_space(**settings: Any) -> Space:
    return build(Job(model="mine:model", data="mine:data", space=settings), ANATOMY)


def names(space: Space) -> set[str]:
    return {dimension.name for dimension in space.dimensions}


def test_every_technique_brings_its_knobs() -> None:
    assert {name.split(".")[0] for name in names(a_space())} == {
        "pruning", "quantization", "distillation", "recovery",
    }  # fmt: skip


def test_a_technique_that_is_off_brings_none() -> None:
    assert "distillation.weight" in names(a_space())
    assert "distillation.weight" not in names(a_space(distillation="off"))


def test_techniques_act_in_one_order_whatever_the_order_of_the_job() -> None:
    forward = a_space(pruning={}, recovery={}, distillation={})
    backward = a_space(distillation={}, recovery={}, pruning={})
    assert [type(part) for part in forward.techniques] == [type(part) for part in backward.techniques]
    assert forward.fingerprint() == backward.fingerprint()


def test_constants_are_in_the_recipe_but_not_searched() -> None:
    space = a_space(recovery={"epochs": 7})
    searched = {dimension.name for dimension in space.searched}
    recipe = space.recipe(dict.fromkeys(searched, 0.5), seed=5)
    assert recipe.values["recovery.epochs"] == 7
    assert "recovery.epochs" not in searched
    assert set(recipe.values) == names(space)
    assert recipe.seed == 5


def test_a_range_of_one_step_is_a_constant() -> None:
    space = a_space(pruning={"ratio": [0.25, 0.3], "step": 0.125})
    assert space.recipe({}, 0).values["pruning.ratio.stem"] == 0.25
    assert not any(dimension.name.startswith("pruning") for dimension in space.searched)


def test_sampled_values_take_the_place_of_nothing_else() -> None:
    values = a_space().recipe({"pruning.ratio.stem": 0.5}, 0).values
    assert values["pruning.ratio.stem"] == 0.5
    assert values["recovery.batch_size"] == 64


def test_the_anchors_are_the_baseline_float16_and_int8_in_that_order() -> None:
    assert list(a_space().anchors(0)) == ["baseline", "float16", "int8"]


def test_the_baseline_is_neutral_in_every_knob() -> None:
    space = a_space()
    baseline = space.anchors(3)["baseline"]
    neutral = {dimension.name: dimension.neutral for dimension in space.dimensions}
    assert baseline.values == existing(space.dimensions, neutral)
    assert "distillation.temperature" not in baseline.values  # nothing is distilled
    assert baseline.values["recovery.epochs"] == 0
    assert baseline.seed == 3


@pytest.mark.parametrize(("kind", "bits"), [("baseline", "none"), ("float16", 16), ("int8", 8)])
@pytest.mark.parametrize("settings", [{}, {"weight_bits": [4]}, "off"], ids=str)
def test_an_anchor_has_its_bits_in_every_layer(settings: Any, kind: str, bits: object) -> None:
    anchors = a_space(quantization=settings).anchors(0)
    assert {anchors[kind].values[name] for name in BITS} == {bits}


def test_with_quantization_off_no_bits_are_searched() -> None:
    space = a_space(quantization="off")
    assert not BITS & {dimension.name for dimension in space.searched}
    assert {space.recipe({}, 0).values[name] for name in BITS} == {"none"}


def test_with_everything_off_the_anchors_are_still_there() -> None:
    space = a_space(**dict.fromkeys(["pruning", "quantization", "distillation", "recovery"], "off"))
    assert space.searched == ()
    assert [recipe.values["quantization.bits.inner"] for recipe in space.anchors(0).values()] == ["none", 16, 8]


CHANGES: list[dict[str, Any]] = [
    {"pruning": "off"},
    {"pruning": {"ratio": [0.0, 0.5]}},
    {"pruning": {"step": 0.25}},
    {"pruning": {"importance": "l1"}},
    {"pruning": {"round_to": 16}},
    {"quantization": "off"},
    {"quantization": {"weight_bits": [8, "none"]}},
    {"distillation": {"temperature": [1.0, 4.0]}},
    {"distillation": {"weight": [0.0, 0.5]}},
    {"recovery": {"epochs": 5}},
    {"recovery": {"batch_size": 32}},
    {"recovery": {"learning_rate": [0.01, 0.1]}},
    {"recovery": {"momentum": 0.5}},
    {"recovery": {"weight_decay": 0.0}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_fingerprint_changes_with_every_setting(change: dict[str, Any]) -> None:
    assert a_space(**change).fingerprint() != a_space().fingerprint()


def test_the_fingerprint_is_the_same_for_the_same_settings() -> None:
    assert a_space(recovery={"epochs": 5}).fingerprint() == a_space(recovery={"epochs": 5}).fingerprint()


@given(st.data())
def test_any_recipe_of_the_space_names_every_knob_with_an_allowed_value(data: st.DataObject) -> None:
    space = a_space()
    values = {
        d.name: data.draw(st.floats(d.low, d.high) if isinstance(d, Range) else st.sampled_from(d.values), d.name)
        for d in space.searched
    }
    recipe = space.recipe(values, 0)
    there = [dimension for dimension in space.dimensions if exists(dimension, recipe.values)]
    assert set(recipe.values) == {dimension.name for dimension in there}
    assert all(dimension.allows(recipe.values[dimension.name]) for dimension in there)


def test_every_knob_is_a_range_or_a_choice_under_the_name_of_its_technique() -> None:
    space = a_space()
    assert all(isinstance(dimension, Range | Choice) for dimension in space.dimensions)
    assert len(names(space)) == len(space.dimensions)
