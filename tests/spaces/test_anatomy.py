"""What is found out about a model before anything is done to it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.errors import UserCodeError
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.testing import SmallNet, small_batch, small_net


class Backwards(nn.Module):
    """Layers that are defined in the opposite order of their use, and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 3)
        self.spare = nn.Linear(16, 16)
        self.first = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.first(x)))  # type: ignore[no-any-return]


class Untraceable(nn.Module):
    """Leaves torch on the way, which works only where no gradient is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.from_numpy(self.body(x).numpy())
        return self.head(y)  # type: ignore[no-any-return]


class SummedHeads(nn.Module):
    """An output that is the sum of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.one = nn.Linear(16, 3)
        self.other = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.body(x))
        return self.one(y) + self.other(y)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0])


def test_layers_are_listed_in_order_of_execution() -> None:
    found = dissect(Backwards().eval(), torch.zeros(2, 8))
    assert [layer.name for layer in found.layers] == ["first", "last"]
    assert [layer.weights for layer in found.layers] == [8 * 16, 16 * 3]


def test_only_the_ends_are_first_and_last(anatomy: Anatomy) -> None:
    assert [(layer.name, layer.first, layer.last) for layer in anatomy.layers] == [
        ("stem", True, False),
        ("conv1", False, False),
        ("conv2", False, False),
        ("head", False, True),
    ]


def test_layers_that_are_added_up_share_a_group(anatomy: Anatomy) -> None:
    groups = {group.name: (group.layers, group.channels) for group in anatomy.groups}
    assert groups == {"stem": (("stem", "conv2"), 16), "conv1": (("conv1",), 24)}


def test_the_output_layer_is_left_out_with_a_reason(anatomy: Anatomy) -> None:
    assert anatomy.left_out == (("head", "gives the model's output"),)


def test_the_ends_stand_alone_among_groups_that_share_bits(anatomy: Anatomy) -> None:
    named = {name: [layer.name for layer in layers] for name, layers in anatomy.layer_groups()}
    assert named == {"stem": ["stem"], "conv1": ["conv1"], "conv2": ["conv2"], "head": ["head"]}


def test_each_layer_belongs_to_one_group_that_shares_bits() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), Branch(), Branch(), nn.Flatten(), nn.Linear(16 * 16, 3))
    found = dissect(net.eval(), torch.zeros(2, 3, 4, 4))
    grouped = [layer for _, layers in found.layer_groups() for layer in layers]
    assert sorted(layer.name for layer in grouped) == sorted(layer.name for layer in found.layers)
    assert any(len(layers) > 1 for _, layers in found.layer_groups())


class Branch(nn.Module):
    """A residual branch of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))  # type: ignore[no-any-return]


def test_grouped_convolutions_are_left_out_with_a_reason() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=4), nn.Flatten(), nn.Linear(256, 3))
    found = dissect(net.eval(), torch.zeros(2, 3, 8, 8))
    reasons = dict(found.left_out)
    assert "has grouped channels" in reasons["1"]
    assert "1" not in [name for group in found.groups for name in group.layers]


def test_a_depthwise_convolution_is_cut_with_the_layer_before_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten(), nn.Linear(256, 3))
    found = dissect(net.eval(), torch.zeros(2, 3, 8, 8))
    assert [group.layers for group in found.groups] == [("0", "1")]


def test_a_layer_that_cannot_be_cut_is_left_out_with_a_reason() -> None:
    found = dissect(SummedHeads().eval(), torch.zeros(2, 8))
    cut = {name for group in found.groups for name in group.layers}
    assert cut == {"body"}
    assert {name for name, _ in found.left_out} == {"one", "other"}


def test_a_model_that_the_tracer_cannot_follow_has_layers_and_no_groups() -> None:
    found = dissect(Untraceable().eval(), torch.zeros(2, 8))
    assert [layer.name for layer in found.layers] == ["body", "head"]
    assert found.groups == ()
    assert {name for name, _ in found.left_out} == {"body", "head"}
    assert all("could not be traced" in reason for _, reason in found.left_out)


def test_a_model_without_layers_raises_user_code_error() -> None:
    with pytest.raises(UserCodeError, match="nothing to compress"):
        dissect(nn.Sequential(nn.ReLU(), nn.Flatten()).eval(), torch.zeros(2, 8))


def test_data_that_does_not_fit_the_model_raises_user_code_error() -> None:
    with pytest.raises(
        UserCodeError, match=r"does not run on inputs \(torch.float32 of shape \(2, 7\)\).*check that the data"
    ):
        dissect(Backwards().eval(), torch.zeros(2, 7))


def test_dissecting_leaves_the_model_as_it_was() -> None:
    net = small_net().requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    dissect(net, small_batch(2)[0])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert not net.training


def test_a_model_with_frozen_weights_has_the_groups_of_one_without(anatomy: Anatomy) -> None:
    frozen = small_net().requires_grad_(False)
    assert dissect(frozen, small_batch(2)[0]) == anatomy


def test_the_example_has_the_shape_and_type_of_the_data() -> None:
    net = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(40, 3)).eval()
    found = dissect(net, torch.ones((4, 5), dtype=torch.int64))
    assert found.inputs.parts[0].shape == (5,)
    assert found.example(3).only.shape == (3, 5)
    assert found.example().only.dtype == torch.int64
    assert found.example().through(net).shape == (2, 3)


def test_two_nets_of_one_kind_have_equal_anatomies(anatomy: Anatomy) -> None:
    assert dissect(SmallNet().eval(), small_batch(4)[0]) == anatomy
