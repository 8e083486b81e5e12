"""Exported and compiled PyTorch programs as a target: what is in the file, and what it answers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from paretrim.errors import LoweringError
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import LoweringRequest, TargetAddress, TargetSettings
from paretrim.evaluators.testing import TargetContract, random_inputs
from paretrim.evaluators.torch_target import TorchCompileCpu
from paretrim.spaces.testing import small_net

FACTORY = "paretrim.evaluators.torch_target:TorchCompileCpu"
SHAPE = (3, 8, 8)
TARGET = TorchCompileCpu(TargetSettings("torch-compile"))


class TestResidualNet(TargetContract):
    input_shape: ClassVar[tuple[int, ...]] = SHAPE

    @pytest.fixture
    def address(self) -> TargetAddress:
        return TargetAddress(FACTORY, TargetSettings("torch-compile", batch_size=3))

    def model(self) -> nn.Module:
        return small_net()


class DataDependent(nn.Module):
    """A model whose way depends on its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else 2 * x


class PerSample(nn.Module):
    """A model that loops over the samples of a batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[i] + i for i in range(x.shape[0])])


class TwoOutputs(nn.Module):
    """A model that gives back a pair."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * x, x


def lowered(bits: int, folder: Path) -> Artifact:
    widths = {} if bits == 32 else dict.fromkeys(("stem", "conv1", "conv2", "head"), bits)
    return TARGET.lower(small_net(), LoweringRequest(Signature.single(SHAPE), of_widths(widths)), folder)


class TestFile:
    @pytest.mark.parametrize(("bits", "most"), [(32, 1e-6), (16, 1e-3), (8, 0.02), (4, 0.2)])
    def test_it_answers_without_paretrim(self, bits: int, most: float, tmp_path: Path) -> None:
        inputs = torch.from_numpy(random_inputs(5, SHAPE))
        module = torch.export.load(io.BytesIO(lowered(bits, tmp_path).read())).module()
        expected = small_net()(inputs).detach()
        assert float((module(inputs) - expected).abs().max() / expected.abs().max()) < most

    @pytest.mark.parametrize(("bits", "dtypes"), [(16, {"float16"}), (8, {"int8"}), (4, {"int8"})])
    def test_narrow_weights_are_stored_so_and_held_as_floats(self, bits: int, dtypes: set[str], tmp_path: Path) -> None:
        with lowered(bits, tmp_path).unpacked() as path:
            weights = TARGET.weigh(path)
        with lowered(32, tmp_path).unpacked() as path:
            floats = TARGET.weigh(path)
        assert {t.dtype for t in weights.tensors if t.shape == (24, 16, 3, 3)} == dtypes
        assert weights.stored_bytes < 0.6 * floats.stored_bytes
        assert weights.held_bytes == floats.held_bytes

    def test_4_bits_use_15_codes_and_pack_smaller(self, tmp_path: Path) -> None:
        state = torch.export.load(io.BytesIO(lowered(4, tmp_path).read())).state_dict
        codes = [tensor for tensor in state.values() if tensor.dtype == torch.int8]
        assert [int(each.abs().max()) for each in codes] == [7] * 4
        assert lowered(4, tmp_path).size_bytes < lowered(8, tmp_path).size_bytes < lowered(16, tmp_path).size_bytes

    def test_no_trace_of_the_source_is_in_it(self, tmp_path: Path) -> None:
        content = lowered(8, tmp_path).read()
        traces = (b".py", b"site-packages", os.fsencode(Path.cwd()), os.fsencode(Path(__file__).parent))
        assert [trace for trace in traces if trace in content] == []

    def test_another_process_gives_the_same_one(self, tmp_path: Path) -> None:
        code = "import sys; from pathlib import Path; from paretrim.evaluators.torch_export import export; "
        code += "from paretrim.evaluators.storage import of_widths; "
        code += "from paretrim.evaluators.signature import Signature; "
        code += (
            "from paretrim.evaluators.target import LoweringRequest; from paretrim.spaces.testing import small_net; "
        )
        code += "request = LoweringRequest(Signature.single((3, 8, 8)), "
        code += "of_widths(dict.fromkeys(('stem', 'conv1', 'conv2', 'head'), 8))); "
        code += "Path(sys.argv[1]).write_bytes(export(small_net(), request))"
        other = tmp_path / "other"
        subprocess.run([sys.executable, "-c", code, str(other)], env={**os.environ, "PYTHONHASHSEED": "1"}, check=True)
        assert other.read_bytes() == lowered(8, tmp_path).read()

    def test_weights_beyond_the_range_of_half_floats_stay_finite(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5)).eval()
        with torch.no_grad():
            net.get_parameter("0.weight")[0, 0] = 1e6
        artifact = TARGET.lower(net, LoweringRequest(Signature.single((8,)), of_widths({"0": 16})), tmp_path)
        module = torch.export.load(io.BytesIO(artifact.read())).module()
        assert bool(torch.isfinite(module(torch.ones(2, 8))).all())


def test_a_call_leaves_the_threads_of_training_alone(tmp_path: Path) -> None:
    if TARGET.unavailable():
        pytest.skip(TARGET.unavailable())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with lowered(32, tmp_path).unpacked() as path:
            TARGET.open(path)(random_inputs(1, SHAPE))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_empty_model_gives_back_tokens(tmp_path: Path) -> None:
    if TARGET.unavailable():
        pytest.skip(TARGET.unavailable())
    tokens = np.arange(8).reshape(2, 4)
    TARGET.empty(Signature.single((4,), "int64"), tmp_path / "empty")
    assert np.array_equal(TARGET.open(tmp_path / "empty")(tokens), tokens)


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (DataDependent(), r"does not export with torch\.export: GuardOnDataDependent"),
            (PerSample(), "fixed number of samples only"),
            (TwoOutputs(), "has 2 outputs; models with one output are supported"),
        ],
    )
    def test_a_model_that_does_not_export_raises_lowering_error_in_one_line(
        self, model: nn.Module, reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(LoweringError, match=reason) as caught:
            TARGET.lower(model, LoweringRequest(Signature.single((8,))), tmp_path)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_layer_without_weights_raises_lowering_error(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5), nn.ReLU()).eval()
        with pytest.raises(LoweringError, match="no weights for the layers 1, 2; leave them at 'none' bits"):
            TARGET.lower(net, LoweringRequest(Signature.single((8,)), of_widths({"0": 8, "1": 8, "2": 4})), tmp_path)

    def test_a_missing_compiler_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert "'no-such-compiler' is not found" in TARGET.unavailable()
