"""Weights of integer layers that keep to 7 bits, for processors whose sums of products of bytes overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from paretrim.evaluators import overflow
from paretrim.evaluators.machine import describe
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.openvino_target import OpenVinoCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import REDUCED_PEAK, Storage
from paretrim.evaluators.target import Array, LoweringRequest, TargetSettings
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling

from .helper_quantize import graph_of

WIDTH = 64
INPUTS = np.ones((4, WIDTH), np.float32)
REDUCED = {
    name: kind(TargetSettings(name, reduce_range="always"))
    for name, kind in (("onnxruntime", OnnxRuntimeCpu), ("openvino", OpenVinoCpu))
}
CODES_OF_A_PAIR = 2 * 255 * REDUCED_PEAK


def greedy_net() -> nn.Sequential:
    """Return a network of which all weights lie on the outermost code, and all inputs too."""
    net = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(0.1 if name.endswith("weight") else 0.0)
    return net


def calibration() -> Split:
    return Split((np.concatenate([INPUTS, 0 * INPUTS]), np.zeros(8, np.int64)), "calibration")


def plain_request() -> LoweringRequest:
    return LoweringRequest(Signature.single((WIDTH,)), {"0": Storage(8), "2": Storage(8)}, calibration())


def codes(graph: object) -> list[Array]:
    items = (numpy_helper.to_array(item) for item in graph.initializer)  # type: ignore[attr-defined]
    return [each for each in items if each.dtype == np.int8 and each.ndim == 2]


def test_two_products_fit_into_16_bits() -> None:
    assert CODES_OF_A_PAIR <= np.iinfo(np.int16).max < CODES_OF_A_PAIR + 2 * 255


@pytest.mark.parametrize("runtime", REDUCED)
def test_answers_are_right_on_every_processor(runtime: str, tmp_path: Path) -> None:
    target, net = REDUCED[runtime], greedy_net()
    artifact = target.lower(net, plain_request(), tmp_path)
    assert [int(np.abs(each.astype(np.int16)).max()) for each in codes(graph_of(artifact))] == [REDUCED_PEAK] * 2
    with artifact.unpacked() as path:
        found = target.open(path)(INPUTS)
    expected = net(torch.from_numpy(INPUTS)).detach().numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_what_is_looked_at_is_this_machine() -> None:
    sets = describe().get("cpu_sets", "")
    if "avx2" not in sets:
        pytest.skip("not an x86 processor whose instruction sets the system tells")
    assert overflow.overflows() == ("vnni" not in sets)


@pytest.mark.parametrize(("overflows", "peak"), [(True, REDUCED_PEAK), (False, 127)])
def test_auto_heeds_it(overflows: bool, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "overflows", lambda: overflows)
    assert [overflow.peak(each) for each in ("auto", "always", "never")] == [peak, REDUCED_PEAK, 127]
    assert OnnxRuntimeCpu(TargetSettings()).abilities().peak == peak


@pytest.mark.parametrize("family", ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"])
@pytest.mark.parametrize("bits", [4, 8])
def test_grids_of_all_families_are_trained_within_it(family: str, bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, target = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), REDUCED["onnxruntime"]
    anatomy = dissect(net, torch.from_numpy(INPUTS), target.abilities())
    technique = WeightQuantization(QuantizationOptions())
    recipe = Recipe.of(
        {"quantization.bits.0": bits, "quantization.bits.2": bits, "quantization.family": family}, seed=1
    )
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.bake(net, recipe, anatomy)
    stored = technique.storage(net, recipe, anatomy)
    for name, each in stored.items():
        assert each.steps is not None
        weight = net.get_parameter(f"{name}.weight").detach()
        trained = weight / torch.tensor(each.steps).view(-1, 1)
        assert torch.allclose(trained, trained.round(), atol=1e-3)
        assert trained.abs().max() <= REDUCED_PEAK + 1e-3
        request = LoweringRequest(Signature.single((WIDTH,)), stored, calibration())
        in_file = codes(graph_of(target.lower(net, request, tmp_path)))
        assert any(np.array_equal(found, trained.round().numpy()) for found in in_file)  # nothing is rounded again
