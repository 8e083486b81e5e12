"""What ONNX Runtime as a target refuses, and settings that a runtime would ignore."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from paretrim.errors import LoweringError, UsageError
from paretrim.evaluators import target as targets
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.storage import of_widths
from paretrim.evaluators.target import LoweringRequest, TargetAddress, TargetSettings
from paretrim.evaluators.testing import ONNX

from .helper_onnx import TARGET, request_of


class DataDependent(nn.Module):
    """A model whose way depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y if y.sum() > 0 else 2 * y


class PerSample(nn.Module):
    """A model that loops over the samples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.layer(x[i]) for i in range(x.shape[0])])


class TwoOutputs(nn.Module):
    """A model that gives back a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(x), x


class TestRefusals:
    @pytest.mark.parametrize(
        ("build", "reason"),
        [
            (DataDependent, "does not export to ONNX: .*data-dependent"),
            (TwoOutputs, "has 2 outputs; models with one output are supported"),
            (PerSample, "batch"),
        ],
    )
    def test_a_model_that_does_not_export_raises_lowering_error_in_one_line(
        self, build: type[nn.Module], reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(LoweringError, match=reason) as caught:
            TARGET.lower(build().eval(), LoweringRequest(Signature.single((8,))), tmp_path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
        assert list(tmp_path.iterdir()) == []

    def test_bits_without_calibration_samples_raise_lowering_error(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5)).eval()
        with pytest.raises(LoweringError, match="need calibration samples"):
            TARGET.lower(net, LoweringRequest(Signature.single((8,)), of_widths({"0": 8})), tmp_path)

    def test_a_layer_that_is_not_in_the_graph_raises_lowering_error(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Linear(8, 5)).eval()
        with pytest.raises(LoweringError, match="no node for the layers 1, 2; leave them at 'none' bits"):
            TARGET.lower(net, request_of((8,), {"0": 8, "1": 8, "2": 4}), tmp_path)

    def test_an_unknown_runtime_gets_a_suggestion(self) -> None:
        with pytest.raises(UsageError, match=r"unknown runtime 'onnxruntim'; allowed: .*did you mean 'onnxruntime'"):
            targets.find(TargetSettings(runtime="onnxruntim"))

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            (TargetSettings("openvino", optimization="basic"), "optimization 'basic' .* 'openvino' .*: onnxruntime"),
            (
                TargetSettings("torch-compile", activations="signed"),
                "activations 'signed' .* 'torch-compile' .*openvino",
            ),
        ],
    )
    def test_a_setting_that_a_runtime_would_ignore_is_refused(self, settings: TargetSettings, reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            targets.find(settings)

    def test_the_built_in_runtime_is_found(self) -> None:
        settings = replace(ONNX.settings, threads=2)
        assert targets.find(settings) == TargetAddress(ONNX.factory, settings)
