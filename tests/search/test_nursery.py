"""What a parent is: which recipes have one in common, and what passes for it in a nursery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paretrim.search.cache import Cache
from paretrim.search.parents import Nursery, phases
from paretrim.spaces.dimension import Value
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import Recovery, RecoveryOptions
from paretrim.tracking.records import Epoch

TECHNIQUES = (WeightQuantization(QuantizationOptions()), Recovery(RecoveryOptions()))


def values_of(epochs: int, bits: Sequence[Value], ratio: float) -> dict[str, Value]:
    names = ("stem", "inner", "head")
    widths = {f"quantization.bits.{name}": each for name, each in zip(names, bits, strict=True)}
    return {**widths, "quantization.family": "uniform", "pruning.ratio.stem": ratio, "recovery.epochs": epochs}


@pytest.mark.parametrize("change", ["subject", "threads", "costs", "ratio", "shape"])
def test_nothing_else_passes_for_a_parent(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery = Nursery(Cache(tmp_path), "mine")
    found = phases(Recipe.of(values_of(4, [4, 4, 8], 0.5)), TECHNIQUES, 0)
    assert found is not None
    net, course = nn.Linear(3, 2), (Epoch(0.5, 0.75, 0.25),)
    nursery.where({"stem": 1.0}).keep(found.parent, net, course)
    other = nn.Linear(3, 2)
    assert nursery.where({"stem": 1.0}).find(found.parent, other) == (replace(course[0], inherited=True),)
    assert torch.equal(other.weight, net.weight)
    costs, parent = {"stem": 1.0}, found.parent
    if change == "subject":
        nursery = replace(nursery, subject="another")
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    if change == "costs":
        costs = {"stem": 2.0}
    if change == "ratio":
        parent = Recipe.of({**parent.values, "pruning.ratio.stem": 0.25}, parent.seed)
    if change == "shape":
        other = nn.Linear(4, 2)
    assert nursery.where(costs).find(parent, other) is None


BITS = st.lists(st.sampled_from([2, 4, 8, "none"]), min_size=3, max_size=3)


@settings(deadline=None)
@given(st.integers(0, 20), BITS, BITS, st.sampled_from([0.0, 0.5]), st.integers(0, 9), st.integers(0, 9))
def test_recipes_that_differ_only_in_bits_and_seed_have_one_parent(
    epochs: int, mine: list[Value], theirs: list[Value], ratio: float, seed: int, other: int
) -> None:
    first = phases(Recipe.of(values_of(epochs, mine, ratio), seed), TECHNIQUES, 3)
    second = phases(Recipe.of(values_of(epochs, theirs, ratio), other), TECHNIQUES, 3)
    if epochs < 2:
        assert first is second is None
        return
    assert first is not None
    assert second is not None
    assert first.parent == second.parent
    assert not any(name.startswith("quantization.") for name in first.parent.values)
    assert first.parent.number("recovery.epochs") + first.branch.number("recovery.epochs") == epochs
    assert first.branch == Recipe.of({**values_of(epochs, mine, ratio), "recovery.epochs": epochs - epochs // 2}, seed)
    for changed in (values_of(epochs + 2, mine, ratio), values_of(epochs, mine, 0.25)):
        another = phases(Recipe.of(changed, seed), TECHNIQUES, 3)
        assert another is not None
        assert another.parent != first.parent
    elsewhere = phases(Recipe.of(values_of(epochs, mine, ratio), seed), TECHNIQUES, 4)
    assert elsewhere is not None
    assert elsewhere.parent.seed != first.parent.seed


def test_nothing_is_shared_where_nothing_branches_or_training_may_end_early() -> None:
    values = values_of(4, [4, 4, 8], 0.5)
    assert phases(Recipe.of(values), TECHNIQUES[1:], 0) is None
    assert phases(Recipe.of({**values, "recovery.early_stop": 2}), TECHNIQUES, 0) is None
