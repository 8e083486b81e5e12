"""Recipes and the dimensions that their values belong to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.errors import UsageError
from paretrim.spaces.dimension import Choice, Range, Value
from paretrim.spaces.recipe import Recipe

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text(), st.floats(allow_nan=False, width=64)
)
MAPPINGS = st.dictionaries(st.text(), VALUES, max_size=8)
SEEDS = st.integers(0, 2**32)


@given(MAPPINGS, SEEDS)
def test_json_gives_the_same_recipe_back(values: dict[str, Value], seed: int) -> None:
    recipe = Recipe.of(values, seed)
    read = Recipe.from_json(recipe.to_json())
    assert read == recipe
    assert [type(value) for _, value in read.items] == [type(value) for _, value in recipe.items]


@given(MAPPINGS, st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_matter(values: dict[str, Value], source: object) -> None:
    pairs = list(values.items())
    source.shuffle(pairs)  # type: ignore[attr-defined]
    one, other = Recipe.of(values, 1), Recipe.of(dict(pairs), 1)
    assert one == other
    assert hash(one) == hash(other)
    assert one.to_json() == other.to_json()


def test_equal_recipes_have_the_same_text() -> None:
    one, other = Recipe.of({"pruning.ratio.stem": 0}), Recipe.of({"pruning.ratio.stem": 0.0})
    assert one == other
    assert one.to_json() == other.to_json()


def test_the_seed_is_part_of_the_recipe() -> None:
    assert Recipe.of({"a": 1}, seed=1) != Recipe.of({"a": 1}, seed=2)
    assert Recipe.of({"a": 1}, seed=1).to_json() != Recipe.of({"a": 1}, seed=2).to_json()


def test_values_are_read_by_name() -> None:
    recipe = Recipe.of({"recovery.epochs": 3, "quantization.bits.head": "none"})
    assert recipe.values == {"recovery.epochs": 3, "quantization.bits.head": "none"}
    assert recipe.number("recovery.epochs") == 3.0
    assert recipe.number("recovery.momentum", 0.9) == 0.9
    assert recipe.number("recovery.momentum") == 0.0


@pytest.mark.parametrize("value", ["none", None])
def test_a_value_that_is_no_number_says_which(value: Value) -> None:
    with pytest.raises(UsageError, match=r"quantization\.bits\.head is .*a number is needed"):
        Recipe.of({"quantization.bits.head": value}).number("quantization.bits.head")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_recipe_of_another_schema_is_refused(schema: object) -> None:
    document = {**json.loads(Recipe.of({"a": 1}).to_json()), "schema": schema}
    with pytest.raises(UsageError, match=f"schema {schema}; this version of paretrim reads schema 1"):
        Recipe.from_json(json.dumps(document))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(allow_nan=True))
def test_a_range_allows_what_lies_between_its_ends(one: float, other: float, value: float) -> None:
    low, high = sorted((one, other))
    assert Range("a", low, high, neutral=low).allows(value) == (low <= value <= high)


@pytest.mark.parametrize("value", ["0.5", None, True, float("nan")])
def test_a_range_allows_only_numbers(value: Value) -> None:
    assert not Range("a", 0.0, 1.0, neutral=0.0).allows(value)


def test_a_choice_allows_its_values() -> None:
    choice = Choice("quantization.bits.head", (8, 16, "none"), neutral="none")
    assert all(choice.allows(value) for value in (8, 16, "none"))
    assert not any(choice.allows(value) for value in (4, "8", None))
