"""Structured pruning: what is cut, what stays, and that the model still runs."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Choice, Range
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, random_recipe, small_batch, small_net, small_schooling


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return StructuredPruning(PruningOptions())


def conv_block(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def classifier(*blocks: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)).eval()


def mlp(*widths: int) -> nn.Sequential:
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


def pruned(model: nn.Module, ratios: dict[str, float], inputs: torch.Tensor, **options: object) -> nn.Module:
    """Return a copy of a model, pruned by the given ratio of each group."""
    technique = StructuredPruning(PruningOptions.model_validate(options))
    twin = copy.deepcopy(model)
    recipe = Recipe.of({f"pruning.ratio.{name}": ratio for name, ratio in ratios.items()})
    technique.reshape(twin, recipe, dissect(model, inputs[:2]), small_schooling())
    return twin


def channels(model: nn.Module, name: str) -> int:
    return len(model.get_parameter(f"{name}.weight"))


def check_all_recipes(model: nn.Module, inputs: torch.Tensor, **options: object) -> Anatomy:
    """Check that models of random recipes run, in both modes, and have fewer weights."""
    technique = StructuredPruning(PruningOptions.model_validate(options))
    anatomy = dissect(model, inputs[:2])
    for seed in range(6):
        twin = copy.deepcopy(model)
        technique.reshape(twin, random_recipe(technique.dimensions(anatomy), seed), anatomy, small_schooling())
        assert twin.train()(inputs).shape == model(inputs).shape
        assert sum(p.numel() for p in twin.parameters()) <= sum(p.numel() for p in model.parameters())
    return anatomy


class TestChannelCounts:
    @settings(max_examples=30)
    @given(st.integers(2, 40), st.integers(1, 16), st.floats(0.0, 0.95))
    def test_counts_are_multiples_of_the_block(self, width: int, block: int, ratio: float) -> None:
        inputs = torch.zeros(2, 4)
        kept = channels(pruned(mlp(4, width, 3), {"0": ratio}, inputs, round_to=block, least_kept=0.0), "0")
        assert kept in {width, *range(block, width, block)}
        assert kept >= min(block, width)

    @settings(max_examples=30)
    @given(st.integers(2, 40), st.integers(1, 8), st.floats(0.0, 0.95))
    def test_counts_are_as_near_as_blocks_allow(self, width: int, block: int, ratio: float) -> None:
        inputs = torch.zeros(2, 4)
        kept = channels(pruned(mlp(4, width, 3), {"0": ratio}, inputs, round_to=block, least_kept=0.0), "0")
        wanted = width * (1 - ratio)
        assert kept in (width, block) or abs(wanted - kept) <= block / 2 + 1e-6
        assert kept > wanted - block / 2 - 1e-6

    def test_at_least_one_block_stays(self) -> None:
        net = pruned(small_net(), {"stem": 0.99, "conv1": 0.99}, small_batch()[0])
        assert (channels(net, "stem"), channels(net, "conv1"), channels(net, "conv2")) == (8, 8, 8)

    def test_a_ratio_of_zero_changes_nothing(self) -> None:
        net = small_net()
        twin = pruned(net, {"stem": 0.0, "conv1": 0.0}, small_batch()[0])
        assert all(torch.equal(v, twin.state_dict()[name]) for name, v in net.state_dict().items())


class TestWhatIsCut:
    def test_coupled_layers_lose_the_same_channels(self) -> None:
        net = small_net()
        with torch.no_grad():
            for layer in (net.stem, net.norm, net.conv2, net.norm2):
                layer.weight[3:11] *= 0.01
        twin = pruned(net, {"stem": 0.5}, small_batch()[0])
        kept = [0, 1, 2, *range(11, 16)]
        assert torch.equal(twin.get_parameter("stem.weight"), net.stem.weight[kept])
        assert torch.equal(twin.get_parameter("conv2.weight"), net.conv2.weight[kept])
        assert torch.equal(twin.get_parameter("norm.weight"), net.norm.weight[kept])
        assert torch.equal(twin.get_parameter("head.weight"), net.head.weight[:, kept])

    @pytest.mark.parametrize("importance", ["l1", "l2"])
    @settings(max_examples=10)
    @given(weak=st.sets(st.integers(0, 15), min_size=8, max_size=8))
    def test_the_weakest_channels_go(self, importance: str, weak: set[int]) -> None:
        net = mlp(4, 16, 3)
        with torch.no_grad():
            net.get_parameter("0.weight").uniform_(0.5, 1.0)
            net.get_parameter("0.weight")[sorted(weak)] *= 0.01
            net.get_parameter("2.weight").fill_(1.0)
        twin = pruned(net, {"0": 0.5}, torch.zeros(2, 4), importance=importance)
        kept = [i for i in range(16) if i not in weak]
        assert torch.equal(twin.get_parameter("0.weight"), net.get_parameter("0.weight")[kept])

    def test_the_norm_decides_what_is_weak(self) -> None:
        net = mlp(4, 16, 3)
        with torch.no_grad():
            net.get_parameter("2.weight").fill_(1.0)
            net.get_parameter("0.weight")[:8] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # L1 norm 1, L2 norm 1
            net.get_parameter("0.weight")[8:] = torch.tensor([0.4, 0.4, 0.4, 0.4])  # L1 norm 1.6, L2 norm 0.8
        by_sum = pruned(net, {"0": 0.5}, torch.zeros(2, 4), importance="l1")
        by_square = pruned(net, {"0": 0.5}, torch.zeros(2, 4), importance="l2")
        assert torch.equal(by_sum.get_parameter("0.weight"), net.get_parameter("0.weight")[8:])
        assert torch.equal(by_square.get_parameter("0.weight"), net.get_parameter("0.weight")[:8])

    def test_channels_that_are_zero_can_go_without_a_trace(self) -> None:
        net, inputs = small_net(), small_batch()[0]
        with torch.no_grad():
            for name in ("conv1", "norm1"):
                for parameter in net.get_submodule(name).parameters():
                    parameter[5:13] = 0.0
        twin = pruned(net, {"conv1": 1 / 3}, inputs)
        assert channels(twin, "conv1") == 16
        torch.testing.assert_close(twin(inputs), net(inputs))

    def test_the_output_layer_keeps_its_outputs(self) -> None:
        net = pruned(small_net(), {"stem": 0.5, "conv1": 0.5, "head": 0.75}, small_batch()[0], round_to=1)
        assert channels(net, "head") == 5

    def test_features_that_are_flattened_go_with_their_channels(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5)).eval()
        inputs = small_batch()[0]
        with torch.no_grad():
            for parameter in net[0].parameters():
                parameter[::2] = 0.0
        twin = pruned(net, {"0": 0.5}, inputs)
        assert twin.get_parameter("3.weight").shape == (5, 8 * 36)
        torch.testing.assert_close(twin(inputs), net(inputs))


class TestStructures:
    inputs = small_batch()[0]

    def test_a_residual_net_runs_at_every_recipe(self) -> None:
        assert len(check_all_recipes(small_net(), self.inputs).groups) == 2

    def test_depthwise_convolutions_are_cut_with_their_inputs(self) -> None:
        net = classifier(conv_block(3, 32), conv_block(32, 32, groups=32), conv_block(32, 24), channels=24)
        check_all_recipes(net, self.inputs)
        twin = pruned(net, {"0.0": 0.5}, self.inputs)
        assert twin.get_parameter("1.0.weight").shape == (16, 1, 3, 3)

    @pytest.mark.parametrize(("ratio", "block"), [(0.5, 8), (0.125, 1)])
    def test_layers_before_a_grouped_convolution_do_not_break_it(self, ratio: float, block: int) -> None:
        first = conv_block(3, 32)
        with torch.no_grad():
            for parameter in first.parameters():
                parameter[: int(32 * ratio)] *= 0.01
        net = classifier(first, conv_block(32, 32, groups=4), conv_block(32, 16), channels=16)
        twin = pruned(net, {"0.0": ratio, "2.0": 0.5}, self.inputs, round_to=block)
        assert twin(self.inputs).shape == (len(self.inputs), 5)
        assert channels(twin, "1.0") == 32

    def test_depthwise_convolutions_with_a_multiplier_do_not_break(self) -> None:
        net = classifier(conv_block(3, 16), conv_block(16, 32, groups=16), conv_block(32, 16), channels=16)
        check_all_recipes(net, self.inputs)

    def test_a_depthwise_convolution_may_come_first(self) -> None:
        net = classifier(conv_block(3, 24, groups=3), conv_block(24, 32), channels=32)
        check_all_recipes(net, self.inputs)

    def test_concatenated_layers_are_cut(self) -> None:
        check_all_recipes(Concatenating().eval(), self.inputs)

    def test_a_transformer_layer_is_cut(self) -> None:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        net = nn.Sequential(nn.Linear(8, 32), layer, nn.Linear(32, 3)).eval()
        assert check_all_recipes(net, torch.randn(4, 5, 8)).groups

    def test_a_flattened_sequence_does_not_break(self) -> None:
        net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 5, 3)).eval()
        check_all_recipes(net, torch.randn(4, 5, 8))

    def test_attention_with_reshaped_heads_is_left_whole(self) -> None:
        check_all_recipes(Attention().eval(), self.inputs)

    def test_layers_that_are_added_to_the_input_are_left_whole(self) -> None:
        net = nn.Sequential(AddedToInput(), nn.ReLU(), nn.Linear(16, 3)).eval()
        check_all_recipes(net, torch.randn(4, 16))

    def test_a_model_of_which_some_layers_are_frozen_is_cut(self) -> None:
        net = small_net()
        net.stem.requires_grad_(False)
        net.norm.requires_grad_(False)
        twin = pruned(net, {"stem": 0.5}, self.inputs)
        assert channels(twin, "stem") == 8

    def test_an_input_of_integers_is_no_obstacle(self) -> None:
        net = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
        assert len(check_all_recipes(net, torch.randint(0, 20, (4, 5))).groups) == 1


class Concatenating(nn.Module):
    """Two layers side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv_block(3, 16)
        self.two = conv_block(16, 16)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.one(x)
        both = torch.cat([one, self.two(one)], dim=1)
        return self.head(both.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class AddedToInput(nn.Module):
    """Two linear layers, the second of which is added to the input of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(16, 32)
        self.two = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(functional.relu(self.one(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """One layer gives queries, keys and values of four heads, as in many vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 2, 2)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.project = nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        queries, keys, values = self.qkv(self.norm(x)).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


class TestDimensions:
    anatomy = dissect(small_net(), small_batch(2)[0])

    def test_each_group_has_one_ratio(self) -> None:
        dimensions = StructuredPruning(PruningOptions()).dimensions(self.anatomy)
        assert dimensions == (
            Range("pruning.ratio.stem", 0.0, 0.75, neutral=0.0, step=0.125),
            Range("pruning.ratio.conv1", 0.0, 0.75, neutral=0.0, step=0.125),
        )

    def test_a_group_that_cannot_lose_a_block_has_none(self) -> None:
        dimensions = StructuredPruning(PruningOptions(round_to=16)).dimensions(self.anatomy)
        assert [dimension.name for dimension in dimensions] == ["pruning.ratio.conv1"]

    @given(st.floats(0.0, 0.45), st.floats(0.5, 0.99), st.floats(0.01, 0.5))
    def test_the_ends_lie_on_the_grid_of_steps(self, low: float, high: float, step: float) -> None:
        technique = StructuredPruning(PruningOptions(ratio=(low, high), step=step, round_to=1))
        for dimension in technique.dimensions(self.anatomy):
            top = dimension.high if isinstance(dimension, Range) else dimension.values[0]
            assert isinstance(top, float)
            assert (top - low) / step == pytest.approx(round((top - low) / step), abs=1e-6)
            assert high - step - 1e-6 < top <= high + 1e-6

    def test_a_single_ratio_is_a_constant(self) -> None:
        dimensions = StructuredPruning(PruningOptions(ratio=(0.25, 0.5), step=0.5)).dimensions(self.anatomy)
        assert dimensions[1] == Choice("pruning.ratio.conv1", (0.25,), neutral=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratio": (0.5, 0.5)},
        {"ratio": (0.7, 0.2)},
        {"ratio": (0.0, 1.0)},
        {"step": 0.0},
        {"importance": "l3"},
        {"round_to": 0},
        {"rounding": 8},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PruningOptions.model_validate(wrong)


class TestGroupNormalization:
    """Its groups keep as many channels each."""

    @staticmethod
    def net(groups: int, channels: int = 24) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, channels, 3),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
            nn.Conv2d(channels, 16, 3),
            nn.Flatten(),
            nn.Linear(256, 3),
        ).eval()

    @pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.7, 0.9])
    @pytest.mark.parametrize("scope", ["group", "global"])
    @pytest.mark.parametrize("steps", [1, 3])
    def test_any_ratio_leaves_whole_groups(self, ratio: float, scope: str, steps: int) -> None:
        options = {"round_to": 1, "scope": scope} | ({"steps": steps, "step_epochs": 0} if steps > 1 else {})
        technique = StructuredPruning(PruningOptions.model_validate(options))
        net = self.net(6)
        anatomy = dissect(net, torch.zeros(2, 3, 8, 8))
        place = "0" if scope == "group" else "all"
        technique.reshape(net, Recipe.of({f"pruning.ratio.{place}": ratio}), anatomy, small_schooling())
        left = len(net.get_parameter("0.weight"))
        assert left % 6 == 0
        assert left < 24 or ratio < 0.2
        assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 3)

    def test_what_no_whole_groups_can_leave_is_told(self) -> None:
        anatomy = dissect(self.net(24), torch.zeros(2, 3, 8, 8))
        assert dict(anatomy.left_out)["0"] == "its 24 channels are normalized in 24 groups"
