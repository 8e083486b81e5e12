"""Low rank: which layers become two, of what rank, and that all else stays as it was."""

from __future__ import annotations

import copy
import math
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
from torch.nn import functional

from paretrim.errors import TrialError
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.spaces.anatomy import dissect, parts_of
from paretrim.spaces.dimension import Range
from paretrim.spaces.factors import Thrift, factorized, rank_of, soothe
from paretrim.spaces.lowrank import LowRank, LowRankOptions
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, small_batch, small_net, small_schooling

ANY = Thrift(block=1, gain=1.0)


class TestContract(TechniqueContract):
    @pytest.fixture(params=[(0.7, 1.0), (0.1, 0.3)], ids=str)
    def technique(self, request: pytest.FixtureRequest) -> Technique:
        return LowRank(LowRankOptions(energy=request.param))


class Joined(nn.Module):
    """A layer, and a head that reads all that it answers."""

    def __init__(self, layer: nn.Module, inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(math.prod(layer(torch.zeros(1, *inputs)).shape), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(functional.relu(self.layer(x)).flatten(1))  # type: ignore[no-any-return]


def of_rank(rank: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Return weights ``(o, i, ...)`` that are a product of matrices of a rank."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(shape[0], rank, generator=generator)
    return (left @ torch.randn(rank, math.prod(shape[1:]), generator=generator)).view(shape)


def thin(layer: nn.Module, rank: int = 3) -> nn.Module:
    """Return the layer with weights of a low rank."""
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.copy_(of_rank(rank, *weight.shape))
    return layer


def compressed(model: nn.Module, energies: dict[str, float], example: torch.Tensor, block: int = 8) -> nn.Module:
    """Return a copy of a model, factorized."""
    anatomy = dissect(model, example, Abilities(channel_multiple=block))
    twin = copy.deepcopy(model)
    recipe = Recipe.of({f"lowrank.energy.{name}": energy for name, energy in energies.items()})
    LowRank(LowRankOptions()).reshape(twin, recipe, anatomy, small_schooling())
    return twin


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class TestRank:
    @given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20), st.floats(0.01, 1.0))
    def test_it_is_the_smallest_that_keeps_the_energy(self, values: list[float], energy: float) -> None:
        ordered = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
        rank, squares = rank_of(ordered, energy), ordered.square()
        assert float(squares[:rank].sum()) >= energy * float(squares.sum()) * (1 - 1e-9)
        assert rank == 1 or float(squares[: rank - 1].sum()) < energy * float(squares.sum())

    @given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 40), st.integers(1, 40))
    def test_it_is_a_multiple_of_the_block_or_full(self, least: int, block: int, outputs: int, inputs: int) -> None:
        full = min(outputs, inputs)
        rank = Thrift(block, 0.9).rank(min(least, full), (outputs, inputs))
        assert rank == full or rank % block == 0
        assert min(least, full) <= rank < min(least, full) + block

    def test_the_error_is_what_was_left_out(self) -> None:
        layer = nn.Linear(40, 30)
        pair = factorized(layer, 0.8, ANY)
        assert pair is not None
        made = pair[1].get_parameter("weight") @ pair[0].get_parameter("weight")
        lost = float((made - layer.weight).detach().square().sum() / layer.weight.detach().square().sum())
        values = torch.linalg.svdvals(layer.weight.detach().double()).square()
        assert lost == pytest.approx(
            float(values[len(pair[0].get_parameter("weight")) :].sum() / values.sum()), rel=1e-4
        )
        assert 0.1 < lost <= 0.2

    @pytest.mark.parametrize("shape", [(64, 32), (32, 64)], ids=str)
    def test_the_factors_are_those_of_the_decomposition_and_balanced(self, shape: tuple[int, int]) -> None:
        layer = nn.Linear(*shape)
        pair = factorized(layer, 0.5, ANY)
        assert pair is not None
        left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        rank = len(pair[0].get_parameter("weight"))
        wanted = left[:, :rank] * values[:rank] @ right[:rank]
        made = pair[1].get_parameter("weight") @ pair[0].get_parameter("weight")
        torch.testing.assert_close(made.detach(), wanted, atol=1e-5, rtol=1e-4)
        first, second = (part.get_parameter("weight").detach() for part in pair)
        torch.testing.assert_close(first.norm(dim=1), second.norm(dim=0))

    @pytest.mark.parametrize("shape", [(40, 30), (30, 40)], ids=str)
    def test_a_rank_beyond_that_of_the_weights_does_no_harm(self, shape: tuple[int, int]) -> None:
        for rank in (0, 2):
            layer = thin(nn.Linear(*shape), rank)
            pair = factorized(layer, 0.9, Thrift(block=8, gain=1.0))
            assert pair is not None
            inputs = torch.randn(5, shape[0], generator=torch.Generator().manual_seed(0))
            assert all(part.get_parameter("weight").abs().max() < 10 for part in pair)
            torch.testing.assert_close(pair(inputs), layer(inputs), atol=1e-4, rtol=1e-4)

    def test_weights_that_are_not_finite_fail_the_trial(self) -> None:
        layer = nn.Linear(40, 30)
        with torch.no_grad():
            layer.weight[0, 0] = torch.nan
        with pytest.raises(TrialError, match="NaN or infinite"):
            factorized(layer, 0.8, ANY)


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(32, 24), (32,)),
    (nn.Linear(32, 24, bias=False), (5, 32)),
    (nn.Conv1d(16, 24, 5, stride=2, padding=3, dilation=2), (16, 21)),
    (nn.Conv2d(16, 24, 3, padding="same", padding_mode="circular"), (16, 9, 7)),
    (nn.Conv2d(16, 24, (3, 1), stride=(2, 1), padding=(1, 0), bias=False), (16, 9, 7)),
    (nn.Conv3d(8, 16, 3, padding=1), (8, 5, 4, 3)),
]


class TestLayers:
    @pytest.mark.parametrize(("layer", "inputs"), LAYERS, ids=lambda value: str(value)[:12])
    def test_weights_of_low_rank_are_replaced_without_a_trace(self, layer: nn.Module, inputs: tuple[int, ...]) -> None:
        model = Joined(thin(copy.deepcopy(layer)), inputs).eval()
        example = torch.randn(3, *inputs, generator=torch.Generator().manual_seed(1))
        twin = compressed(model, {"layer": 0.999999 - 1e-5}, example, block=1)
        assert isinstance(twin.layer, nn.Sequential)
        assert len(twin.layer[0].get_parameter("weight")) == 3
        assert weights(twin) < weights(model)
        torch.testing.assert_close(twin(example), model(example), atol=1e-3, rtol=1e-3)

    def test_names_are_those_by_which_parts_are_found(self) -> None:
        model = Joined(thin(nn.Linear(32, 24)), (32,)).eval()
        twin = compressed(model, {"layer": 0.9}, torch.zeros(2, 32))
        assert parts_of(twin, "layer") == ("layer.0", "layer.1")
        assert len(twin.get_parameter("layer.0.weight")) == 8
        assert twin.get_parameter("layer.1.bias") is not None

    def test_a_layer_stays_where_its_rank_would_save_too_little(self) -> None:
        model = Joined(nn.Linear(32, 32), (32,)).eval()  # at 95% of the energy, nearly full rank
        twin = compressed(model, {"layer": 0.95}, torch.zeros(2, 32))
        assert twin.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True))

    def test_less_energy_leaves_fewer_weights(self) -> None:
        model = Joined(nn.Linear(128, 96), (128,)).eval()
        sizes = [weights(compressed(model, {"layer": e}, torch.zeros(2, 128))) for e in (0.3, 0.5, 0.7, 1.0)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[1] < sizes[-1] == weights(model)

    def test_random_numbers_of_others_are_left_alone(self) -> None:
        layer = thin(nn.Linear(32, 24))
        torch.manual_seed(3)
        wanted = torch.rand(4)
        torch.manual_seed(3)
        assert factorized(layer, 0.9, ANY) is not None
        assert torch.equal(torch.rand(4), wanted)

    def test_a_frozen_layer_stays_frozen(self) -> None:
        model = Joined(thin(nn.Linear(32, 24)), (32,)).eval()
        model.layer.requires_grad_(False)
        twin = compressed(model, {"layer": 0.9}, torch.zeros(2, 32))
        assert [name for name, each in twin.named_parameters() if each.requires_grad] == ["head.weight", "head.bias"]
        assert "layer.0.weight" in twin.state_dict()

    def test_a_pruned_layer_is_factorized_as_it_is_left(self) -> None:
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
        anatomy, schooling = dissect(model, torch.zeros(2, 64)), small_schooling()
        recipe = Recipe.of({"pruning.ratio.0": 0.5, "lowrank.energy.2": 0.3})
        StructuredPruning(PruningOptions()).reshape(model, recipe, anatomy, schooling)
        LowRank(LowRankOptions()).reshape(model, recipe, anatomy, schooling)
        assert model.get_parameter("2.0.weight").shape == (8, 32)
        assert model.get_parameter("2.1.weight").shape == (64, 8)
        assert model(torch.zeros(2, 64)).shape == (2, 5)


class TestTraining:
    def stepped(self, scale: float, attached: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return by how much one step of training moves a layer, and by how much its factors' product."""
        torch.manual_seed(0)
        whole = nn.Linear(32, 32, bias=False)
        whole.weight.data = of_rank(3, 32, 32) * scale
        inputs, wanted = torch.randn(64, 32), torch.randn(64, 32)
        pair = factorized(whole, 0.999, ANY)
        assert pair is not None
        if attached:
            soothe(list(pair))
        moves = []
        for model in (whole, pair):
            before = weight_of(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            torch.autograd.backward(functional.mse_loss(model(inputs), wanted))
            optimizer.step()
            moves.append(weight_of(model) - before)
        return moves[0], moves[1]

    @pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
    def test_the_product_moves_no_further_than_the_layer_would(self, scale: float) -> None:
        whole, product = self.stepped(scale, attached=True)
        assert float(product.norm()) <= 1.02 * float(whole.norm())
        further = self.stepped(scale, attached=False)[1]
        assert float(further.norm()) > 2 * float(product.norm())

    def test_small_factors_are_left_alone(self) -> None:
        slow, plain = (self.stepped(0.01, attached=attached)[1] for attached in (True, False))
        assert torch.equal(slow, plain)

    def test_only_factors_are_held_back(self) -> None:
        model = nn.Sequential(thin(nn.Linear(64, 64)), nn.Linear(64, 64), nn.Linear(64, 5))
        example = torch.randn(2, 64)
        factors = compressed(model, {"0": 0.9}, example)
        LowRank(LowRankOptions()).attach(factors, Recipe.of({}), dissect(model, example), small_schooling())
        held = {name for name, parameter in factors.named_parameters() if parameter._backward_hooks}
        assert held == {"0.0.weight", "0.1.weight"}


def weight_of(model: nn.Module) -> torch.Tensor:
    """Return the matrix that a layer, or a pair of factors, multiplies with."""
    parts = [part.get_parameter("weight").detach().clone() for part in model.modules() if isinstance(part, nn.Linear)]
    return parts[1] @ parts[0] if len(parts) == 2 else parts[0]


class Tied(nn.Module):
    """Its two inner layers have the same weights; its head reads those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(32, 32), nn.Linear(32, 32)
        self.two.weight = self.one.weight
        self.read = nn.Linear(32, 32)
        self.grouped = nn.Conv1d(32, 32, 1, groups=2)
        self.head = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.two(functional.relu(self.one(x))))
        x = self.grouped(self.read(x)[..., None])[..., 0] * self.read.weight.sum()
        return self.head(x)  # type: ignore[no-any-return]


class TestLeftOut:
    def test_each_has_its_reason(self) -> None:
        technique, anatomy = LowRank(LowRankOptions()), dissect(Tied().eval(), torch.zeros(2, 32))
        assert technique.left_out(anatomy) == {
            "one": "its weights are also those of two",
            "two": "its weights are also those of one",
            "read": "its parent reads its weights by name rather than calling it",
            "grouped": "has grouped channels",
        }
        assert [each.name for each in technique.dimensions(anatomy)] == ["lowrank.energy.head"]

    def test_layers_too_small_for_one_block_have_no_knob(self) -> None:
        anatomy = dissect(small_net(), small_batch(2)[0])
        technique = LowRank(LowRankOptions())
        assert technique.left_out(anatomy) == {
            "head": "is too small: factors of rank 5 would have more than 90% of its weights"
        }
        knobs = technique.dimensions(anatomy)
        assert [each.name for each in knobs] == [f"lowrank.energy.{name}" for name in ("stem", "conv1", "conv2")]
        assert knobs[0] == Range("lowrank.energy.stem", 0.7, 1.0, neutral=1.0, step=0.05)

    @pytest.mark.parametrize("kind", ["layer", "attention"])
    def test_a_transformer_still_runs_in_both_modes(self, kind: str) -> None:
        model = nn.Sequential(nn.Linear(16, 64), Attending(kind), nn.Linear(64, 64)).eval()
        example = torch.zeros(2, 7, 16)
        anatomy, technique = dissect(model, example), LowRank(LowRankOptions())
        # Neither what attention reads, nor what a fused layer reads, is offered.
        assert {each.name for each in technique.dimensions(anatomy)} == {"lowrank.energy.0", "lowrank.energy.2"}
        recipe = Recipe.of({each.name: 0.1 for each in technique.dimensions(anatomy)})
        technique.reshape(model, recipe, anatomy, small_schooling())
        assert isinstance(model[2], nn.Sequential)
        with torch.no_grad():
            assert model.eval()(example).shape == model.train()(example).shape == (2, 7, 64)


class Attending(nn.Module):
    """A transformer's layer, or its attention alone."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner: nn.Module = nn.MultiheadAttention(64, 4, batch_first=True)
        if kind == "layer":
            self.inner = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.inner, nn.MultiheadAttention):
            return self.inner(x, x, x)[0]  # type: ignore[no-any-return]
        return self.inner(x)  # type: ignore[no-any-return]


class TestLowering:
    def test_factors_are_quantized_in_the_artifact(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), thin(nn.Linear(96, 80)), nn.ReLU(), nn.Linear(80, 5)).eval()
        example = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        anatomy, schooling = dissect(model, example[:2]), small_schooling()
        twin, technique = copy.deepcopy(model), WeightQuantization(QuantizationOptions())
        recipe = Recipe.of({"lowrank.energy.2": 0.9, "quantization.bits.2": 4, "quantization.bits.0": 8})
        LowRank(LowRankOptions()).reshape(twin, recipe, anatomy, schooling)
        technique.attach(twin, recipe, anatomy, schooling)
        technique.bake(twin, recipe, anatomy)
        stored = technique.storage(twin, recipe, anatomy)
        assert set(stored) == {"0", "2.0", "2.1"}
        split = Split((example, torch.zeros(64)), "calibration")
        target = OnnxRuntimeCpu(TargetSettings(batch_size=64))
        artifact = target.lower(twin, LoweringRequest(Signature.single((64,)), stored, split), tmp_path)
        with artifact.unpacked() as path:
            kept = {tuple(item.dims): numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
            answer = target.open(path)(example.numpy())
        codes = [kept[shape] for shape in ((8, 96), (80, 8))]
        assert all(each.dtype == np.int8 and np.abs(each).max() == 7 for each in codes)
        with torch.no_grad():
            wanted = twin(example).numpy()
        assert np.corrcoef(answer.ravel(), wanted.ravel())[0, 1] > 0.99


class TestOptions:
    @pytest.mark.parametrize(
        "given", [{"energy": [0.9, 0.9]}, {"energy": [0.0, 0.5]}, {"gain": 1.0}, {"step": 0.0}, {"measured": True}]
    )
    def test_others_are_refused(self, given: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match=next(iter(given))):
            LowRankOptions.model_validate(given)

    def test_neighbouring_shares_that_do_not_meet_the_upper_end_stop_below_it(self) -> None:
        anatomy = dissect(small_net(), small_batch(2)[0])
        first = LowRank(LowRankOptions(energy=(0.5, 0.95), step=0.2)).dimensions(anatomy)[0]
        assert isinstance(first, Range)
        assert first.high == pytest.approx(0.9)
