"""The families of grids: which values weights take, and what trains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.storage import Storage
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.flow import layers_run
from paretrim.spaces.made_grids import make
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallNet, TechniqueContract, small_batch, small_net, small_schooling
from paretrim.spaces.weight_grids import Family, Form, LearnedSteps, WeightGrid

from .helper_quantization import ABLE, LAYERS, recipe_of

FAMILIES: tuple[Family, ...] = ("uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise")


class TestContract(TechniqueContract):
    @pytest.fixture(params=[*FAMILIES, "all"])
    def technique(self, request: pytest.FixtureRequest) -> Technique:
        families = FAMILIES if request.param == "all" else (request.param,)
        several = {"granularity": ["channel", "tensor"], "training": ["aware", "post"]} if len(families) > 1 else {}
        return WeightQuantization(
            QuantizationOptions.model_validate({"families": families, "weight_bits": [2, 3, 4, 6, 8, None], **several})
        )


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0], ABLE)


def trained(recipe: Recipe, anatomy: Anatomy, steps: int = 3) -> tuple[SmallNet, dict[str, Storage]]:
    """Return a net that was trained for some steps and baked, and how it is stored."""
    technique, net, (inputs, labels) = WeightQuantization(QuantizationOptions()), small_net(), small_batch()
    technique.attach(net, recipe, anatomy, small_schooling())
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(inputs), labels))
        optimizer.step()
    technique.bake(net.eval(), recipe, anatomy)
    return net, dict(technique.storage(net, recipe, anatomy))


def weight_of(rows: int = 8, columns: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed))


def settled(family: Family, bits: int, weight: torch.Tensor, shared: bool = False) -> tuple[torch.Tensor, WeightGrid]:
    grid = make(family, Form(bits, "tensor" if shared else "channel"), weight, seed=0).eval()
    with torch.no_grad():
        return grid(weight), grid


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    @pytest.mark.parametrize("bits", [2, 3, 4, 8])
    def test_weights_are_whole_codes_of_at_most_127_after_training(
        self, family: Family, bits: int, anatomy: Anatomy
    ) -> None:
        net, stored = trained(recipe_of(bits, family=family), anatomy)
        for name in LAYERS:
            weight, steps = net.get_parameter(f"{name}.weight").detach().double(), stored[name].steps
            assert steps is not None
            codes = weight.flatten(1) / torch.tensor(steps, dtype=torch.float64).view(-1, 1)
            torch.testing.assert_close(codes, codes.round(), atol=2e-5, rtol=0)
            assert 0 < float(codes.abs().max()) < 127.5
            # Others have the same codes in all channels.
            for each in codes if family == "asymmetric" else [codes]:
                assert len(each.round().unique()) <= 2**bits

    def test_one_step_serves_a_whole_layer_on_demand(self, family: Family) -> None:
        weight = weight_of() * torch.linspace(0.1, 2.0, 8).view(-1, 1)
        found, grid = settled(family, 4, weight, shared=True)
        assert grid.record.steps is not None
        assert grid.record.steps.shape == (1,)
        codes = found / grid.record.steps
        torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)

    def test_more_bits_are_nearer_to_the_weights(self, family: Family) -> None:
        weight = weight_of()
        errors = [float((settled(family, bits, weight)[0] - weight).square().mean()) for bits in (2, 3, 4, 5, 8)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 2e-4

    def test_zeros_stay_zeros_and_gradients_reach_the_weights(self, family: Family) -> None:
        weight = weight_of()
        weight[:, ::3], weight[2] = 0.0, 0.0
        leaf = weight.clone().requires_grad_(True)
        grid = make(family, Form(3), weight, seed=0).train()
        found = grid(leaf)
        assert not found[weight == 0].any()
        found.square().sum().backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().sum() > 0

    def test_rounding_after_training_leaves_training_alone(self, family: Family, anatomy: Anatomy) -> None:
        technique, net = WeightQuantization(QuantizationOptions()), small_net()
        recipe = recipe_of(4, family=family, training="post")
        technique.attach(net, recipe, anatomy, small_schooling())
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), small_net().parameters(), strict=True))
        technique.bake(net, recipe, anatomy)
        assert len(net.conv1.weight[0].unique()) <= 16
        assert technique.storage(net, recipe, anatomy)["conv1"].steps is not None

    def test_a_copy_of_the_model_keeps_its_steps(self, family: Family, anatomy: Anatomy) -> None:
        net, stored = trained(recipe_of(4, family=family), anatomy)
        technique = WeightQuantization(QuantizationOptions())
        assert technique.storage(copy.deepcopy(net), recipe_of(4, family=family), anatomy) == stored


class TestFamilies:
    def test_learned_steps_begin_where_the_error_is_least(self) -> None:
        weight = weight_of()
        learned, uniform = (settled(family, 3, weight)[0] for family in ("lsq", "uniform"))
        assert (learned - weight).square().sum() < 0.8 * (uniform - weight).square().sum()

    def test_learned_steps_are_trained_with_the_model(self, anatomy: Anatomy) -> None:
        technique, net, (inputs, labels) = WeightQuantization(QuantizationOptions()), small_net(), small_batch()
        technique.attach(net, recipe_of(3, family="lsq"), anatomy, small_schooling())
        steps = [module.step for module in net.modules() if isinstance(module, LearnedSteps)]
        assert len(steps) == 4
        assert all(any(step is parameter for parameter in net.parameters()) for step in steps)
        torch.autograd.backward(functional.cross_entropy(net.train()(inputs), labels))
        assert all(step.grad is not None and step.grad.abs().sum() > 0 for step in steps)

    def test_the_gradient_of_a_step_is_that_of_the_paper(self) -> None:
        weight = torch.tensor([[0.3, -5.0, 1.2, 9.0]])
        grid = LearnedSteps(Form(3), weight)
        with torch.no_grad():
            grid.step.fill_(1.0)
            grid.get_buffer("least").fill_(0.1)
        grid(weight).sum().backward()
        # Rounded less given inside the grid, its end outside of it; scaled by 1 / sqrt(weights * levels).
        wanted = ((0 - 0.3) - 3 + (1 - 1.2) + 3) / (4 * 3) ** 0.5
        assert float(grid.step.grad) == pytest.approx(wanted, abs=1e-6)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("bits", "magnitudes"), [(2, {0, 1}), (3, {0, 1, 2, 4}), (4, {0, 1, 2, 4, 8, 16, 32, 64})])
    def test_powers_of_two_are_what_they_are_called(self, bits: int, magnitudes: set[int]) -> None:
        weight = weight_of(4, 4000)
        found, grid = settled("power_of_two", bits, weight)
        assert grid.record.steps is not None
        codes = (found / grid.record.steps.view(-1, 1)).round().abs()
        assert set(codes.int().flatten().tolist()) == magnitudes

    @pytest.mark.parametrize(("family", "bits"), [("power_of_two", 5), ("codebook", 8), ("asymmetric", 8)])
    def test_where_a_family_gains_nothing_it_is_the_uniform_one(self, family: Family, bits: int) -> None:
        assert torch.equal(settled(family, bits, weight_of())[0], settled("uniform", bits, weight_of())[0])

    @pytest.mark.parametrize("shared", [False, True])
    def test_an_asymmetric_grid_reaches_from_the_least_to_the_largest(self, shared: bool) -> None:
        weight = weight_of().abs() + torch.linspace(-2.0, 2.0, 8).view(-1, 1)
        weight[:, ::7] = 0.0
        found, grid = settled("asymmetric", 4, weight, shared)
        assert grid.record.steps is not None
        codes = (found / grid.record.steps.view(-1, 1)).round()
        low, high = grid.ends(weight.shape)
        assert bool((low <= 0).all()) and bool((high >= 0).all())
        assert bool((codes >= low).all()) and bool((codes <= high).all())
        assert not found[:, ::7].any()
        rows = [codes] if shared else list(codes)
        assert all(int(row.max() - row.min()) == 15 for row in rows)
        plain, _ = settled("uniform", 4, weight, shared)
        assert float((found - weight).square().mean()) < 0.7 * float((plain - weight).square().mean())

    def test_without_a_range_of_eight_bits_wide_asymmetric_codes_are_uniform_ones(self) -> None:
        weight = weight_of()
        for bits, alike in ((6, False), (7, True)):
            found = [make(family, Form(bits, peak=64), weight, 0)(weight) for family in ("asymmetric", "uniform")]
            assert torch.equal(*found) == alike

    def test_a_codebook_finds_the_values_that_are_there(self) -> None:
        choice = torch.randint(0, 4, (6, 300), generator=torch.Generator().manual_seed(0))
        weight = torch.tensor([-1.0, 0.0, 0.2, 0.5])[choice]
        found, grid = settled("codebook", 2, weight)
        torch.testing.assert_close(found, weight, atol=1 / 127, rtol=0)
        assert grid.get_buffer("centroids").tolist() == pytest.approx([-1.0, 0.0, 0.2, 0.5], abs=0.01)

    def test_a_codebook_follows_the_weights_in_training_only(self) -> None:
        grid = make("codebook", Form(3), weight_of(), seed=0)
        before = grid.get_buffer("centroids").clone()
        grid.eval()(weight_of(seed=1) ** 3)
        assert torch.equal(grid.get_buffer("centroids"), before)
        grid.train()(weight_of(seed=1) ** 3)
        assert not torch.equal(grid.get_buffer("centroids"), before)

    def test_the_values_of_a_codebook_move_at_every_eighth_step(self) -> None:
        grid = make("codebook", Form(3), weight_of(), seed=0).train()
        moved = []
        for step in range(17):
            before = grid.get_buffer("centroids").clone()
            grid(weight_of(seed=step) ** 3)
            moved.append(not torch.equal(grid.get_buffer("centroids"), before))
        assert [step for step, each in enumerate(moved) if each] == [0, 8, 16]

    def test_each_weight_gets_the_nearest_value_of_a_codebook(self) -> None:
        weight = weight_of()
        grid = make("codebook", Form(4, "tensor"), weight, seed=0).eval()
        codes = torch.round(grid.get_buffer("centroids") * 127)
        ends = (weight.abs().max() / 127 * codes).to(weight.dtype)
        nearest = (weight.flatten()[:, None] - ends).abs().min(dim=1).values
        assert torch.allclose((grid(weight) - weight).abs().flatten(), nearest, atol=1e-6)

    def test_a_weight_that_is_not_a_number_reaches_the_loss(self) -> None:
        weight = weight_of()
        grid = make("codebook", Form(4), weight, seed=0).train()
        weight[0] = torch.nan
        assert bool(torch.isnan(grid(weight)).any())

    def test_noise_rounds_about_half_of_the_weights_and_others_each_time(self) -> None:
        weight = weight_of()
        grid = make("noise", Form(2), weight, seed=0).train()
        first, second = grid(weight) != weight, grid(weight) != weight
        assert 0.4 < float(first.float().mean()) < 0.6
        assert not torch.equal(first, second)
        again = make("noise", Form(2), weight, seed=0).train()
        assert torch.equal(again(weight) != weight, first)

    def test_only_layers_without_normalization_share_a_step(self, anatomy: Anatomy) -> None:
        _, stored = trained(recipe_of(4, granularity="tensor"), anatomy)
        assert [name for name in LAYERS if not stored[name].per_channel] == ["head"]
        assert layers_run(small_net(), Inputs.of(small_batch()[0])) == {
            "stem": True,
            "conv1": True,
            "conv2": True,
            "head": False,
        }


class Selected(SmallNet):
    """A net into which another technique has put a fixed convolution, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.selection = nn.Conv2d(16, 16, 1, bias=False).requires_grad_(False)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.selection(functional.relu(self.norm(self.stem(x))))
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return self.head((x + y).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class TestLayersThatWerePutIn:
    @pytest.mark.parametrize(
        ("widths", "wanted"), [((4, 4, 8, 16), 8), ((4, 4, 16, 16), None), ((16, 16, 16, 16), None)]
    )
    def test_they_get_8_bits_among_integers(
        self, widths: tuple[int, ...], wanted: int | None, anatomy: Anatomy
    ) -> None:
        technique, net = WeightQuantization(QuantizationOptions()), Selected().eval()
        recipe = Recipe.of({f"quantization.bits.{n}": w for n, w in zip(LAYERS, widths, strict=True)})
        technique.attach(net, recipe, anatomy, small_schooling())
        assert parametrize.is_parametrized(net.selection, "weight") == (wanted is not None)
        technique.bake(net, recipe, anatomy)
        stored = {name: each.bits for name, each in technique.storage(net, recipe, anatomy).items()}
        assert stored.get("selection") == wanted
        assert "idle" not in stored
