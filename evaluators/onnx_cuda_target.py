"""ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from paretrim.errors import ArtifactError
from paretrim.evaluators import cuda_driver
from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.device_session import DeviceSession, opened
from paretrim.evaluators.onnx_resident import OnnxResident
from paretrim.evaluators.onnx_target import OnnxRuntime
from paretrim.evaluators.target import Session

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


class OnnxRuntimeCuda(OnnxRuntime):
    """Runs ONNX files with ONNX Runtime's CUDA provider. Inputs and outputs are arrays in main memory."""

    provider: ClassVar[str] = "CUDAExecutionProvider"
    device: ClassVar[str] = "cuda"
    # Of its arena's peak, ONNX Runtime tells nothing in Python; the arena gives nothing back while a session is open.
    account: ClassVar[str] = (
        "in use on the device by the driver's account, by all processes, less what was before the model was loaded: ONNX "
        "Runtime's arena, which keeps its peak, and what CUDA's libraries hold"
    )
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
        self._check()
        if self._before is None:
            self._before = self._used_bytes()
        return super().open(path)

    def open_timed(self, path: Path) -> DeviceSession:
        """Load a model file for the settings' batch size, as a CUDA graph where the runtime can capture it.

        Raises:
            ArtifactError: The runtime does not load it, or would run it, or a layer of it, on the CPU.
        """
        self._check()

        def resident(graph: bool) -> OnnxResident:
            stream = self._stream()
            # It takes no batch of another size, and its inputs and outputs must stay where they are.
            settings = {"user_compute_stream": str(stream.address), "enable_cuda_graph": "1" if graph else "0"}
            session = self._load(path, self._options(), settings)
            return OnnxResident(session, self.settings.batch_size, self.device, stream)

        return opened(lambda: resident(graph=False), lambda: resident(graph=True))

    def forget_device_peak(self) -> None:
        """Forget nothing: ONNX Runtime keeps what it took for as long as a session is open."""

    def device_peak(self) -> tuple[int, int] | None:
        """Return twice the bytes in use on the device, less those in use before the first session was opened.

        ONNX Runtime does not tell what of them is allocated. Other processes on the device must hold still.
        """
        taken = 0 if self._before is None else max(0, self._used_bytes() - self._before)
        return taken, taken

    def _check(self) -> None:
        reason = self.unavailable()
        if reason:
            raise ArtifactError(reason)

    def _used_bytes(self) -> int:
        return cuda_driver.used_bytes()

    def _stream(self) -> cuda_driver.Stream:
        return cuda_driver.Stream()

    def _options(self) -> Any:
        options = super()._options()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return options

    def _load(self, path: Path, options: Any, settings: Mapping[str, str] | None = None) -> Any:
        import onnxruntime

        # It finds CUDA's libraries among the installed packages; what it prints must not mix with a measurement's answer.
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
        session = super()._load(path, options, settings)
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
