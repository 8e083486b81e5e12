"""What the targets that run ONNX files have in common: how a file is made, and what is stored in it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.evaluators.weights import StoredTensor

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact


class OnnxFile(ABC):
    """Lowers a model to an ONNX file.

    The modules that lower a model are imported when one is lowered: a process that only serves or measures an
    artifact must not carry torch.
    """

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings
        # ONNX Runtime 1.32 reports to its makers from a thread of its own, which a timed process can do without.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Export, quantize, pack.

        Raises:
            LoweringError: The exporter or the quantizer cannot take this model.
        """
        from paretrim.evaluators.artifact import pack
        from paretrim.evaluators.onnx_export import export
        from paretrim.evaluators.onnx_quantize import quantize
        from paretrim.evaluators.parametrized import other_weights

        exported = export(model, request.inputs, other_weights(model, request.layers))
        with TemporaryDirectory(prefix="paretrim-") as scratch:
            sign, abilities = self.settings.activations, self.abilities()
            return pack(quantize(exported, model, request, sign, abilities, Path(scratch)), folder)

    @abstractmethod
    def abilities(self) -> Abilities:
        """Return what the runtime can do with compressed layers."""

    def empty(self, inputs: Signature, path: Path) -> None:
        """Write a model that returns its inputs."""
        import numpy as np
        from onnx import helper, save

        kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(part.dtype)) for part in inputs.parts]
        told = [(part.name, kind, ["batch", *part.shape]) for part, kind in zip(inputs.parts, kinds, strict=True)]
        graph = helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs.names],
            "empty",
            [helper.make_tensor_value_info(*each) for each in told],
            [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in told],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def stored_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """Return the initializers of an ONNX file."""
    import onnx
    from onnx.helper import tensor_dtype_to_np_dtype

    return tuple(
        StoredTensor(item.name, tensor_dtype_to_np_dtype(item.data_type).name, tuple(item.dims), _bytes(item))
        for item in onnx.load(str(path)).graph.initializer
    )


def _bytes(item: Any) -> int:
    from onnx import numpy_helper

    # Small constants may lie in typed fields; of types below a byte, only the raw field tells what is stored.
    return len(item.raw_data) or int(numpy_helper.to_array(item).nbytes)
