"""ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, ClassVar

from paretrim.errors import ArtifactError
from paretrim.evaluators import cuda_driver
from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.onnx_target import OnnxRuntime
from paretrim.evaluators.target import Session

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


class OnnxRuntimeCuda(OnnxRuntime):
    """Runs ONNX files with ONNX Runtime's CUDA provider. Inputs and outputs are arrays in main memory."""

    provider: ClassVar[str] = "CUDAExecutionProvider"
    _before: int | None = None

    def abilities(self) -> Abilities:
        """Return that it takes graphs of integers, though the provider has few integer kernels."""
        return Abilities(integers=GRIDS, signs=True)

    def unavailable(self) -> str:
        """Return what is missing: the package, the provider in it, or a device."""
        import onnxruntime

        if self.provider not in onnxruntime.get_available_providers():
            # Both packages fill the same folder, so an extra could not bring the one beside the other.
            return (
                f"the installed onnxruntime {onnxruntime.__version__} has no {self.provider}; put onnxruntime-gpu in its "
                "place: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.24,<1.33'"
            )
        return cuda_driver.trouble()

    def open(self, path: Path) -> Session:
        """Load a model file.

        Raises:
            ArtifactError: The runtime does not load it, or would run it, or a layer of it, on the CPU.
        """
        reason = self.unavailable()
        if reason:
            raise ArtifactError(reason)
        if self._before is None:
            self._before = self._used_bytes()
        return super().open(path)

    def forget_device_peak(self) -> None:
        """Forget nothing: ONNX Runtime keeps what it took for as long as a session is open."""

    def device_peak(self) -> tuple[int, int] | None:
        """Return twice the bytes in use on the device, less those in use before the first session was opened.

        ONNX Runtime does not tell what of them is allocated. Other processes on the device must hold still.
        """
        taken = 0 if self._before is None else max(0, self._used_bytes() - self._before)
        return taken, taken

    def _used_bytes(self) -> int:
        return cuda_driver.used_bytes()

    def _options(self) -> Any:
        options = super()._options()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return options

    def _load(self, path: Path, options: Any) -> Any:
        import onnxruntime

        # It finds CUDA's libraries among the installed packages; what it prints must not mix with a measurement's answer.
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
        session = super()._load(path, options)
        if session.get_providers()[0] != self.provider:
            raise ArtifactError(
                f"ONNX Runtime fell back from {self.provider} to {session.get_providers()[0]}: CUDA or cuDNN of the "
                "version that it was built for does not load on this machine"
            )
        parts = session.get_provider_graph_assignment_info()
        strays = {node.op_type for part in parts if part.ep_name == "CPUExecutionProvider" for node in part.get_nodes()}
        if strays & _LAYERS:
            raise ArtifactError(
                f"ONNX Runtime would run layers ({', '.join(sorted(strays & _LAYERS))}) on the CPU, since "
                f"{self.provider} does not take them"
            )
        return session
