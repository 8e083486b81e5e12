"""Rounding layer by layer: the layers' outputs, and the model's, move less than with the nearest codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.quantization_options import EQUAL_STEPS
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.reconstruction import grams, reconstructible, rounded
from paretrim.spaces.rounding import largest
from paretrim.spaces.testing import small_batch, small_net, small_schooling

LEVELS = 3
ENDS = (torch.tensor(-3.0), torch.tensor(3.0))


def correlated(count: int, width: int) -> torch.Tensor:
    """Return samples whose features go together, as what flows between layers does."""
    source = torch.Generator().manual_seed(1)
    mixing = torch.randn(width // 4, width, generator=source)
    few = torch.randn(count, width // 4, generator=source)
    return few @ mixing + 0.1 * torch.randn(count, width, generator=source)


def smooth(*shape: int) -> torch.Tensor:
    """Return images or signals whose neighbours are alike, and whose channels go together."""
    source = torch.Generator().manual_seed(1)
    count, channels, *sizes = shape
    noise = torch.randn(count, 2, *(8 + size for size in sizes), generator=source)
    pooled = functional.avg_pool1d(noise, 9, 1) if len(sizes) == 1 else functional.avg_pool2d(noise, 9, 1)
    mixed = torch.einsum("nc...,cd->nd...", pooled, torch.randn(2, channels, generator=source))
    return mixed / mixed.std() + 0.1 * torch.randn(mixed.shape, generator=source)


LAYERS: dict[str, tuple[nn.Linear | nn.Conv1d | nn.Conv2d, torch.Tensor]] = {
    "linear": (nn.Linear(160, 24), correlated(256, 160)),
    "tokens": (nn.Linear(32, 24), correlated(512, 32).view(64, 8, 32)),
    "convolution": (nn.Conv2d(6, 16, 3, stride=2, padding=1), smooth(64, 6, 8, 8)),
    "signals": (nn.Conv1d(6, 16, 5, stride=2, padding=2, dilation=2), smooth(128, 6, 32)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layers_outputs_move_less_than_with_the_nearest_codes(kind: str) -> None:
    layer, samples = LAYERS[kind]
    model = nn.Sequential(layer)
    assert reconstructible(layer)
    steps = largest(layer.weight, shared=False).flatten(1) / LEVELS
    gram = grams(model, ["0"], [Inputs.of(part) for part in samples.split(16)])["0"]
    found = rounded(layer.weight, steps, ENDS, gram)
    scale = steps.view(-1, *[1] * (layer.weight.dim() - 1))
    codes = found / scale
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert codes.abs().max() <= LEVELS + 1e-4

    def error(weight: torch.Tensor) -> float:
        changed = torch.func.functional_call(layer, {"weight": weight}, (samples,))
        return float((changed - layer(samples)).square().mean().detach())

    nearest = torch.round(layer.weight / scale) * scale
    assert error(found) < 0.6 * error(nearest)


def test_zeros_stay_zeros_and_inputs_that_never_come_do_no_harm() -> None:
    layer, samples = nn.Linear(16, 8), correlated(64, 16)
    with torch.no_grad():
        layer.weight[:, ::2] = 0.0
    samples[:, 5] = 0.0
    gram = grams(layer, [""], [Inputs.of(samples)])[""]
    found = rounded(layer.weight, largest(layer.weight, shared=False) / LEVELS, ENDS, gram)
    assert torch.isfinite(found).all()
    assert not found[:, ::2].any()


def test_codes_stay_between_ends_that_are_not_alike() -> None:
    layer, samples = nn.Linear(160, 24), correlated(256, 160)
    gram = grams(layer, [""], [Inputs.of(samples)])[""]
    steps = largest(layer.weight, shared=False) / 7
    low = torch.linspace(-15.0, 0.0, 24).round().view(-1, 1)
    codes = (rounded(layer.weight, steps, (low, low + 15), gram) / steps).round()
    assert bool((codes >= low).all()) and bool((codes <= low + 15).all())
    assert int(codes.min()) < -7
    assert int(codes.max()) > 7


def test_layers_that_are_no_plain_product_are_left_out() -> None:
    others = (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Embedding(4, 4),
    )
    assert not any(map(reconstructible, others))


@pytest.mark.parametrize("family", EQUAL_STEPS)
def test_a_whole_model_moves_less(family: str) -> None:
    net, (inputs, _) = small_net(), small_batch(64)
    found = dissect(net, inputs[:2])

    def moved(training: str) -> float:
        technique, made = WeightQuantization(QuantizationOptions(weight_bits=(3,), ends_bits=3)), small_net()
        knobs = {each.name: 3 for each in technique.dimensions(found)}
        recipe = Recipe.of({**knobs, "quantization.training": training, "quantization.family": family})
        technique.attach(made, recipe, found, small_schooling())
        technique.refine(made, recipe, found, small_schooling())
        technique.bake(made, recipe, found)
        stored = technique.storage(made, recipe, found)
        weights = dict(made.named_parameters())
        for name, each in stored.items():
            assert each.steps is not None
            weight = weights[f"{name}.weight"]
            codes = weight / torch.tensor(each.steps).view(-1, *[1] * (weight.dim() - 1))
            assert torch.allclose(codes, codes.round(), atol=1e-3), name
        return float((made(inputs) - net(inputs)).square().mean().detach())

    assert moved("reconstruct") < 0.8 * moved("post")


def test_it_is_for_equal_steps() -> None:
    with pytest.raises(ValueError, match=r"families has codebook; leave one of the two out"):
        QuantizationOptions(families=("uniform", "codebook"), training=("reconstruct",))
    assert QuantizationOptions(families=("lsq",), training=("post", "reconstruct"))
