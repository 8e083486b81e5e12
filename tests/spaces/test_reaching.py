"""Modules that run and have no say in the output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.reaching import unused
from paretrim.spaces.recipe import Recipe


class Pooled(nn.Module):
    """Like an encoder of a library that pools what its user does not take; and a part that runs without gradients."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.first, self.pooler, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.looked = nn.Linear(8, 8)
        self.raises = raises

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            seen = self.looked(x)
        hidden = torch.relu(self.first(x)) + seen
        torch.tanh(self.pooler(hidden))
        out: torch.Tensor = self.last(hidden)
        return out


NAMES = ("first", "looked", "pooler", "last")


@pytest.mark.parametrize("frozen", [False, True])
def test_only_what_changes_nothing_is_unused(frozen: bool) -> None:
    model = Pooled().eval().requires_grad_(not frozen)
    assert unused(model, Inputs.of(torch.randn(3, 8)), NAMES) == {"pooler"}
    assert all(each.requires_grad is not frozen for each in model.parameters())


def test_a_model_without_gradients_is_tried_part_by_part() -> None:
    class Closed(Pooled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return super().forward(x)

    assert unused(Closed().eval(), Inputs.of(torch.randn(3, 8)), NAMES) == {"pooler"}


def test_techniques_do_not_see_it() -> None:
    model = Pooled().eval()
    anatomy = dissect(model, torch.randn(3, 8))
    assert [layer.name for layer in anatomy.layers] == ["looked", "first", "last"]
    assert ("pooler", "does not reach the model's output") in anatomy.left_out
    technique = WeightQuantization(QuantizationOptions())
    recipe = Recipe.of({dimension.name: 8 for dimension in technique.dimensions(anatomy)})
    assert sorted(technique.storage(model, recipe, anatomy)) == ["first", "last", "looked"]
