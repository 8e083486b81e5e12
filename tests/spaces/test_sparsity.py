"""Zeros in weights: how many, where, when, and that they are still there in the artifact."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Storage
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Choice, Condition, Range, Value, existing
from paretrim.spaces.lowrank import LowRank, LowRankOptions
from paretrim.spaces.masks import Pattern, cubic, largest, largest_of_all, largest_of_each, mask_of
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import recover
from paretrim.spaces.sparsity import PatternName, Sparsity, SparsityOptions
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, small_batch, small_net, small_schooling

PATTERNS: tuple[PatternName, ...] = ("2:4", "4:8", "1:4")
TRAINING: dict[str, Value] = {"recovery.epochs": 4, "recovery.batch_size": 8, "recovery.learning_rate": 0.01}
MAGNITUDES = st.lists(st.integers(0, 5), min_size=1, max_size=40).map(lambda x: torch.tensor(x, dtype=torch.float32))


class TestContract(TechniqueContract):
    @pytest.fixture(
        params=[{}, {"scope": "balanced"}, {"scope": "global"}, {"patterns": ("unstructured", *PATTERNS)}], ids=str
    )
    def technique(self, request: pytest.FixtureRequest) -> Technique:
        return Sparsity(SparsityOptions.model_validate(request.param))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0])


def recipe_of(
    amounts: Mapping[str, float], pattern: str = "unstructured", others: Mapping[str, Value] | None = None
) -> Recipe:
    named: dict[str, Value] = {f"sparsity.amount.{name}": amount for name, amount in amounts.items()}
    return Recipe.of({**named, "sparsity.pattern": pattern, **(others or {})})


def lived(techniques: list[Technique], model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> nn.Module:
    """Return the model after a trial's hooks, training included where the recipe has epochs."""
    schooling = small_schooling()
    for part in techniques:
        part.reshape(model, recipe, anatomy, schooling)
    for part in techniques:
        part.attach(model, recipe, anatomy, schooling)

    def advance(done: float) -> None:
        for part in techniques:
            part.advance(model, recipe, anatomy, done)

    for _ in recover(model, recipe, replace(schooling, advance=advance)):
        pass
    advance(1.0)
    for part in techniques:
        part.bake(model, recipe, anatomy)
    return model


def zeros(model: nn.Module, layer: str) -> float:
    """Return the share of a layer's weights that is exactly zero."""
    weight: torch.Tensor = model.get_submodule(layer).weight  # type: ignore[assignment]
    return float(weight.detach().eq(0).float().mean())


class TestMasks:
    @given(MAGNITUDES, st.integers(-1, 45))
    def test_the_largest_stay_and_as_many_as_asked(self, magnitudes: torch.Tensor, kept: int) -> None:
        mask = largest(magnitudes, kept)
        assert int(mask.sum()) == max(0, min(kept, len(magnitudes)))
        if 0 < kept < len(magnitudes):
            assert magnitudes[mask == 1].min() >= magnitudes[mask == 0].max()

    def test_several_layers_are_ranked_together(self) -> None:
        large, small = torch.arange(11.0, 21.0).view(2, 5), torch.arange(1.0, 11.0)
        one, two = largest_of_all([large, small], 0.4, least=0.0)
        assert one.shape == large.shape
        assert bool(one.all())
        assert two.tolist() == [0] * 8 + [1] * 2

    def test_no_layer_is_emptied(self) -> None:
        large, small = torch.full((10,), 9.0), torch.arange(1.0, 101.0) / 1000
        one, two = largest_of_all([large, small], 0.95, least=0.02)
        assert int(two.sum()) == 2
        assert two[-2:].tolist() == [1, 1]
        assert 5 <= int(one.sum()) <= 6

    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("shape", [(3, 16), (5, 8, 3, 2), (4, 24, 5)], ids=str)
    def test_each_block_of_inputs_keeps_its_largest(self, pattern: str, shape: tuple[int, ...]) -> None:
        magnitudes = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        wanted = Pattern.of(pattern)
        assert wanted is not None
        mask = largest_of_each(magnitudes, wanted)
        assert mask.shape == shape
        blocks, values = (each.movedim(1, -1).reshape(-1, wanted.block) for each in (mask, magnitudes))
        assert set(blocks.sum(dim=1).tolist()) == {wanted.kept}
        best = values.topk(wanted.kept, dim=1).values.sum(dim=1)
        torch.testing.assert_close((values * blocks).sum(dim=1), best)

    def test_a_block_that_is_not_full_stays(self) -> None:
        mask = largest_of_each(torch.tensor([[1.0, 2, 3, 4, 5, 6]]), Pattern(2, 4))
        assert mask.tolist() == [[0, 0, 1, 1, 1, 1]]

    def test_zeros_come_fast_and_then_slowly_until_they_are_final(self) -> None:
        shares = [cubic(done, 0.8) for done in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)]
        assert shares == pytest.approx([0.0, 1 - 0.75**3, 1 - 0.5**3, 1 - 0.25**3, 1.0, 1.0, 1.0])

    def test_patterns_become_narrower_by_whole_weights(self) -> None:
        kept = [Pattern(1, 4).early(ramp).kept for ramp in (0.0, 0.3, 0.34, 0.67, 0.99, 1.0)]
        assert kept == [4, 4, 3, 2, 2, 1]


class TestModel:
    @pytest.mark.parametrize("epochs", [0, 4])
    def test_the_amounts_are_those_of_the_recipe(self, epochs: int, anatomy: Anatomy) -> None:
        recipe = recipe_of({"stem": 0.3, "conv1": 0.9}, others={**TRAINING, "recovery.epochs": epochs})
        net = lived([Sparsity(SparsityOptions())], small_net(), recipe, anatomy)
        assert [zeros(net, name) for name in ("stem", "conv1", "conv2", "head")] == pytest.approx(
            [0.3, 0.9, 0.0, 0.0], abs=0.002
        )
        assert net.state_dict().keys() == small_net().state_dict().keys()
        assert all(type(a) is type(b) for a, b in zip(net.modules(), small_net().modules(), strict=True))
        assert net.get_parameter("conv1.weight").requires_grad

    def test_without_training_the_smallest_weights_go_and_the_others_stay(self, anatomy: Anatomy) -> None:
        net = lived([Sparsity(SparsityOptions())], small_net(), recipe_of({"conv1": 0.5}), anatomy)
        before, after = (x.get_parameter("conv1.weight").detach().flatten() for x in (small_net(), net))
        assert torch.equal(after[after != 0], before[after != 0])
        assert before[after == 0].abs().max() <= after[after != 0].abs().min()

    def test_global_amounts_hold_for_the_model_and_differ_by_layer(self, anatomy: Anatomy) -> None:
        net = small_net()
        with torch.no_grad():
            net.conv2.weight.mul_(0.1)
        lived([Sparsity(SparsityOptions(scope="global"))], net, recipe_of({"all": 0.6}), anatomy)
        count = {layer.name: layer.weights for layer in anatomy.layers}
        total = sum(zeros(net, name) * number for name, number in count.items()) / sum(count.values())
        assert total == pytest.approx(0.6, abs=0.02)
        assert zeros(net, "conv2") > 0.95
        assert zeros(net, "conv1") < 0.5
        assert zeros(net, "conv2") < 1.0

    def test_balanced_amounts_are_those_of_each_layer(self, anatomy: Anatomy) -> None:
        net = lived([Sparsity(SparsityOptions(scope="balanced"))], small_net(), recipe_of({"all": 0.5}), anatomy)
        assert [zeros(net, layer.name) for layer in anatomy.layers] == pytest.approx([0.5] * 4, abs=0.01)

    @pytest.mark.parametrize(("pattern", "share"), [("2:4", 0.5), ("4:8", 0.5), ("1:4", 0.75)])
    def test_a_pattern_fixes_the_amount(self, pattern: str, share: float, anatomy: Anatomy) -> None:
        technique = Sparsity(SparsityOptions(patterns=("unstructured", *PATTERNS)))
        net = lived([technique], small_net(), recipe_of({"stem": 0.1, "conv1": 0.1}, pattern, TRAINING), anatomy)
        # Three input channels make no block.
        assert [zeros(net, name) for name in ("stem", "conv1", "conv2")] == [0.0, share, 0.0]

    def test_zeros_grow_while_the_model_is_trained_and_then_stay(self, anatomy: Anatomy) -> None:
        technique, net, recipe = Sparsity(SparsityOptions(until=0.5)), small_net(), recipe_of({"conv1": 0.8})
        technique.attach(net, recipe, anatomy, small_schooling())
        seen = []
        for step in range(21):
            technique.advance(net, recipe, anatomy, step / 20)
            seen.append(zeros(net, "conv1"))
            with torch.no_grad():  # other weights would be the smallest now
                dict(net.named_parameters())["conv1.parametrizations.weight.original"].mul_(torch.rand(24, 16, 3, 3))
        assert seen[0] == 0.0
        assert seen[2] == pytest.approx(0.8 * cubic(0.1, 0.5), abs=0.02)
        assert seen == sorted(seen)
        assert seen[10:] == pytest.approx([0.8] * 11, abs=0.001)

    def test_masked_weights_wait_behind_the_mask(self, anatomy: Anatomy) -> None:
        technique, net, recipe = Sparsity(SparsityOptions()), small_net(), recipe_of({"conv1": 0.5})
        technique.attach(net, recipe, anatomy, small_schooling())
        technique.advance(net, recipe, anatomy, 0.5)
        dense = dict(net.named_parameters())["conv1.parametrizations.weight.original"]
        mask = mask_of(net.conv1)
        assert mask is not None
        assert torch.equal(dense, small_net().conv1.weight)
        assert torch.equal(net.conv1.weight, dense * mask.kept)
        net(small_batch()[0]).sum().backward()
        assert dense.grad is not None
        assert bool((dense.grad[mask.kept == 0] == 0).all())
        assert bool((dense.grad[mask.kept == 1] != 0).any())

    def test_a_model_whose_weights_are_normalized_gets_its_zeros_too(self) -> None:
        net = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 5)).eval()
        found = dissect(net, torch.zeros(2, 8))
        lived([Sparsity(SparsityOptions())], net, recipe_of({"0": 0.5, "2": 0.5}), found)
        assert [zeros(net, "0"), zeros(net, "2")] == pytest.approx([0.5, 0.5])


class TestTogether:
    @pytest.mark.parametrize("family", ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"])
    @pytest.mark.parametrize("when", ["aware", "post"])
    def test_zeros_survive_pruning_factors_training_and_each_grid(
        self, family: str, when: str, anatomy: Anatomy
    ) -> None:
        grid = QuantizationOptions.model_validate({"families": [family], "training": [when]})
        techniques = [
            StructuredPruning(PruningOptions()),
            LowRank(LowRankOptions()),
            Sparsity(SparsityOptions()),
            WeightQuantization(grid),
        ]
        assert [part.stage for part in techniques] == sorted(part.stage for part in techniques)
        recipe = recipe_of(
            {"conv1": 0.8, "conv2": 0.5, "head": 0.4},
            others={
                **TRAINING,
                "pruning.ratio.conv1": 0.3,
                "lowrank.energy.conv2": 0.3,
                "quantization.family": family,
                "quantization.training": when,
                "quantization.bits.conv1": 4,
                "quantization.bits.conv2": 4,
            },
        )
        net = lived(techniques, small_net(), recipe, anatomy)
        assert len(net.get_parameter("conv1.weight")) == 16
        assert zeros(net, "conv1") >= 0.799
        assert zeros(net, "conv2.0") >= 0.499 <= zeros(net, "conv2.1")
        assert zeros(net, "head") == pytest.approx(0.4)
        stored = techniques[-1].storage(net, recipe, anatomy)
        assert {name: each.bits for name, each in stored.items()} == {"conv1": 4, "conv2.0": 4, "conv2.1": 4}
        for name, each in stored.items():
            assert each.steps is not None
            codes = net.get_parameter(f"{name}.weight").detach().flatten(1) / torch.tensor(each.steps)[:, None]
            torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
        assert not any(parametrize.is_parametrized(module) for module in net.modules())


def lowered(amount: float, bits: int | None, folder: Path) -> tuple[Artifact, list[float]]:
    """Return a small LeNet-300-100 with zeros, and the share of them in each matrix that its artifact holds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(196, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
    found, example = dissect(net, torch.zeros(2, 196)), torch.randn(32, 196)
    techniques: list[Technique] = [
        Sparsity(SparsityOptions(scope="balanced")),
        WeightQuantization(QuantizationOptions()),
    ]
    widths: dict[str, Value] = {} if bits is None else {f"quantization.bits.{name}": bits for name in "024"}
    recipe = recipe_of({"all": amount}, others=widths)
    lived(techniques, net, recipe, found)
    stored: dict[str, Storage] = dict(techniques[-1].storage(net, recipe, found))
    split = Split((example, torch.zeros(32)), "calibration")
    artifact = OnnxRuntimeCpu(TargetSettings()).lower(
        net, LoweringRequest(Signature.single((196,)), stored, split), folder
    )
    with artifact.unpacked() as path:
        kept = [numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    return artifact, [float(np.mean(each == 0)) for each in kept if each.ndim == 2]


class TestLowering:
    @pytest.mark.parametrize(("bits", "saved"), [(None, 4.0), (4, 1.5)])
    def test_zeros_are_in_the_artifact_and_shrink_it(self, bits: int | None, saved: float, tmp_path: Path) -> None:
        dense, sparse = (lowered(amount, bits, tmp_path) for amount in (0.0, 0.9))
        assert len(sparse[1]) == 3
        assert min(sparse[1]) >= 0.899
        assert dense[0].size_bytes / sparse[0].size_bytes > saved


class TestDimensions:
    def test_the_pattern_exists_where_an_amount_is_above_zero(self, anatomy: Anatomy) -> None:
        technique = Sparsity(SparsityOptions(patterns=("unstructured", "2:4")))
        *amounts, pattern = technique.dimensions(anatomy)
        names = [f"sparsity.amount.{name}" for name in ("stem", "conv1", "conv2", "head")]
        assert amounts == [Range(name, 0.0, 0.9, neutral=0.0, step=0.1) for name in names]
        when = tuple(Condition(name) for name in names)
        assert pattern == Choice("sparsity.pattern", ("unstructured", "2:4"), "unstructured", when)
        none: dict[str, Value] = {**dict.fromkeys(names, 0.0), "sparsity.pattern": "2:4"}
        assert "sparsity.pattern" not in existing([*amounts, pattern], none)
        assert "sparsity.pattern" in existing([*amounts, pattern], {**none, names[2]: 0.1})

    @pytest.mark.parametrize("scope", ["balanced", "global"])
    def test_one_amount_for_all(self, scope: str, anatomy: Anatomy) -> None:
        dimensions = Sparsity(SparsityOptions.model_validate({"scope": scope})).dimensions(anatomy)
        assert [each.name for each in dimensions] == ["sparsity.amount.all", "sparsity.pattern"]

    def test_layers_without_a_block_are_left_out_when_nothing_else_is_allowed(self, anatomy: Anatomy) -> None:
        technique = Sparsity(SparsityOptions(patterns=("2:4", "4:8")))
        assert technique.left_out(anatomy) == {"stem": "has too few input channels for a block of 2:4, 4:8"}
        assert "sparsity.amount.stem" not in [each.name for each in technique.dimensions(anatomy)]
        assert Sparsity(SparsityOptions()).left_out(anatomy) == {}


class TestOptions:
    @pytest.mark.parametrize(
        "given",
        [{"amount": [0.5, 0.5]}, {"amount": [0.0, 1.0]}, {"patterns": []}, {"patterns": ["3:4"]}, {"until": 0.0}],
        ids=str,
    )
    def test_others_are_refused(self, given: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match=next(iter(given))):
            SparsityOptions.model_validate(given)

    def test_an_upper_end_off_the_steps_is_not_tried(self, anatomy: Anatomy) -> None:
        first = Sparsity(SparsityOptions(amount=(0.0, 0.95), step=0.2)).dimensions(anatomy)[0]
        assert isinstance(first, Range)
        assert first.high == pytest.approx(0.8)


def test_a_recipe_gives_the_same_zeros_again(anatomy: Anatomy) -> None:
    recipe = recipe_of({"conv1": 0.7}, others=TRAINING)
    one, two = (lived([Sparsity(SparsityOptions())], copy.deepcopy(small_net()), recipe, anatomy) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
