"""Shortcuts without parameters: seen through, and cut with the rest of a residual network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.rewriting import rewrite, selection
from paretrim.spaces.testing import small_schooling

INPUTS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Lambda(nn.Module):
    """A function of the user's as a module."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential() if stride == 1 else Lambda(planes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class ResNet20(nn.Module):
    """The network for CIFAR of He et al., 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages = []
        before = 16
        for planes in (16, 32, 64):
            blocks = [
                BasicBlock(before if i == 0 else planes, planes, 2 if i == 0 and planes > 16 else 1) for i in range(3)
            ]
            stages.append(nn.Sequential(*blocks))
            before = planes
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def anatomy(net: nn.Module) -> Anatomy:
    return dissect(net, INPUTS)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    made = ResNet20().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return made


def test_half_of_all_channels_are_cut_everywhere(net: nn.Module, anatomy: Anatomy) -> None:
    technique = StructuredPruning(PruningOptions())
    recipe = Recipe.of({each.name: 0.5 for each in technique.dimensions(anatomy)})
    assert anatomy.left_out == (("linear", "gives the model's output"),)
    twin = copy.deepcopy(net)
    technique.reshape(twin, recipe, anatomy, small_schooling())
    for layer in anatomy.layers[:-1]:
        before = net.get_parameter(f"{layer.name}.weight")
        assert len(twin.get_parameter(f"{layer.name}.weight")) == len(before) // 2
    assert twin.train()(INPUTS).shape == (2, 10)
    assert sum(p.numel() for p in twin.parameters() if p.requires_grad) < 70_000
    assert not any(p.requires_grad for p in twin.get_submodule("layer2.0.shortcut").parameters())


def test_the_shortcut_is_cut_with_the_channels_that_it_joins(net: nn.Module, anatomy: Anatomy) -> None:
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name in ("layer3.1.conv1", "layer3.2.conv1", "linear"):
            twin.get_parameter(f"{name}.weight")[:, ::2] = 0.0
    stream = next(group.name for group in anatomy.groups if "layer3.0.conv2" in group.layers)
    before = twin(INPUTS)
    StructuredPruning(PruningOptions()).reshape(
        twin, Recipe.of({f"pruning.ratio.{stream}": 0.5}), anatomy, small_schooling()
    )
    # Nothing reads the even channels of the last stage, so that those go, and the outputs stay.
    assert len(twin.get_parameter("layer3.0.shortcut.weight")) == 32
    torch.testing.assert_close(twin(INPUTS), before)


def test_a_model_from_which_nothing_is_cut_stays_as_it_was(net: nn.Module, anatomy: Anatomy) -> None:
    twin = copy.deepcopy(net)
    StructuredPruning(PruningOptions()).reshape(twin, Recipe.of({}), anatomy, small_schooling())
    assert isinstance(twin.get_submodule("layer2.0.shortcut"), Lambda)


def test_a_rewritten_model_answers_as_before(net: nn.Module) -> None:
    twin = copy.deepcopy(net)
    rewrite(twin, Inputs.of(INPUTS))
    assert isinstance(twin.get_submodule("layer3.0.shortcut"), nn.Conv2d)
    torch.testing.assert_close(twin(INPUTS), net(INPUTS))


class Mean(nn.Module):
    """Pools before it adds channels, which is no selection."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(functional.avg_pool2d(x, 2), (0, 0, 0, 0, 0, 4))


@pytest.mark.parametrize("module", [Mean(), nn.PixelShuffle(2), nn.Flatten()])
def test_other_functions_are_not_replaced(module: nn.Module) -> None:
    inputs = torch.randn(2, 8, 4, 4)
    assert selection(module, [(inputs, module(inputs))]) is None


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 8, 5, 7), (1, 8, 4, 6, 5)])
def test_any_stride_and_number_of_dimensions_is_found(shape: tuple[int, ...]) -> None:
    class Sparse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x[:, 1:6, ::3]
            return torch.cat([x, torch.zeros_like(x), x[:, :2]], dim=1)

    inputs = torch.randn(shape)
    found = selection(Sparse(), [(inputs, Sparse()(inputs))])
    assert found is not None
    torch.testing.assert_close(found(inputs), Sparse()(inputs))
