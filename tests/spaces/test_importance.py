"""By what channels and heads are ranked, in which scope, in how many steps, and after which training."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import Anatomy, Group, dissect
from paretrim.spaces.cutting import Cutter, Rounding
from paretrim.spaces.dimension import Choice, Condition, Range, Value, existing
from paretrim.spaces.group_penalty import GroupPenalty
from paretrim.spaces.importance import IMPORTANCES, channel_scores, take_gradients
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.surgery import coupled, dependency_graph
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallNet, TechniqueContract, small_batch, small_net, small_schooling

INPUTS = small_batch(2)[0]


class TestContractOfAChoice(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return StructuredPruning(PruningOptions(importance=("l2", "taylor", "bn_scale", "random"), scope="balanced"))


class TestContractOfSteps(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return StructuredPruning(
            PruningOptions(importance="geometric_median", scope="global", steps=2, sparsity_epochs=1)
        )


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), INPUTS)


def pruned(net: nn.Module, values: dict[str, float | str], seed: int = 0, **options: object) -> nn.Module:
    twin = copy.deepcopy(net)
    technique = StructuredPruning(PruningOptions.model_validate(options))
    technique.reshape(twin, Recipe.of(dict(values), seed), dissect(net, INPUTS), small_schooling())
    return twin


def widths(net: nn.Module) -> tuple[int, ...]:
    return tuple(len(net.get_parameter(f"{name}.weight")) for name in ("stem", "conv1", "conv2"))


def scores(kind: str, net: nn.Module, layer: str, seed: int = 0) -> torch.Tensor:
    graph = dependency_graph(net, Inputs.of(INPUTS))
    root = net.get_submodule(layer)
    return channel_scores(kind, graph, coupled(graph, root, range(len(root.weight))), seed)  # type: ignore[arg-type]


class TestMeasures:
    @pytest.mark.parametrize("kind", IMPORTANCES)
    def test_channels_of_nothing_go_first(self, kind: str) -> None:
        net = small_net()
        with torch.no_grad():
            net.conv1.weight[[3, 7]] = 0.0
            net.conv2.weight[:, [4, 9]] = 0.0
        take_gradients(net, small_schooling(), seed=0)
        found = scores(kind, net, "conv1")
        assert set(found.argsort()[:4].tolist()) == {3, 4, 7, 9}
        assert float(found[[3, 4, 7, 9]].max()) == -1.0

    @pytest.mark.parametrize("kind", IMPORTANCES)
    def test_scores_are_one_on_average(self, kind: str) -> None:
        net = small_net()
        take_gradients(net, small_schooling(), seed=0)
        found = scores(kind, net, "stem")
        assert found.shape == (16,)
        assert float(found.mean()) == pytest.approx(1.0, rel=1e-4)

    def test_taylor_is_gradient_times_weight(self) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
        take_gradients(net, small_schooling(), seed=0)
        first, second = (net.get_submodule(name) for name in ("1", "3"))
        worth = [(w * g).abs() for w, g in ((first.weight, first.weight.grad), (second.weight, second.weight.grad))]  # type: ignore[operator]
        expected = worth[0].sum(dim=1) + worth[1].sum(dim=0)
        found = scores("taylor", net, "1")
        torch.testing.assert_close(found, (expected / expected.mean()).detach())

    def test_taylor_lets_go_what_is_large_but_moves_no_loss(self) -> None:
        net = small_net()
        with torch.no_grad():
            net.conv1.weight[12:] *= 5.0
            net.conv2.weight[:, 12:] *= 1e-4
        take_gradients(net, small_schooling(), seed=0)
        by_loss, by_size = scores("taylor", net, "conv1"), scores("l2", net, "conv1")
        assert by_size[12:].min() > by_size[:12].max()
        assert by_loss[12:].max() < 0.05 < by_loss[:12].mean()

    def test_the_geometric_median_lets_go_what_others_stand_for(self) -> None:
        net = small_net()
        with torch.no_grad():
            twins = torch.arange(8, 24)
            net.conv1.weight[twins] = net.conv1.weight[8].clone() + 1e-3 * torch.randn(16, 16, 3, 3)
            net.conv1.weight[twins] *= 5.0  # large, so that a norm would keep them
        by_distance, by_norm = scores("geometric_median", net, "conv1"), scores("l2", net, "conv1")
        assert by_norm[:8].max() < by_norm[8:].min()
        assert by_distance[8:].max() < by_distance[:8].max()

    def test_scales_of_batch_normalization_rank_alone(self) -> None:
        net = small_net()
        found = scores("bn_scale", net, "conv1")
        torch.testing.assert_close(found, (net.norm1.weight / net.norm1.weight.mean()).detach())

    def test_without_batch_normalization_sizes_rank(self) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
        assert torch.equal(scores("bn_scale", net, "1"), scores("l2", net, "1"))

    def test_chance_depends_on_the_seed_alone(self) -> None:
        values: dict[str, float | str] = {"pruning.ratio.conv1": 0.5, "pruning.importance": "random"}
        one, same, other = (pruned(small_net(), values, seed, round_to=4) for seed in (1, 1, 2))
        assert torch.equal(one.get_parameter("conv1.weight"), same.get_parameter("conv1.weight"))
        assert not torch.equal(one.get_parameter("conv1.weight"), other.get_parameter("conv1.weight"))

    def test_gradients_leave_no_trace_but_themselves(self) -> None:
        net = small_net()
        net.stem.requires_grad_(False)
        before = copy.deepcopy(net.state_dict())
        take_gradients(net, small_schooling(), seed=0)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        assert net.stem.weight.grad is not None
        assert not net.stem.weight.requires_grad


class TestScopes:
    def test_one_ratio_for_all_groups(self, anatomy: Anatomy) -> None:
        (ratio,) = StructuredPruning(PruningOptions(scope="balanced")).dimensions(anatomy)
        assert ratio == Range("pruning.ratio.all", 0.0, 0.75, neutral=0.0, step=0.125)
        assert widths(pruned(small_net(), {"pruning.ratio.all": 0.5}, scope="balanced", round_to=4)) == (8, 12, 8)

    def test_the_share_of_all_channels_goes_where_it_matters_least(self) -> None:
        net = small_net()
        with torch.no_grad():
            net.conv2.weight[:, 4:] *= 1e-3
            net.conv1.weight[4:] *= 1e-3
            net.norm1.weight[4:] *= 1e-3
        twin = pruned(net, {"pruning.ratio.all": 0.5}, scope="global", round_to=4)
        assert widths(twin) == (16, 4, 16)
        assert torch.equal(twin.get_parameter("conv1.weight"), net.conv1.weight[:4])

    @pytest.mark.parametrize("share", [0.125, 0.25, 0.5, 0.75])
    def test_the_share_is_met_to_half_a_block(self, share: float) -> None:
        twin = pruned(small_net(), {"pruning.ratio.all": share}, scope="global", round_to=4)
        stem, conv1, _ = widths(twin)
        assert abs((40 - stem - conv1) - share * 40) <= 2

    def test_each_group_keeps_its_least(self) -> None:
        values: dict[str, float | str] = {"pruning.ratio.all": 0.9}
        twin = pruned(small_net(), values, scope="global", round_to=1, ratio=(0.0, 0.95), least_kept=0.25)
        assert widths(twin) == (4, 6, 4)

    def test_blocks_are_those_of_the_target_unless_given(self) -> None:
        found = dissect(small_net(), INPUTS, Abilities(channel_multiple=16))
        names = [each.name for each in StructuredPruning(PruningOptions()).dimensions(found)]
        assert names == ["pruning.ratio.conv1"]
        assert "blocks of 16" in StructuredPruning(PruningOptions()).left_out(found)["stem"]
        assert len(StructuredPruning(PruningOptions(round_to=8)).dimensions(found)) == 2

    @pytest.mark.parametrize(("channels", "least"), [(100, 8), (400, 24), (6, 6)])
    def test_the_least_is_whole_blocks(self, channels: int, least: int) -> None:
        assert Rounding(8, 0.05).floor(Group("one", ("one",), channels)) == least


class TestDimensions:
    def test_a_choice_of_importances_exists_where_something_is_cut(self, anatomy: Anatomy) -> None:
        dimensions = StructuredPruning(PruningOptions(importance=("l1", "taylor"))).dimensions(anatomy)
        some = (Condition("pruning.ratio.stem"), Condition("pruning.ratio.conv1"))
        assert dimensions[-1] == Choice("pruning.importance", ("l1", "taylor"), "l1", some)
        values: dict[str, Value] = {
            "pruning.ratio.stem": 0.0,
            "pruning.ratio.conv1": 0.0,
            "pruning.importance": "l1",
        }
        assert "pruning.importance" not in existing(dimensions, values)
        assert "pruning.importance" in existing(dimensions, {**values, "pruning.ratio.conv1": 0.25})

    def test_steps_and_sparsity_belong_to_the_recipe(self, anatomy: Anatomy) -> None:
        technique = StructuredPruning(PruningOptions(steps=3, step_epochs=2, sparsity_epochs=1))
        constants = {d.name: (d.values, d.neutral) for d in technique.dimensions(anatomy) if isinstance(d, Choice)}
        assert constants == {
            "pruning.steps": ((3,), 1),
            "pruning.step_epochs": ((2,), 0),
            "pruning.sparsity_epochs": ((1,), 0),
            "pruning.sparsity_strength": ((0.001,), 0.001),
        }

    def test_each_importance_comes_once(self) -> None:
        assert PruningOptions(importance=("l1", "l1", "l2")).importances == ("l1", "l2")


class TestSteps:
    @pytest.mark.parametrize("scope", ["group", "balanced", "global"])
    def test_steps_end_where_one_cut_does(self, scope: str) -> None:
        names = ("all",) if scope != "group" else ("stem", "conv1")
        values: dict[str, float | str] = {f"pruning.ratio.{name}": 0.5 for name in names}
        steps: dict[str, float | str] = {"pruning.steps": 3, "pruning.step_epochs": 0}
        at_once = pruned(small_net(), values, scope=scope, round_to=4)
        stepwise = pruned(small_net(), {**values, **steps}, scope=scope, round_to=4)
        assert sum(widths(at_once)[:2]) == sum(widths(stepwise)[:2])

    def test_training_lies_between_the_steps_and_can_be_repeated(self) -> None:
        values: dict[str, float | str] = {"pruning.ratio.conv1": 0.5, "pruning.steps": 2}
        plain, one, same = (
            pruned(small_net(), {**values, "pruning.step_epochs": epochs}, round_to=4) for epochs in (0, 1, 1)
        )
        assert widths(plain) == widths(one) == (16, 12, 16)
        assert torch.equal(one.get_parameter("head.weight"), same.get_parameter("head.weight"))
        assert not torch.equal(one.get_parameter("head.weight"), plain.get_parameter("head.weight"))


class TestSparsity:
    def test_the_penalty_is_the_length_of_what_goes_with_each_channel(self, anatomy: Anatomy) -> None:
        net = small_net()
        penalty = GroupPenalty(net, anatomy, ["conv1"], 0.5, {})
        with torch.no_grad():
            energy = net.conv1.weight.square().sum((1, 2, 3)) + net.conv2.weight.square().sum((0, 2, 3))
            expected = 0.5 * energy.sqrt().sum()
            assert float(penalty(next(small_schooling().batches(4, 0)))) == pytest.approx(float(expected), rel=1e-4)
        penalty.close()

    def test_channels_that_cost_more_time_are_pressed_harder(self, anatomy: Anatomy) -> None:
        batch = next(small_schooling().batches(4, 0))

        def pressed(channel_ms: dict[str, float], *groups: str) -> float:
            return float(GroupPenalty(small_net(), anatomy, groups, 1.0, channel_ms)(batch).detach())

        costs = {"stem": 3.0, "conv1": 1.0}
        stem, conv1 = pressed({}, "stem"), pressed({}, "conv1")
        assert pressed(costs, "stem", "conv1") == pytest.approx(1.5 * stem + 0.5 * conv1, rel=1e-4)

    def test_training_presses_the_channels_of_cut_groups_towards_zero(self, anatomy: Anatomy) -> None:
        training = {"recovery.batch_size": 4, "recovery.learning_rate": 0.05}
        values: dict[str, float | str] = {"pruning.ratio.conv1": 0.5, "pruning.sparsity_epochs": 5, **training}
        strong, weak = (
            pruned(small_net(), {**values, "pruning.sparsity_strength": strength}, round_to=12)
            for strength in (0.03, 1e-6)
        )
        assert widths(strong) == (16, 12, 16)
        sizes = [float(net.get_parameter("conv1.weight").detach().norm()) for net in (strong, weak)]
        assert sizes[0] < 0.9 * sizes[1]


class Tied(nn.Module):
    """Two layers that share their weights, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.free = (nn.Linear(16, 16) for _ in range(4))
        self.two.weight = self.one.weight
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.two(functional.relu(self.one(functional.relu(self.stem(x))))))
        return self.head(functional.relu(self.free(x)))  # type: ignore[no-any-return]


class Deciding(nn.Module):
    """Takes another way on other inputs, by leaving torch, so that no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.one(x) if float(x.sum()) > 0 else self.two(x)
        return self.head(x)  # type: ignore[no-any-return]


class TestHardModels:
    @staticmethod
    def check(net: nn.Module, inputs: torch.Tensor) -> dict[str, str]:
        anatomy = dissect(net.eval(), inputs)
        technique = StructuredPruning(PruningOptions())
        recipe = Recipe.of({each.name: 0.5 for each in technique.dimensions(anatomy)})
        twin = copy.deepcopy(net)
        technique.reshape(twin, recipe, anatomy, small_schooling())
        assert twin(inputs).shape == net(inputs).shape
        return dict(technique.left_out(anatomy))

    def test_tied_layers_are_not_cut_apart(self) -> None:
        reasons = self.check(Tied(), torch.randn(2, 16))
        assert {"stem", "one", "two"} <= set(reasons)
        assert "free" not in reasons
        assert "shares its weights with" in reasons["one"]

    def test_ways_that_depend_on_the_input_are_no_obstacle(self) -> None:
        assert "head" in self.check(Deciding(), torch.randn(2, 8))

    def test_one_layer_alone_has_a_reason(self) -> None:
        assert self.check(nn.Linear(8, 3), torch.randn(2, 8)) == {"": "gives the model's output"}

    def test_frozen_weights_stay_frozen(self, anatomy: Anatomy) -> None:
        net: SmallNet = small_net()
        net.stem.requires_grad_(False)
        twin = pruned(net, {"pruning.ratio.stem": 0.5, "pruning.ratio.conv1": 0.5})
        learning = {name for name, parameter in twin.named_parameters() if parameter.requires_grad}
        assert learning == {name for name, parameter in net.named_parameters() if parameter.requires_grad}

    def test_groups_come_once_each(self, anatomy: Anatomy) -> None:
        cutter = Cutter(small_net(), anatomy, "l2", 0)
        assert [(part.group.name, part.channels) for part in cutter.parts] == [("stem", 16), ("conv1", 24)]
        assert replace(anatomy, groups=()).cut_groups() == ()
