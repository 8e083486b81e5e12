"""Whole blocks: which ones can go, and that the least influential do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.blocks import Block, Passed, find_blocks
from paretrim.spaces.depth import Depth, DepthOptions, influences
from paretrim.spaces.dimension import Choice
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallBatch, TechniqueContract, small_schooling


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Depth(DepthOptions())


class Residual(nn.Module):
    """Two layers beside the way around them."""

    def __init__(self, scale: float, width: int = 16) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 32), nn.Linear(32, width)
        with torch.no_grad():
            self.fc2.weight.mul_(scale)
            self.fc2.bias.mul_(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(functional.relu(self.fc1(x)))  # type: ignore[no-any-return]


class Net(nn.Module):
    """A stem, blocks of which some hardly matter, one that narrows, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.ModuleList([Residual(s) for s in (3.0, 0.01, 2.0, 0.1)])
        self.narrow1 = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.narrow1(x))  # type: ignore[no-any-return]


def schooling(*shape: int) -> Schooling:
    inputs = torch.randn(64, *shape, generator=torch.Generator().manual_seed(1))

    def batches(size: int, seed: int) -> Iterator[SmallBatch]:
        for index in torch.randperm(64, generator=torch.Generator().manual_seed(seed)).split(size):
            yield SmallBatch(Inputs.of(inputs[index]), torch.zeros(len(index), dtype=torch.int64), index)

    return Schooling(batches, 64, None, small_schooling().loss, nullcontext)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(Net().eval(), torch.randn(2, 8))


def shortened(count: int, anatomy: Anatomy) -> nn.Module:
    net = Net().eval()
    Depth(DepthOptions()).reshape(net, Recipe.of({"depth.blocks": count}), anatomy, schooling(8))
    return net


def test_blocks_that_can_go_are_found_and_others_have_a_reason(anatomy: Anatomy) -> None:
    assert [block.name for block in anatomy.blocks] == [f"blocks.{i}" for i in range(4)]
    assert Depth(DepthOptions()).left_out(anatomy) == {"narrow1": "gives another shape than it gets"}


def test_up_to_half_of_them_go(anatomy: Anatomy) -> None:
    assert Depth(DepthOptions()).dimensions(anatomy) == (Choice("depth.blocks", (0, 1, 2), neutral=0),)
    assert Depth(DepthOptions(most=1.0)).dimensions(anatomy)[0].allows(4)


def test_the_least_influential_go_first(anatomy: Anatomy) -> None:
    for count, gone in ((1, ["blocks.1"]), (2, ["blocks.1", "blocks.3"])):
        net = shortened(count, anatomy)
        assert [name for name, module in net.named_modules() if isinstance(module, Passed)] == gone


def test_influence_is_the_change_of_the_outputs(anatomy: Anatomy) -> None:
    net, learned = Net().eval(), schooling(8)
    moved = influences(net, anatomy.blocks, learned, batches=2)
    inputs = torch.cat([batch.inputs.only for batch in learned.batches(32, 0)])
    without = copy.deepcopy(net)
    without.blocks[2] = nn.Identity()
    expected = (without(inputs) - net(inputs)).square().mean() / net(inputs).var()
    assert moved[2] == pytest.approx(expected.item(), rel=1e-4)


def test_pruning_and_quantization_go_on_without_the_blocks(anatomy: Anatomy) -> None:
    net = shortened(2, anatomy)
    pruning = StructuredPruning(PruningOptions())
    recipe = Recipe.of({each.name: 0.5 for each in pruning.dimensions(anatomy)})
    pruning.reshape(net, recipe, anatomy, schooling(8))
    assert net.get_parameter("blocks.0.fc1.weight").shape == (16, 8)
    quantization = WeightQuantization(QuantizationOptions())
    stored = quantization.storage(
        net, Recipe.of({f"quantization.bits.{layer.name}": 8 for layer in anatomy.layers}), anatomy
    )
    assert not [name for name in stored if name.startswith(("blocks.1", "blocks.3"))]
    assert net(torch.zeros(2, 8)).shape == (2, 3)


class Stream(nn.Module):
    """A block that is part of the stream between two others whose channels join when it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Linear(8, 16), nn.ReLU()),
            nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
            Residual(1.0),
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def test_groups_that_join_where_a_block_was_are_cut_once() -> None:
    net = Stream().eval()
    found = dissect(net, torch.randn(2, 8))
    assert [block.name for block in found.blocks] == ["features.1", "features.2"]
    with torch.no_grad():
        net.get_parameter("features.1.0.weight").copy_(torch.eye(16))
        net.get_parameter("features.1.0.bias").zero_()
    Depth(DepthOptions()).reshape(net, Recipe.of({"depth.blocks": 1}), found, schooling(8))
    assert isinstance(net.features[1], Passed)
    pruning = StructuredPruning(PruningOptions())
    pruning.reshape(net, Recipe.of({each.name: 0.5 for each in pruning.dimensions(found)}), found, schooling(8))
    assert net.get_parameter("features.0.0.weight").shape == (8, 8)
    assert net.get_parameter("head.weight").shape == (3, 8)


class TupleBlock(nn.Module):
    """A layer that gives a tuple, as those of some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, None]:
        return x + self.dense(x), None


class TupleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.layer = nn.ModuleList(TupleBlock() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.layer:
            x = block(x, None)[0]
        return self.head(x)  # type: ignore[no-any-return]


def test_blocks_that_give_tuples_can_go() -> None:
    net = TupleNet().eval()
    found, reasons = find_blocks(
        net, Inputs.of(torch.randn(2, 8)), ["stem", *(f"layer.{i}.dense" for i in range(3)), "head"]
    )
    assert found == tuple(Block(f"layer.{i}", 2) for i in range(3))
    assert not reasons


def test_stages_are_taken_apart_into_blocks_and_ends_stay() -> None:
    stages = [nn.Sequential(Residual(1.0), Residual(1.0)) for _ in range(2)]
    net = nn.Sequential(nn.Sequential(nn.Linear(8, 16)), *stages, nn.Sequential(nn.Linear(16, 3))).eval()
    found = dissect(net, torch.randn(2, 8))
    assert [block.name for block in found.blocks] == ["1.0", "1.1", "2.0", "2.1"]
    assert dict(found.fixed_blocks) == dict.fromkeys(("0", "3"), "holds the model's first or last layer")


def test_layers_of_a_transformer_can_go_but_the_first() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    net = nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 3), nn.Linear(16, 3)).eval()
    found = dissect(net, torch.randn(4, 5, 8))
    assert [block.name for block in found.blocks] == ["1.layers.1", "1.layers.2"]
    reasons = Depth(DepthOptions()).left_out(found)
    assert "does not run without it" in reasons["1.layers.0"]
