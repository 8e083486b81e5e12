"""Weights on a grid: which grid, which layers, and what gradients see of it."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from paretrim.evaluators.storage import Storage
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Choice
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallNet, TechniqueContract, small_batch, small_net, small_schooling
from paretrim.spaces.weight_grids import Form, Uniform

LAYERS = ("stem", "conv1", "conv2", "head")
BITS = st.sampled_from((4, 8))
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.floats(-100, 100, width=32))


class TestContract(TechniqueContract):
    @pytest.fixture(params=[(4, 8, "none"), (16,), (4,)], ids=str)
    def technique(self, request: pytest.FixtureRequest) -> Technique:
        return WeightQuantization(QuantizationOptions(weight_bits=request.param))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0])


def recipe_of(**bits: int | str) -> Recipe:
    return Recipe.of({f"quantization.bits.{name}": width for name, width in bits.items()})


def quantized(recipe: Recipe, anatomy: Anatomy) -> SmallNet:
    """Return a small net after attach and bake."""
    technique, net = WeightQuantization(QuantizationOptions()), small_net()
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.bake(net, recipe, anatomy)
    return net


def on_grid(weights: npt.NDArray[np.float32], bits: int) -> torch.Tensor:
    result: torch.Tensor = Uniform(Form(bits))(torch.from_numpy(weights))
    return result


class TestGrid:
    @given(WEIGHTS, BITS)
    def test_a_channel_has_no_more_values_than_its_grid(self, weights: npt.NDArray[np.float32], bits: int) -> None:
        levels = 2 ** (bits - 1) - 1
        for channel in on_grid(weights, bits):
            assert len(torch.unique(channel)) <= 2 * levels + 1

    @given(WEIGHTS, BITS)
    def test_values_are_whole_steps_from_zero(self, weights: npt.NDArray[np.float32], bits: int) -> None:
        rounded = on_grid(weights, bits).double().numpy()
        steps = np.abs(weights).max(axis=1, keepdims=True).astype(np.float64) / (2 ** (bits - 1) - 1)
        codes = np.divide(rounded, steps, out=np.zeros_like(rounded), where=steps > 1e-12)
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)

    @given(WEIGHTS, BITS)
    def test_the_largest_weight_of_a_channel_is_kept(self, weights: npt.NDArray[np.float32], bits: int) -> None:
        peaks = on_grid(weights, bits).abs().amax(dim=1).numpy()
        np.testing.assert_allclose(peaks, np.abs(weights).max(axis=1), rtol=1e-5, atol=1e-10)

    @given(WEIGHTS, BITS)
    def test_no_weight_moves_more_than_half_a_step(self, weights: npt.NDArray[np.float32], bits: int) -> None:
        moved = np.abs(on_grid(weights, bits).numpy() - weights)
        steps = np.abs(weights).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        assert (moved <= steps * 0.5001 + 1e-10).all()

    @given(WEIGHTS, BITS)
    def test_weights_on_the_grid_stay_there(self, weights: npt.NDArray[np.float32], bits: int) -> None:
        once = on_grid(weights, bits)
        torch.testing.assert_close(on_grid(once.numpy(), bits), once, rtol=1e-5, atol=1e-10)

    @given(WEIGHTS, BITS, st.integers(0, 2**31))
    def test_gradients_pass_straight_through(self, weights: npt.NDArray[np.float32], bits: int, seed: int) -> None:
        latent = torch.from_numpy(weights).requires_grad_(True)
        wanted = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        (Uniform(Form(bits))(latent) * wanted).sum().backward()
        assert latent.grad is not None
        torch.testing.assert_close(latent.grad, wanted)

    def test_the_grid_is_that_of_the_channel_not_of_the_layer(self) -> None:
        weights = np.array([[7.0, 1.0], [0.07, 0.01]], np.float32)
        np.testing.assert_allclose(on_grid(weights, 4).numpy(), weights, rtol=1e-5)


class TestModel:
    @pytest.mark.parametrize("bits", [4, 8])
    def test_weights_lie_on_the_grid_after_baking(self, bits: int, anatomy: Anatomy) -> None:
        net = quantized(recipe_of(**dict.fromkeys(LAYERS, bits)), anatomy)
        for name in LAYERS:
            weight, original = net.get_parameter(f"{name}.weight"), small_net().get_parameter(f"{name}.weight")
            assert all(len(torch.unique(channel)) <= 2**bits - 1 for channel in weight.detach())
            peaks, wanted = (w.detach().abs().flatten(1).amax(dim=1) for w in (weight, original))
            torch.testing.assert_close(peaks, wanted)

    def test_only_the_named_layers_change(self, anatomy: Anatomy) -> None:
        net = quantized(recipe_of(stem="none", conv1=4, head=16), anatomy)
        changed = {
            name for name, value in small_net().state_dict().items() if not torch.equal(value, net.state_dict()[name])
        }
        assert changed == {"conv1.weight"}

    def test_baking_leaves_plain_layers(self, anatomy: Anatomy) -> None:
        net = quantized(recipe_of(**dict.fromkeys(LAYERS, 4)), anatomy)
        assert net.state_dict().keys() == small_net().state_dict().keys()
        assert [type(module) for module in net.modules()] == [type(module) for module in small_net().modules()]

    def test_training_computes_on_the_grid_and_moves_the_weights_behind_it(self, anatomy: Anatomy) -> None:
        net, (inputs, labels) = small_net(), small_batch()
        WeightQuantization(QuantizationOptions()).attach(net, recipe_of(conv1=4), anatomy, small_schooling())
        before = [p.detach().clone() for p in net.conv1.parameters()]
        loss = functional.cross_entropy(net(inputs), labels)
        torch.autograd.backward(loss)
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        assert all(len(torch.unique(channel)) <= 15 for channel in net.conv1.weight.detach())
        assert not any(torch.equal(a, b) for a, b in zip(before, net.conv1.parameters(), strict=True))

    def test_outputs_at_8_bits_are_nearer_than_at_4(self, anatomy: Anatomy) -> None:
        inputs = small_batch()[0]
        wanted = small_net()(inputs)
        gaps = [
            float((quantized(recipe_of(conv1=b, conv2=b), anatomy)(inputs) - wanted).detach().abs().max())
            for b in (4, 8)
        ]
        assert 0 < gaps[1] < gaps[0]

    def test_a_model_without_groups_is_quantized_layer_by_layer(self) -> None:
        net = Detached().eval()
        found = dissect(net, torch.zeros(2, 8))
        assert found.groups == ()
        technique = WeightQuantization(QuantizationOptions(weight_bits=(8,)))
        names = [dimension.name for dimension in technique.dimensions(found)]
        assert names == ["quantization.bits.body", "quantization.bits.head"]
        twin, recipe = copy.deepcopy(net), recipe_of(body=8, head=8)
        technique.attach(twin, recipe, found, small_schooling())
        technique.bake(twin, recipe, found)
        assert twin(torch.ones(2, 8)).detach().numpy() == pytest.approx(
            net(torch.ones(2, 8)).detach().numpy(), abs=0.05
        )


class Detached(nn.Module):
    """No gradient leads to the first layer, so that coupled layers cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).detach())  # type: ignore[no-any-return]


class TestDimensions:
    def test_the_ends_never_get_fewer_than_8_bits(self, anatomy: Anatomy) -> None:
        choices = WeightQuantization(QuantizationOptions(weight_bits=(4, 8, "none"))).dimensions(anatomy)
        assert choices == (
            Choice("quantization.bits.stem", (8, "none"), neutral="none"),
            Choice("quantization.bits.conv1", (4, 8, "none"), neutral="none"),
            Choice("quantization.bits.conv2", (4, 8, "none"), neutral="none"),
            Choice("quantization.bits.head", (8, "none"), neutral="none"),
        )

    @given(st.lists(st.sampled_from((4, 8, 16, "none")), min_size=1, unique=True))
    def test_the_ends_are_safe_whatever_is_allowed(self, widths: list[int | str]) -> None:
        found = dissect(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).eval(), torch.zeros(2, 4))
        options = QuantizationOptions.model_validate({"weight_bits": widths})
        first, middle, last = WeightQuantization(options).dimensions(found)
        assert isinstance(middle, Choice)
        assert middle.values == tuple(widths)
        for end in (first, last):
            assert isinstance(end, Choice)
            assert end.values
            assert 4 not in end.values
            assert len(set(end.values)) == len(end.values)

    def test_the_anchors_are_plain_float16_and_plain_int8(self, anatomy: Anatomy) -> None:
        anchors = WeightQuantization(QuantizationOptions()).anchors(anatomy)
        names = [f"quantization.bits.{name}" for name in LAYERS]
        assert anchors == {"float16": dict.fromkeys(names, 16), "int8": dict.fromkeys(names, 8)}

    def test_bits_are_told_for_all_layers_of_a_group(self) -> None:
        net = nn.Sequential(nn.Linear(8, 8), Residual(), Residual(), nn.Linear(8, 3)).eval()
        found = dissect(net, torch.zeros(2, 8))
        technique = WeightQuantization(QuantizationOptions())
        shared = [name for name, layers in found.layer_groups() if len(layers) == 2]
        assert shared == ["1.two"]
        bits = technique.storage(net, Recipe.of({"quantization.bits.1.two": 4}), found)
        assert bits == {"1.two": Storage(4), "2.two": Storage(4)}


class Residual(nn.Module):
    """Two linear layers and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 16)
        self.two = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(functional.relu(self.one(x)))  # type: ignore[no-any-return]


class TestOptions:
    def test_null_means_none(self) -> None:
        assert QuantizationOptions.model_validate({"weight_bits": [4, None]}).weight_bits == (4, "none")

    @pytest.mark.parametrize("widths", [[], [1], [9], [32], ["8"], "none", [4.5]])
    def test_other_widths_are_refused(self, widths: object) -> None:
        with pytest.raises(ValidationError, match="weight_bits"):
            QuantizationOptions.model_validate({"weight_bits": widths})
