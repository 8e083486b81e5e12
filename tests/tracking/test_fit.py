"""The script with which a bundle's weights go into a user's network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.surgery import cut, dependency_graph
from paretrim.spaces.testing import small_batch, small_net
from paretrim.tracking.fit import SCALE, fit, widened


class Wide(nn.Module):
    """Normalizations of all kinds, and channels that are read apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.apart = nn.Conv2d(16, 16, 3, groups=16, padding=1)
        self.norm = nn.GroupNorm(1, 16)
        self.last = nn.Conv2d(16, 8, 1)
        self.batch = nn.BatchNorm2d(8)
        self.inner = nn.Linear(8, 12)
        self.layer = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.batch(self.last(torch.relu(self.norm(self.apart(self.first(x))))))
        found: torch.Tensor = self.head(torch.relu(self.layer(self.inner(x.mean(dim=(2, 3))))))
        return found


@pytest.mark.parametrize("layer", ["first", "last", "inner"])
def test_a_network_with_narrower_weights_answers_as_the_one_that_was_cut(layer: str) -> None:
    torch.manual_seed(0)
    whole, x = Wide().eval(), torch.randn(5, 3, 8, 8)
    narrow = copy.deepcopy(whole)
    cut(dependency_graph(narrow, Inputs.of(x)), narrow.get_submodule(layer), range(0, 8, 2))
    again = fit(copy.deepcopy(whole), narrow.state_dict())
    assert torch.allclose(again(x), narrow.eval()(x), atol=1e-6)
    assert not torch.allclose(again(x), whole(x), atol=1e-2)
    told = {name: str(module) for name, module in again.named_modules() if not list(module.children())}
    assert told == {name: str(module) for name, module in narrow.named_modules() if not list(module.children())}


def test_codes_and_half_floats_are_widened() -> None:
    held = {
        "a.weight": torch.tensor([[1, -2], [3, 4]], dtype=torch.int8),
        f"a.weight{SCALE}": torch.tensor([[0.5], [2.0]]),
        "b.weight": torch.tensor([1.5], dtype=torch.float16),
        "count": torch.tensor(3),
    }
    found = widened(held)
    assert found["a.weight"].tolist() == [[0.5, -1.0], [6.0, 8.0]]
    assert (found["b.weight"].dtype, found["count"].dtype) == (torch.float32, torch.int64)
    assert set(found) == {"a.weight", "b.weight", "count"}


def test_weights_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="the weights are of another network: extra is only in one of the two"):
        fit(small_net(), {**small_net().state_dict(), "extra": torch.ones(1)})


def test_its_own_weights_leave_a_network_as_it_is() -> None:
    x = small_batch()[0]
    assert torch.equal(fit(small_net(), small_net().state_dict())(x), small_net()(x))
