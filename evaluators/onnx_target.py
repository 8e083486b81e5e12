"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from paretrim.errors import ArtifactError
from paretrim.evaluators.target import Array, LoweringRequest, Session, TargetSettings

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact

INPUT, OUTPUT = "input", "output"


class OnnxRuntimeCpu:
    """Runs ONNX files with ONNX Runtime's CPU provider.

    The modules that lower a model are imported when one is lowered: a process that only serves or measures an
    artifact must not carry torch.
    """

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Export, quantize, pack.

        Raises:
            LoweringError: The exporter or the quantizer cannot take this model.
        """
        from paretrim.evaluators.artifact import pack
        from paretrim.evaluators.onnx_export import export
        from paretrim.evaluators.onnx_quantize import quantize

        exported = export(model, request.input_shape, request.input_dtype)
        with TemporaryDirectory(prefix="paretrim-") as scratch:
            return pack(quantize(exported, request, Path(scratch)), folder)

    def open(self, path: Path) -> Session:
        """Load a model file with the settings' number of threads.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime does not load the artifact: {error}") from error
        name = session.get_inputs()[0].name

        def call(inputs: Array) -> Array:
            outputs: Any = session.run(None, {name: inputs})
            return outputs[0]  # type: ignore[no-any-return]

        return call

    def empty(self, input_shape: tuple[int, ...], dtype: str, path: Path) -> None:
        """Write a model that returns its input."""
        import numpy as np
        from onnx import TensorProto, helper, save

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) if dtype else TensorProto.FLOAT
        shape = ["batch", *input_shape]
        graph = helper.make_graph(
            [helper.make_node("Identity", [INPUT], [OUTPUT])],
            "empty",
            [helper.make_tensor_value_info(INPUT, kind, shape)],
            [helper.make_tensor_value_info(OUTPUT, kind, shape)],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))

    def version(self) -> str:
        """Return the runtime's name and version."""
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"
