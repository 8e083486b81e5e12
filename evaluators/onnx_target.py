"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from paretrim.errors import ArtifactError
from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.onnx_file import OnnxFile, stored_tensors
from paretrim.evaluators.overflow import peak
from paretrim.evaluators.target import Array, MainMemory, Session
from paretrim.evaluators.weights import Weights

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}


class OnnxRuntime(OnnxFile):
    """Runs ONNX files with ONNX Runtime, on the provider that a subclass names."""

    takes: ClassVar[tuple[str, ...]] = ("activations", "optimization")
    provider: ClassVar[str]

    def open(self, path: Path) -> Session:
        """Load a model file with the settings' number of threads.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        session = self._load(path, self._options())
        names = [each.name for each in session.get_inputs()]

        def call(*inputs: Array) -> Array:
            outputs: Any = session.run(None, dict(zip(names, inputs, strict=True)))
            return outputs[0]  # type: ignore[no-any-return]

        return call

    def weigh(self, path: Path) -> Weights:
        """Return the file's initializers, and the bytes of those in the graph that the runtime makes of it.

        Raises:
            ArtifactError: The runtime does not load it.
        """
        with TemporaryDirectory(prefix="paretrim-") as folder:
            optimized, options = Path(folder) / "optimized.onnx", self._options()
            options.optimized_model_filepath = str(optimized)
            self._load(path, options)
            held = sum(tensor.bytes for tensor in stored_tensors(optimized))
        return Weights(stored_tensors(path), held)

    def version(self) -> str:
        """Return the runtime's name and version."""
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def _options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        level = _LEVELS[self.settings.optimization]
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        return options

    def _load(self, path: Path, options: Any, settings: Mapping[str, str] | None = None) -> Any:
        import onnxruntime

        try:
            providers = [(self.provider, dict(settings))] if settings else [self.provider]
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ArtifactError(f"ONNX Runtime does not load the artifact: {error}") from error


class OnnxRuntimeCpu(MainMemory, OnnxRuntime):
    """Runs ONNX files with ONNX Runtime's CPU provider."""

    takes: ClassVar[tuple[str, ...]] = (*OnnxRuntime.takes, "reduce_range")
    provider: ClassVar[str] = "CPUExecutionProvider"

    def abilities(self) -> Abilities:
        """Return that all grids run as 8-bit integers, and matrix products with narrow weights of 4 and 8 bits."""
        return Abilities(integers=GRIDS, weight_only=(4, 8), signs=True, peak=peak(self.settings.reduce_range))

    def unavailable(self) -> str:
        """Return an empty string: paretrim depends on ONNX Runtime."""
        return ""
