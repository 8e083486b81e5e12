"""Layers whose halves gate one another are cut in both halves at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.models import from_pt2
from paretrim.spaces.anatomy import Anatomy, Group, dissect
from paretrim.spaces.cutting import Cutter
from paretrim.spaces.importance import IMPORTANCES

SHAPE = (12, 8)


class Gated(nn.Module):
    """A feed-forward part whose first layer gives values and gates, with a shortcut around it."""

    def __init__(self, gate: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.up = nn.Linear(12, 32)
        self.down = nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        return self.head((y + self.down(self.gate(self.up(y)))).mean(dim=1))  # type: ignore[no-any-return]


class Convolved(nn.Module):
    """A Conformer's part over time: a gated convolution, a depthwise one, normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(12, 10, 1)
        self.up = nn.Conv1d(10, 32, 1)
        self.gate = nn.GLU(dim=1)
        self.depthwise = nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.norm = nn.BatchNorm1d(16)
        self.down = nn.Conv1d(16, 10, 1)
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        inner = self.norm(self.depthwise(self.gate(self.up(y))))
        return self.head((y + self.down(functional.silu(inner))).mean(dim=2))  # type: ignore[no-any-return]


def swish_gate(both: torch.Tensor) -> torch.Tensor:
    gate, given = both.chunk(2, dim=-1)
    return functional.silu(gate) * given


NETS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: Gated(functional.glu),
    "swish": lambda: Gated(swish_gate),
    "conv": Convolved,
}


def a_net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[kind]().eval()


def dissected(net: nn.Module) -> tuple[Anatomy, Group]:
    """Return the anatomy, and its group of gated channels."""
    anatomy = dissect(net, torch.randn(2, *SHAPE))
    (group,) = [each for each in anatomy.groups if "up" in each.layers]
    return anatomy, group


def cut(net: nn.Module, anatomy: Anatomy, importance: str, count: int) -> nn.Module:
    """Cut so many gated channels, and nothing else."""
    cutter = Cutter(net, anatomy, importance, 0)
    cutter.cut({part.group.name: count if "up" in part.group.layers else 0 for part in cutter.parts})
    return net


def nothing_reads(net: nn.Module, channels: list[int]) -> nn.Module:
    with torch.no_grad():
        net.get_parameter("down.weight")[:, channels] = 0.0
    return net


@pytest.mark.parametrize("kind", NETS)
def test_a_channel_and_its_gate_are_one_choice(kind: str) -> None:
    net = a_net(kind)
    anatomy, group = dissected(net)
    assert group.channels == 16
    smaller = cut(copy.deepcopy(net), anatomy, "l2", 6)
    assert smaller.get_parameter("up.weight").shape[0] == 20
    assert smaller.get_parameter("down.weight").shape[1] == 10
    inputs = torch.randn(3, *SHAPE)
    assert smaller(inputs).shape == net(inputs).shape


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("kind", NETS)
def test_what_nothing_reads_goes_first_from_both_halves(kind: str, importance: str) -> None:
    net = nothing_reads(a_net(kind), [3, 7, 8])
    anatomy, _ = dissected(net)
    inputs = torch.randn(3, *SHAPE)
    before = net(inputs).detach()
    torch.autograd.backward(net(inputs).square().sum())  # for those that look at gradients
    rows = net.get_parameter("up.weight").detach()
    smaller = cut(net, anatomy, importance, 3)
    stay = [i for i in range(32) if i % 16 not in (3, 7, 8)]
    assert torch.equal(smaller.get_parameter("up.weight"), rows[stay])
    torch.testing.assert_close(smaller(inputs), before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", NETS)
def test_a_cut_network_can_be_cut_again(kind: str) -> None:
    net = a_net(kind)
    anatomy, _ = dissected(net)
    twice = cut(cut(copy.deepcopy(net), anatomy, "l2", 4), anatomy, "l2", 4)
    assert twice.get_parameter("up.weight").shape[0] == 16
    assert Cutter(twice, anatomy, "l2", 0).scores().keys() == Cutter(net, anatomy, "l2", 0).scores().keys()


@pytest.mark.parametrize("kind", NETS)
def test_the_file_of_a_cut_network_answers_as_torch_does(kind: str, tmp_path: Path) -> None:
    net = a_net(kind)
    anatomy, _ = dissected(net)
    smaller, target = cut(net, anatomy, "l2", 5), OnnxRuntimeCpu(TargetSettings())
    inputs = torch.randn(4, *SHAPE)
    with target.lower(smaller, LoweringRequest(Signature.single(SHAPE)), tmp_path).unpacked() as path:
        answers = target.open(path)(inputs.numpy())
    np.testing.assert_allclose(answers, smaller(inputs).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_layer_whose_parts_are_added_again_is_one_choice_for_all_parts() -> None:
    def added(parts: torch.Tensor) -> torch.Tensor:
        first, second = parts.chunk(2, dim=-1)
        return functional.relu(first + second)

    net = Gated(added).eval()
    _, group = dissected(net)
    assert group.channels == 16


def test_parts_of_a_layer_that_go_different_ways_are_chosen_each_for_itself() -> None:
    class Parted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(8, 32)
            self.one, self.two = nn.Linear(16, 5), nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self.up(x).relu().chunk(2, dim=-1)
            return (self.one(first) + self.two(second)).mean(dim=1)  # type: ignore[no-any-return]

    anatomy = dissect(Parted().eval(), torch.randn(2, *SHAPE))
    assert not [each for each in anatomy.groups if "up" in each.layers]  # chunk would put their border elsewhere
    assert "up" in dict(anatomy.left_out)


@pytest.mark.parametrize("kind", NETS)
def test_a_program_of_torch_export_is_cut_likewise(kind: str, tmp_path: Path) -> None:
    inputs = torch.randn(3, *SHAPE)
    program = torch.export.export(a_net(kind), (inputs,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    torch.export.save(program, tmp_path / "net.pt2")
    net = from_pt2(tmp_path / "net.pt2").eval()
    anatomy, group = dissected(net)
    assert group.channels == 16
    smaller = cut(net, anatomy, "l2", 6)
    assert smaller.get_parameter("up.weight").shape[0] == 20
    assert smaller(inputs).shape == (3, 5)
