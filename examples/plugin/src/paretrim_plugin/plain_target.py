"""A target: ONNX Runtime that runs the graph as it was exported, as a runtime without a graph optimizer would."""

from __future__ import annotations

from typing import Any

from paretrim.evaluators.onnx_target import OnnxRuntimeCpu


class OnnxRuntimePlain(OnnxRuntimeCpu):
    """ONNX Runtime on the CPU with its graph optimizations off."""

    takes = ()

    def _options(self) -> Any:
        import onnxruntime  # noqa: PLC0415 - this module is imported to look at the class

        options = super()._options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options
