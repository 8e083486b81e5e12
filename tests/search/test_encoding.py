"""Recipes as numbers and back, for all kinds of knobs; and what evolution makes of numbers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.search.encoding import Encoding, stack
from paretrim.search.evolution import evolve
from paretrim.search.knobs import from_sampled, to_sampled
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value, existing
from paretrim.spaces.grid import stepped

Floats = npt.NDArray[np.float64]

ENDS = st.tuples(st.integers(-50, 50), st.integers(1, 100)).map(lambda ends: (ends[0] / 10, (ends[0] + ends[1]) / 10))
WORDS = st.lists(st.sampled_from(["a", "b", "none", 2, 4, 8, 16, 0.5, True, None]), min_size=2, max_size=6, unique=True)
CONSTANTS: dict[str, Value] = {"made.constant": 3, "made.word": "on"}
FIXED = tuple(Choice(name, (value,), value) for name, value in CONSTANTS.items())


@st.composite
def conditions(draw: st.DrawFn, before: tuple[Dimension, ...]) -> tuple[Condition, ...]:
    """Return when a knob exists: always, or by the value of one before it or of a constant."""
    some: list[Condition] = [Condition("made.constant", (3,)), Condition("made.word", ("off",))]
    for other in before:
        if isinstance(other, Choice):
            some.append(Condition(other.name, tuple(draw(st.lists(st.sampled_from(other.values), min_size=1)))))
        else:
            some.append(Condition(other.name, above=draw(st.sampled_from([0.0, 1.0]))))
    return tuple(draw(st.lists(st.sampled_from(some), max_size=2)))


@st.composite
def knobs(draw: st.DrawFn, name: str, before: tuple[Dimension, ...]) -> Dimension:
    """Return any knob that a technique may declare."""
    when = draw(conditions(before))
    kind = draw(st.sampled_from(["choice", "range", "log", "stepped", "grid"]))
    low, high = draw(ENDS)
    if kind == "choice":
        given: tuple[Value, ...] = tuple(draw(WORDS))
        return Choice(name, given, draw(st.sampled_from([*given, "neutral"])), when)
    if kind == "log":
        return Range(name, 10**low, 10**high, draw(st.sampled_from([0.0, 10**low])), log=True, when=when)
    if kind == "stepped":
        return Range(name, low, low + draw(st.integers(1, 12)) * 0.1, low, step=0.1, when=when)
    if kind == "grid":
        return stepped(name, low, high, draw(st.sampled_from([0.05, 0.125, 1 / 3])), neutral=low, when=when)
    return Range(name, low, high, draw(st.sampled_from([low, high, 0.0])), when=when)


@st.composite
def spaces(draw: st.DrawFn) -> Encoding:
    found: tuple[Dimension, ...] = ()
    for number in range(draw(st.integers(1, 6))):
        found = (*found, draw(knobs(f"made.knob{number}", found)))
    return Encoding(found, CONSTANTS)


@st.composite
def values_of(draw: st.DrawFn, encoding: Encoding) -> dict[str, Value]:
    """Return a recipe of a space, drawn as its knobs allow."""
    found: dict[str, Value] = {}
    for each in encoding.dimensions:
        if isinstance(each, Choice):
            found[each.name] = draw(st.sampled_from(each.values))
        elif each.step is not None:
            steps = math.floor((each.high - each.low) / each.step + 1e-6)
            found[each.name] = min(each.high, each.low + draw(st.integers(0, steps)) * each.step)
        else:
            found[each.name] = draw(st.floats(each.low, each.high))
    kept = existing((*FIXED, *encoding.dimensions), {**CONSTANTS, **found})
    return {name: value for name, value in kept.items() if name not in CONSTANTS}


def same(first: dict[str, Value], second: dict[str, Value]) -> bool:
    """Tell whether two recipes are the same, but for the last bits of numbers between the ends."""
    return list(first) == list(second) and all(
        first[name] == pytest.approx(second[name], rel=1e-9, abs=1e-12)
        if isinstance(first[name], float)
        else (first[name], type(first[name])) == (second[name], type(second[name]))
        for name in first
    )


@settings(max_examples=100)
@given(st.data())
def test_a_recipe_comes_back_from_its_numbers(data: st.DataObject) -> None:
    encoding = data.draw(spaces())
    values = data.draw(values_of(encoding))
    row = encoding.encode(values)
    assert row.shape == (len(encoding.dimensions),)
    assert ((row >= 0.0) & (row <= 1.0)).all()
    assert same(encoding.decode(row), values)
    features = encoding.features(values)
    assert np.isfinite(features).all()
    assert ((features >= 0.0) & (features <= 1.0)).all()
    assert features.shape == encoding.features({}).shape


@settings(max_examples=100)
@given(st.data())
def test_any_numbers_are_a_recipe_of_the_space(data: st.DataObject) -> None:
    encoding = data.draw(spaces())
    size = len(encoding.dimensions)
    row = np.array(data.draw(st.lists(st.floats(0.0, 1.0), min_size=size, max_size=size)))
    values = encoding.decode(row)
    for each in encoding.dimensions:
        assert each.name not in values or each.allows(values[each.name])
    there = existing((*FIXED, *encoding.dimensions), {**CONSTANTS, **values})
    assert {**CONSTANTS, **values} == there
    assert same(encoding.decode(encoding.encode(values)), values)


@settings(max_examples=60)
@given(st.data())
def test_a_value_is_the_one_that_the_sampler_has_to_the_bit(data: st.DataObject) -> None:
    """Else a recipe that was tried would look new."""
    encoding = data.draw(spaces())
    values = encoding.decode(np.array([data.draw(st.floats(0.0, 1.0)) for _ in encoding.dimensions]))
    for each in encoding.dimensions:
        if each.name in values and not (isinstance(each, Range) and each.step is None):
            assert from_sampled(each, to_sampled(each, values[each.name])) == values[each.name]


def test_the_baselines_values_need_not_be_searched() -> None:
    bits = Choice("quantization.bits.stem", (2, 4, 8), "none")
    encoding = Encoding((bits, Range("pruning.ratio.stem", 0.25, 0.75, neutral=0.0, step=0.25)), {})
    assert encoding.encode({}).tolist() == encoding.encode({"pruning.ratio.stem": 0.25}).tolist()


def test_levels_and_an_empty_matrix() -> None:
    kinds = (Choice("a", (1, 2, 3), 1), Range("b", 0.0, 1.0, 0.0), Range("c", 0.0, 0.75, 0.0, step=0.125))
    assert Encoding(kinds, {}).levels == [3, None, 7]
    assert stack([]).shape == (0, 0)
    assert stack([np.zeros(2), np.ones(2)]).tolist() == [[0.0, 0.0], [1.0, 1.0]]


def two_aims(rows: Floats) -> Floats:
    """Schaffer's problem over ten knobs: best where all but the first are a half, and the first between 0.3 and 0.7."""
    off = ((rows[:, 1:] - 0.5) ** 2).sum(axis=1)
    return np.stack([(rows[:, 0] - 0.3) ** 2 + off, (rows[:, 0] - 0.7) ** 2 + off], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_evolution_comes_near_to_a_known_front(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, values = evolve(np.zeros((0, 10)), two_aims, generator)
    assert ((rows >= 0.0) & (rows <= 1.0)).all()
    np.testing.assert_array_equal(two_aims(rows), values)
    at = np.clip(rows[:, 0], 0.3, 0.7)
    over = values - np.stack([(at - 0.3) ** 2, (at - 0.7) ** 2], axis=1)
    drawn = two_aims(np.random.default_rng(seed + 100).random((4000, 10)))
    # Of as many recipes drawn at random, the best are many times farther from it.
    assert np.median(over) < 0.02
    assert np.median(drawn) > 0.2
    nearest = [np.abs(values - [(x - 0.3) ** 2, (x - 0.7) ** 2]).max(axis=1).min() for x in np.linspace(0.3, 0.7, 9)]
    assert max(nearest) < 0.03


def test_evolution_keeps_what_it_begins_with_where_nothing_is_better() -> None:
    best = np.full((1, 10), 0.5)
    rows, values = evolve(best, lambda some: two_aims(some)[:, :1], np.random.default_rng(0))
    assert values.min() <= two_aims(best)[0, 0]
    again, _ = evolve(best, lambda some: two_aims(some)[:, :1], np.random.default_rng(0))
    np.testing.assert_array_equal(rows, again)


def test_evolution_bears_infinite_and_equal_aims() -> None:
    rows, values = evolve(
        np.zeros((2, 3)),
        lambda some: np.stack([np.full(len(some), np.inf), np.zeros(len(some))], 1),
        np.random.default_rng(0),
    )
    assert rows.shape == (len(values), 3)
