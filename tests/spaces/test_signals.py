"""A network of one-dimensional convolutions goes the whole way: cut, factorized, thinned out, and run as integers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.evaluators.testing import random_inputs
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.lowrank import LowRank
from paretrim.spaces.pruning import StructuredPruning
from paretrim.spaces.quantization import WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.sparsity import Sparsity, SparsityOptions
from paretrim.spaces.testing import small_schooling

SHAPE = (4, 32)
LAYERS = ("stem", "one", "two", "depthwise", "pointwise", "head")
TARGET = OnnxRuntimeCpu(TargetSettings())


class Signals(nn.Module):
    """Convolutions, batch normalization, pooling and a shortcut: ``(N, 4, 32)`` to logits ``(N, 6)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(4, 32, 5, padding=2, bias=False), nn.BatchNorm1d(32)
        self.one, self.norm_one = nn.Conv1d(32, 48, 3, padding=1), nn.BatchNorm1d(48)
        self.two, self.norm_two = nn.Conv1d(48, 32, 3, padding=1), nn.BatchNorm1d(32)
        self.depthwise = nn.Conv1d(32, 32, 3, padding=1, groups=32)
        self.pointwise, self.last_norm = nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64)
        self.pool, self.mean = nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.norm(self.stem(x))))
        y = functional.relu(self.norm_one(self.one(x)))
        x = functional.avg_pool1d(functional.relu(x + self.norm_two(self.two(y))), 2)
        x = functional.relu(self.last_norm(self.pointwise(self.depthwise(x))))
        logits: torch.Tensor = self.head(self.mean(x).flatten(1))
        return logits


@pytest.fixture(scope="module")
def net() -> Signals:
    torch.manual_seed(0)
    found = Signals()
    with torch.no_grad():
        for _ in range(3):
            found.train()(torch.randn(16, *SHAPE))  # running statistics that are not the identity
    return found.eval()


@pytest.fixture(scope="module")
def anatomy(net: Signals) -> Anatomy:
    return dissect(net, torch.zeros(2, *SHAPE))


def made(net: Signals, anatomy: Anatomy, values: dict[str, Value], folder: Path) -> tuple[nn.Module, float, int]:
    """Make a recipe's model; return it, how far its artifact answers from it, and the artifact's size."""
    model, recipe = copy.deepcopy(net), Recipe.of(values)
    bits = WeightQuantization(WeightQuantization.Options())
    techniques = (
        StructuredPruning(StructuredPruning.Options()),
        LowRank(LowRank.Options()),
        Sparsity(SparsityOptions(patterns=("unstructured", "2:4"))),
        bits,
    )
    for part in techniques:
        part.reshape(model, recipe, anatomy, small_schooling())
    for part in techniques:
        part.attach(model, recipe, anatomy, small_schooling())
    model.train()(torch.randn(8, *SHAPE)).sum().backward()
    for part in techniques:
        part.advance(model, recipe, anatomy, 1.0)
    for part in techniques:
        part.bake(model, recipe, anatomy)
    samples = Split((random_inputs(64, SHAPE, seed=1), np.zeros(64, np.int64)), "calibration")
    request = LoweringRequest(Signature.single(SHAPE), bits.storage(model.eval(), recipe, anatomy), samples)
    artifact, inputs = TARGET.lower(model, request, folder), random_inputs(16, SHAPE, seed=2)
    with artifact.unpacked() as path:
        answers = TARGET.open(path)(inputs)
    expected = model(torch.from_numpy(inputs)).detach().numpy()
    return model, float(np.abs(answers - expected).max() / np.abs(expected).max()), artifact.size_bytes


def test_its_channels_are_coupled_as_those_of_images(anatomy: Anatomy) -> None:
    assert [group.layers for group in anatomy.groups] == [("stem", "two", "depthwise"), ("one",), ("pointwise",)]


@pytest.mark.slow
def test_each_technique_and_all_together_come_through(net: Signals, anatomy: Anatomy, tmp_path: Path) -> None:
    cut: dict[str, Value] = {f"pruning.ratio.{name}": 0.5 for name, _ in anatomy.cut_groups()}
    thin: dict[str, Value] = {f"lowrank.energy.{name}": 0.7 for name, _ in anatomy.layer_groups()}
    sparse: dict[str, Value] = {f"sparsity.amount.{name}": 0.5 for name, _ in anatomy.layer_groups()}
    eight: dict[str, Value] = {f"quantization.bits.{name}": 8 for name, _ in anatomy.layer_groups()}
    _, gap, whole = made(net, anatomy, {}, tmp_path)
    assert gap < 1e-4

    model, gap, size = made(net, anatomy, cut, tmp_path)
    assert gap < 1e-4
    assert size < 0.5 * whole
    assert model.get_parameter("stem.weight").shape == (16, 4, 5)
    assert model.get_parameter("two.weight").shape == (16, 24, 3)
    assert model.get_parameter("depthwise.weight").shape == (16, 1, 3)

    model, gap, size = made(net, anatomy, thin, tmp_path)
    assert gap < 1e-4
    assert size < 0.9 * whole
    assert {type(each) for each in model.get_submodule("one").children()} == {nn.Conv1d}

    for pattern in ("unstructured", "2:4"):
        model, gap, size = made(net, anatomy, sparse | {"sparsity.pattern": pattern}, tmp_path)
        assert gap < 1e-4
        assert size < 0.8 * whole
        assert float((model.get_parameter("one.weight") == 0).float().mean()) == pytest.approx(0.5, abs=0.01)

    _, gap, size = made(net, anatomy, eight, tmp_path)
    assert gap < 0.1
    assert size < 0.5 * whole

    _, gap, least = made(net, anatomy, cut | thin | sparse | eight, tmp_path)
    assert gap < 0.1
    assert least < 0.7 * size


def test_eight_bits_run_as_integers(net: Signals, anatomy: Anatomy, tmp_path: Path) -> None:
    technique = WeightQuantization(WeightQuantization.Options())
    recipe = Recipe.of({f"quantization.bits.{name}": 8 for name in LAYERS})
    samples = Split((random_inputs(64, SHAPE, seed=1), np.zeros(64, np.int64)), "calibration")
    request = LoweringRequest(Signature.single(SHAPE), technique.storage(net, recipe, anatomy), samples)
    with TARGET.lower(net, request, tmp_path).unpacked() as path:
        options = TARGET._options()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        TARGET._load(path, options)
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node]
    assert kinds.count("QLinearConv") == 5
    assert not {"Conv", "FusedConv", "Gemm"} & set(kinds)
