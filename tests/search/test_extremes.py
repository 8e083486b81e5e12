"""The ends of a space, and the way between them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from paretrim.search.encoding import Encoding
from paretrim.search.extremes import ladder, largest, smallest
from paretrim.search.guide import Guide, Habits
from paretrim.search.judge import Terms
from paretrim.search.space import Space
from paretrim.spaces.dimension import Condition, Range, Value
from paretrim.spaces.technique import Technique, TechniqueOptions

from .helper_recipes import OBJECTIVES, SPACE, anchors, profile


class Removing(Technique):
    """Stands for pruning, by which parts of the model are removed."""

    name: ClassVar[str] = "pruning"
    stage: ClassVar[int] = 10


BOTH = Space((Removing(TechniqueOptions()), *SPACE.techniques), SPACE.anatomy, SPACE.dimensions)
ENCODING = Encoding(BOTH.searched, BOTH.constants)
RATIOS = [each.name for each in BOTH.searched if each.name.startswith("pruning.")]
BITS = [each.name for each in BOTH.searched if each.name.startswith("quantization.bits.")]


def values_of(values: dict[str, Value], names: list[str]) -> set[Value]:
    return {values[name] for name in names}


def test_the_smallest_saves_all_that_can_be_saved_and_the_largest_nothing() -> None:
    small, large = dict(smallest(BOTH, profile(), 3).values), dict(largest(BOTH, 3).values)
    assert values_of(small, RATIOS) == {0.75}
    assert values_of(small, BITS) == {4}
    assert values_of(large, RATIOS) == {0.0}
    assert values_of(large, BITS) == {"none"}


def test_a_ladder_goes_from_nothing_to_the_strongest() -> None:
    nothing, half, strongest = ladder(BOTH, ENCODING, profile(), (0.0, 0.5, 1.0))
    assert (values_of(nothing, RATIOS), values_of(nothing, BITS)) == ({0.0}, {"none"})
    assert (values_of(half, RATIOS), values_of(half, BITS)) == ({0.375}, {8})
    assert (values_of(strongest, RATIOS), values_of(strongest, BITS)) == ({0.75}, {4})


def test_a_ladder_leaves_alone_what_only_trains_or_only_shrinks_the_file() -> None:
    (bold,) = ladder(SPACE, Encoding(SPACE.searched, SPACE.constants), profile(), (1.0,))
    assert values_of(bold, RATIOS) == {0.0}  # no technique of this space removes parts
    assert values_of(bold, BITS) == {4}
    assert bold["recovery.learning_rate"] == pytest.approx(0.017)


def test_a_guide_begins_with_the_strongest_and_half_of_it() -> None:
    guide = Guide(BOTH, Terms("accuracy", OBJECTIVES, ()), profile(), Habits(3, 1, share=False))
    first, second, third = (guide.propose(anchors(), [], lambda _: False) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert values_of(first, RATIOS) == {0.75}
    assert values_of(second, RATIOS) == {0.375}
    assert third not in (first, second)
    usual = [values["recovery.learning_rate"] for values in (first, second, third)]
    assert usual == pytest.approx([0.017] * 3)


def test_what_of_the_ladder_was_tried_is_not_tried_again() -> None:
    guide = Guide(BOTH, Terms("accuracy", OBJECTIVES, ()), profile(), Habits(3, 1, share=False))
    tried = BOTH.recipe(ladder(BOTH, ENCODING, profile(), (1.0,))[0], 0).items
    first = guide.propose(anchors(), [], lambda recipe: recipe.items == tried)
    assert first is not None
    assert values_of(first, RATIOS) == {0.375}


def test_the_first_recipes_have_a_teacher_by_turns() -> None:
    taught = Range("distillation.weight", 0.0, 1.0, 0.0)
    warmth = Range("distillation.temperature", 1.0, 9.0, 1.0, log=True, when=(Condition("distillation.weight"),))
    space = replace(BOTH, dimensions=(*BOTH.dimensions, taught, warmth))
    guide = Guide(space, Terms("accuracy", OBJECTIVES, ()), profile(), Habits(4, 1, share=False))
    proposed = [guide.propose(anchors(), [], lambda _: False) or {} for _ in range(4)]
    assert [values["distillation.weight"] for values in proposed] == [0.5, 0.0, 0.5, 0.0]
    assert [values.get("distillation.temperature") for values in proposed] == [pytest.approx(3.0), None] * 2
    under_way = [space.recipe(proposed[0], 0)]
    after = Guide(space, Terms("accuracy", OBJECTIVES, ()), profile(), Habits(4, 1, share=False))
    assert (after.propose(anchors(), under_way, lambda _: False) or {})["distillation.weight"] == 0.0
