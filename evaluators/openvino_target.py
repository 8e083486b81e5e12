"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, ClassVar

from paretrim.errors import ArtifactError
from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.onnx_file import OnnxFile, stored_tensors
from paretrim.evaluators.overflow import peak
from paretrim.evaluators.target import Array, MainMemory, Session
from paretrim.evaluators.weights import Weights


class OpenVinoCpu(MainMemory, OnnxFile):
    """Runs ONNX files with OpenVINO's CPU plugin."""

    takes: ClassVar[tuple[str, ...]] = ("activations", "reduce_range")

    def abilities(self) -> Abilities:
        """Return that all grids run as 8-bit integers."""
        return Abilities(integers=GRIDS, signs=True, peak=peak(self.settings.reduce_range))

    def unavailable(self) -> str:
        """Return how to install OpenVINO when it is not."""
        if find_spec("openvino") is None:
            return "the package openvino is not installed: pip install 'paretrim[openvino]'"
        return ""

    def open(self, path: Path) -> Session:
        """Load a model file with the settings' number of threads.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        request = self._compiled(path).create_infer_request()

        def call(*inputs: Array) -> Array:
            outputs: Any = request.infer(list(inputs), share_inputs=True)
            return outputs[0]  # type: ignore[no-any-return]

        return call

    def weigh(self, path: Path) -> Weights:
        """Return the file's initializers, and the bytes of the constants in the graph that OpenVINO makes of it.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        held = self.held(path)  # first, since it says what is wrong with a file that does not load
        return Weights(stored_tensors(path), held)

    def held(self, path: Path) -> int:
        """Return the bytes of the constants in the graph that OpenVINO makes of a file."""
        nodes = self._compiled(path).get_runtime_model().get_ordered_ops()
        return sum(node_bytes(node) for node in nodes if node.get_rt_info()["layerType"] == "Const")

    def read(self, core: Any, path: Path) -> Any:
        """Return the graph of a file."""
        # From bytes, since a name that does not end in .onnx would not be taken for one.
        return core.read_model(path.read_bytes())

    def version(self) -> str:
        """Return the runtime's name and version."""
        return f"openvino {openvino().__version__.partition('-')[0]}"

    def _compiled(self, path: Path) -> Any:
        options = {
            "INFERENCE_NUM_THREADS": self.settings.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Processors with bfloat16 would use it without being asked, and answer a little differently.
            "INFERENCE_PRECISION_HINT": "f32",
            # Whoever times a process has chosen its cores.
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino().Core()
        try:
            return core.compile_model(self.read(core, path), "CPU", options)
        except ArtifactError:
            raise
        except Exception as error:
            raise ArtifactError(f"OpenVINO does not load the artifact: {_first_line(error)}") from error


def openvino() -> Any:
    """Import OpenVINO without what would report the import to its makers, from a thread beside the timed calls."""
    if not {"openvino", "openvino_telemetry"} & sys.modules.keys():
        # OpenVINO has a stub for when that package is missing.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import_module("openvino")
        finally:
            del sys.modules["openvino_telemetry"]
    return import_module("openvino")


def node_bytes(node: Any) -> int:
    """Return the bytes of a constant."""
    bits: int = prod(node.get_output_shape(0)) * node.get_output_element_type(0).bitwidth
    return (bits + 7) // 8


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return lines[0] if lines else type(error).__name__
