"""Which layers share their knobs: each group for itself, those of a block, or all."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.spaces.anatomy import Anatomy, Granularity, dissect
from paretrim.spaces.dimension import Range
from paretrim.spaces.lowrank import LowRank, LowRankOptions
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.sparsity import Sparsity, SparsityOptions
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import small_schooling


class Narrowing(nn.Module):
    """Three layers in a row, of which no other module reads the inner ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, 16, 3, padding=1)
        self.inner = nn.ModuleList([nn.Conv2d(16, 24, 3, padding=1)])
        self.up = nn.Conv2d(24, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.down(x))
        return functional.relu(self.up(functional.relu(self.inner[0](x))))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Narrowing(16, 32), Narrowing(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(functional.relu(self.stem(x))).mean(dim=(2, 3)))  # type: ignore[no-any-return]


@cache
def anatomy(granularity: Granularity) -> Anatomy:
    torch.manual_seed(0)
    return dissect(Blocks().eval(), torch.zeros(2, 3, 8, 8), granularity=granularity)


def cuts(granularity: Granularity) -> dict[str, list[str]]:
    return {name: [group.name for group in groups] for name, groups in anatomy(granularity).cut_groups()}


def bits(granularity: Granularity) -> dict[str, list[str]]:
    return {name: [layer.name for layer in layers] for name, layers in anatomy(granularity).layer_groups()}


FIRST = [f"blocks.0.{name}" for name in ("down", "inner.0", "up")]
SECOND = [f"blocks.1.{name}" for name in ("down", "inner.0", "up")]


def test_by_layer_each_group_has_a_knob_of_its_own() -> None:
    names = ["stem", *FIRST, *SECOND]
    assert cuts("per-layer") == {name: [name] for name in names}
    assert bits("per-layer") == {name: [name] for name in [*names, "head"]}


def test_by_block_the_layers_of_a_block_share_one() -> None:
    assert cuts("per-block") == {"stem": ["stem"], "blocks.0": FIRST, "blocks.1": SECOND}
    assert bits("per-block") == {"stem": ["stem"], "blocks.0": FIRST, "blocks.1": SECOND, "head": ["head"]}


def test_a_numbered_part_of_one_layer_is_no_block() -> None:
    # inner.0 holds one layer only: the block around it counts.
    assert anatomy("per-block").knob("blocks.0.inner.0") == "blocks.0"
    flat = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Flatten(), nn.Linear(64, 3)).eval()
    found = dissect(flat, torch.zeros(2, 3, 2, 2), granularity="per-block")
    assert [name for name, _ in found.layer_groups()] == ["0", "1", "3"]


def test_globally_all_share_one_and_the_ends_keep_bits_of_their_own() -> None:
    assert cuts("global") == {"all": ["stem", *FIRST, *SECOND]}
    assert bits("global") == {"stem": ["stem"], "all": [*FIRST, *SECOND], "head": ["head"]}


@pytest.mark.parametrize("granularity", ["per-layer", "per-block", "global"])
def test_each_layer_has_bits_once(granularity: Granularity) -> None:
    found = [layer for layers in bits(granularity).values() for layer in layers]
    assert found == ["stem", *FIRST, *SECOND, "head"]


def test_heads_of_a_block_share_a_knob_too() -> None:
    layers = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False
    )
    net = nn.Sequential(layers, nn.Flatten(), nn.Linear(48, 3)).eval()
    named = {
        each: [name for name, _ in dissect(net, torch.zeros(2, 3, 16), granularity=each).head_groups()]
        for each in ("per-layer", "per-block", "global")
    }
    assert [len(names) for names in named.values()] == [2, 2, 1]
    assert named["per-block"] == ["0.layers.0", "0.layers.1"]
    assert named["global"] == ["all"]


@pytest.mark.parametrize(
    ("technique", "alone"),
    [
        (StructuredPruning(PruningOptions()), ["stem"]),
        (WeightQuantization(QuantizationOptions()), ["stem", "head"]),
        (LowRank(LowRankOptions()), ["stem"]),  # the head is too small
        (Sparsity(SparsityOptions()), ["stem", "head"]),
    ],
    ids=lambda given: given.name if isinstance(given, Technique) else "",
)
def test_every_technique_has_its_knobs_at_the_jobs_granularity(technique: Technique, alone: list[str]) -> None:
    def places(granularity: Granularity) -> set[str]:
        return {each.name.split(".", 2)[2] for each in technique.dimensions(anatomy(granularity)) if not each.when}

    assert places("per-layer") == {*alone, *FIRST, *SECOND}
    assert places("per-block") == {*alone, "blocks.0", "blocks.1"}
    shared = [] if isinstance(technique, StructuredPruning) else alone  # the stem is cut as all the others are
    assert places("global") == {*shared, "all"}


def test_a_shared_ratio_cuts_every_layer_of_its_block_and_no_other() -> None:
    technique = StructuredPruning(PruningOptions(round_to=1))
    found = anatomy("per-block")
    assert all(isinstance(each, Range) for each in technique.dimensions(found)[:3])
    net = Blocks().eval()
    technique.reshape(net, Recipe.of({"pruning.ratio.blocks.0": 0.5}), found, small_schooling())
    sizes = {name: module.out_channels for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert [sizes[name] for name in FIRST] == [8, 12, 16]
    assert [sizes[name] for name in ("stem", *SECOND)] == [16, 16, 24, 16]


def test_shared_bits_are_those_of_every_layer_of_the_block() -> None:
    technique = WeightQuantization(QuantizationOptions())
    found, net = anatomy("per-block"), Blocks().eval()
    recipe = Recipe.of({"quantization.bits.blocks.1": 4})
    technique.attach(net, recipe, found, small_schooling())
    technique.bake(net, recipe, found)
    assert {name: each.bits for name, each in technique.storage(net, recipe, found).items()} == dict.fromkeys(SECOND, 4)
