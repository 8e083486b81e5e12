"""Grids of which each 32 weights in a row have a step of their own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.storage import BLOCK, Storage
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Choice, Value
from paretrim.spaces.gridding import put_on_grids, reconstruct, record_of, settle
from paretrim.spaces.made_grids import in_rows, make, settled
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.quantization_options import EQUAL_STEPS
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling
from paretrim.spaces.weight_grids import Family, Form

ABLE = Abilities(integers=GRIDS, weight_only=(4, 8), signs=True)
FAMILIES: tuple[Family, ...] = ("uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise")
ROWS, COLUMNS = 6, 80  # the last block of a row is half a block


class Tokens(nn.Module):
    """A table, two layers over tokens and a convolution: ids ``(N, 4)`` to scores ``(N, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 96)
        self.wide = nn.Linear(96, 24)
        self.conv = nn.Conv1d(24, 40, 2)
        self.narrow = nn.Linear(40, 32)
        self.head = nn.Linear(32, 5)
        nn.init.normal_(self.wide.weight)  # as trained weights are, more than evenly spread ones

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(self.wide(self.table(ids)))
        seen = torch.relu(self.conv(rows.transpose(1, 2))).mean(dim=2)
        return self.head(torch.relu(self.narrow(seen)))  # type: ignore[no-any-return]


def tokens() -> tuple[Tokens, Anatomy]:
    torch.manual_seed(0)
    net = Tokens().eval()
    return net, dissect(net, torch.zeros(2, 4, dtype=torch.long), ABLE)


def matrix() -> torch.Tensor:
    """Return weights whose blocks are of very different sizes."""
    weight = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(3))
    return weight * torch.tensor([10.0, 1.0, 0.1]).repeat_interleave(BLOCK)[:COLUMNS]


def blocks_of(weight: torch.Tensor) -> list[torch.Tensor]:
    return [weight[:, start:stop] for start, stop in pairwise([0, 32, 64, 80])]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_block_is_on_a_grid_of_its_own(family: Family) -> None:
    grid = make(family, Form(4, "block"), matrix(), seed=0).eval()
    found = grid(matrix())
    assert grid.record.kind == "block"
    assert grid.record.steps is not None
    assert grid.record.steps.shape == (ROWS * 3,)
    codes = found / grid.record.of_each(grid.record.steps, found.shape)
    assert torch.allclose(codes, codes.round(), atol=1e-3)
    for part, given in zip(blocks_of(found), blocks_of(matrix()), strict=True):
        assert (part - given).abs().max() < 0.3 * given.abs().max()


def test_uniform_steps_are_those_of_the_blocks_peaks() -> None:
    grid = make("uniform", Form(4, "block"), matrix(), seed=0)
    grid(matrix())
    assert grid.record.steps is not None
    peaks = torch.stack([part.abs().amax(dim=1) for part in blocks_of(matrix())], dim=1)
    torch.testing.assert_close(grid.record.steps.view(ROWS, 3), peaks / 7)


def test_gradients_reach_all_weights() -> None:
    latent = matrix().requires_grad_(True)
    make("uniform", Form(4, "block"), matrix(), seed=0)(latent).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, torch.ones(ROWS, COLUMNS))


def test_what_is_settled_stays_where_it_is() -> None:
    grid = make("lsq", Form(3, "block"), matrix(), seed=0).eval()
    found = grid(matrix()).detach()
    assert grid.record.steps is not None
    again = settled(Form(3, "block"), grid.record.steps.detach())
    torch.testing.assert_close(again(found), found)


def test_rows_of_blocks_hold_all_weights_and_zeros_beyond() -> None:
    rows = in_rows(matrix())
    assert rows.shape == (ROWS * 3, BLOCK)
    assert torch.equal(rows.view(ROWS, -1)[:, :COLUMNS], matrix())
    assert not rows.view(ROWS, -1)[:, COLUMNS:].any()


class TestInAModel:
    def stored(self, training: str = "post", **settings: Value) -> tuple[Tokens, dict[str, Storage]]:
        net, anatomy = tokens()
        technique = WeightQuantization(QuantizationOptions())
        bits = {f"quantization.bits.{name}": 4 for name in ("table", "wide", "conv", "narrow", "head")}
        chosen: dict[str, Value] = {"granularity": "block", "training": training, **settings}
        recipe = Recipe.of(bits | {f"quantization.{name}": value for name, value in chosen.items()})
        schooling = small_schooling()
        technique.attach(net, recipe, anatomy, schooling)
        technique.bake(net, recipe, anatomy)
        return net, dict(technique.storage(net, recipe, anatomy))

    def test_matrices_of_floats_have_blocks(self) -> None:
        _, found = self.stored(activations="none")
        assert {name: each.in_blocks for name, each in found.items()} == {
            "table.weight": True,
            "wide": True,
            "conv": False,  # no matrix
            "narrow": True,
            "head": False,  # one block would be the row
        }
        assert not any(each.integers for each in found.values())
        steps = found["narrow"].steps
        assert steps is not None
        assert len(steps) == 32 * 2

    def test_layers_of_integers_keep_a_step_for_each_channel(self) -> None:
        _, found = self.stored()
        assert [name for name, each in found.items() if each.in_blocks] == ["table.weight"]
        assert all(each.integers for name, each in found.items() if name != "table.weight")

    def test_weights_of_blocks_lie_nearer(self) -> None:
        plain, _ = tokens()
        gaps = {}
        for granularity in ("channel", "block"):
            net, _ = self.stored(activations="none", granularity=granularity)
            gaps[granularity] = float((net.wide.weight - plain.wide.weight).square().mean())
        assert gaps["block"] < 0.8 * gaps["channel"]


@pytest.mark.parametrize("family", EQUAL_STEPS)
def test_blocks_are_rounded_layer_by_layer_too(family: Family) -> None:
    plain, _ = tokens()
    ids = torch.randint(0, 50, (256, 4), generator=torch.Generator().manual_seed(5))
    forms = {f"{name}.weight": Form(3, "block") for name in ("wide", "narrow")}

    def moved(net: Tokens) -> float:
        settle(net)
        record = record_of(net, "wide.weight")
        assert record is not None
        assert record.steps is not None
        codes = net.wide.weight / record.of_each(record.steps, net.wide.weight.shape)
        assert torch.allclose(codes, codes.round(), atol=1e-3)
        return float((net(ids) - plain(ids)).square().mean().detach())

    nearest, least = tokens()[0], tokens()[0]
    put_on_grids(nearest, forms, family, seed=0)
    assert reconstruct(least, forms, family, [Inputs.of(ids)]) == set(forms)
    assert moved(least) < 0.8 * moved(nearest)


class TestKnob:
    def values(self, **options: object) -> tuple[Value, ...]:
        technique = WeightQuantization(QuantizationOptions.model_validate(options))
        knobs = {each.name: each for each in technique.dimensions(self.anatomy())}
        knob = knobs.get("quantization.granularity")
        return knob.values if isinstance(knob, Choice) else ()

    def anatomy(self) -> Anatomy:
        net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
        return dissect(net, torch.zeros(2, 64), ABLE)

    def test_it_is_there_where_something_heeds_it(self) -> None:
        assert self.values(granularity=["channel", "block"], activations="none") == ("channel", "block")
        assert self.values(granularity="block", activations=["target", "none"]) == ("block",)

    def test_where_nothing_does_that_is_told(self) -> None:
        assert self.values(granularity=["channel", "block"]) == ()
        technique = WeightQuantization(QuantizationOptions(granularity=("block",)))
        assert technique.left_out(self.anatomy()).keys() == {"granularity: block"}
        able = WeightQuantization(QuantizationOptions(granularity=("block",), activations=("none",)))
        assert not able.left_out(self.anatomy())
