"""Exported PyTorch programs, compiled by ``torch.compile``, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from paretrim.errors import ArtifactError
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.device_session import DeviceSession, check_alike, example_batch, opened
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import Array, LoweringRequest, MainMemory, Session, TargetSettings
from paretrim.evaluators.weights import StoredTensor, Weights

if TYPE_CHECKING:
    import torch

    from paretrim.evaluators.artifact import Artifact

    Compiled = Callable[..., torch.Tensor]


class TorchCompile:
    """Runs exported programs compiled by ``torch.compile``, on the device that a subclass names."""

    takes: ClassVar[tuple[str, ...]] = ()
    device: ClassVar[str]

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings

    def abilities(self) -> Abilities:
        """Return that nothing but 32-bit floats is computed with."""
        return Abilities()

    def lower(self, model: torch.nn.Module, request: LoweringRequest, folder: Path) -> Artifact:
        """Export and pack.

        Raises:
            LoweringError: The exporter cannot take this model.
        """
        from paretrim.evaluators.artifact import pack
        from paretrim.evaluators.torch_export import export

        return pack(export(model, request), folder, ".pt2")

    def open(self, path: Path) -> Session:
        """Load a program and compile it for the settings' batch size; the first call of another compiles it for all.

        Raises:
            ArtifactError: PyTorch does not load it.
        """
        import torch

        program = self._load(path)
        module = program.module()
        widen(module)
        fixed, free = (self._compiled(module, dynamic=dynamic) for dynamic in (False, True))

        names = _names(program)

        def call(*inputs: Array) -> Array:
            compiled = fixed if len(inputs[0]) == self.settings.batch_size else free
            given = [torch.from_numpy(each).to(self.device) for each in inputs]
            with torch.inference_mode(), _threads(self.settings.threads):
                outputs: Any = compiled(**dict(zip(names, given, strict=True))) if names else compiled(*given)
                outputs = outputs.cpu()  # waits for the device
            return outputs.numpy()  # type: ignore[no-any-return]

        try:
            call(*_zeros(program, self.settings.batch_size))
        except Exception as error:
            raise ArtifactError(f"torch.compile does not take the artifact: {type(error).__name__}: {error}") from error
        return call

    def weigh(self, path: Path) -> Weights:
        """Return the program's state, and the bytes that are left of it once the weights are widened.

        Raises:
            ArtifactError: PyTorch does not load it.
        """
        program = self._load(path)
        # Weights that two modules have in common are in the file once.
        stored = {tensor.data_ptr(): (name, tensor) for name, tensor in reversed(program.state_dict.items())}
        tensors = tuple(_stored(*each) for each in reversed(stored.values()))
        module = program.module()
        widen(module)
        held = sum(tensor.nbytes for tensor in module.state_dict().values())
        return Weights(tensors, held)

    def empty(self, inputs: Signature, path: Path) -> None:
        """Write a program that copies its inputs, which takes the compiler as much as the smallest model does."""
        import torch

        from paretrim.evaluators.torch_export import export

        graph = torch.fx.Graph()
        parts = [graph.placeholder(name) for name in inputs.names]
        graph.output(graph.call_method("clone", (parts[0],)))
        copying = torch.fx.GraphModule(torch.nn.Module(), graph)
        path.write_bytes(export(copying, LoweringRequest(inputs)))

    def version(self) -> str:
        """Return the runtime's name and version."""
        import torch

        return f"torch {torch.__version__}"

    def _compiled(self, module: torch.nn.Module, *, dynamic: bool) -> Compiled:
        import torch

        # Compiled in this process: helper processes would stand on the cores of whoever is timed.
        options: dict[str, Any] = {"compile_threads": 1, "cpp.threads": self.settings.threads}
        compiled: Compiled = torch.compile(module, dynamic=dynamic, options=options)
        return compiled

    def _load(self, path: Path) -> torch.export.ExportedProgram:
        import torch
        from torch.export.passes import move_to_device_pass

        from paretrim.evaluators.lowering import quiet

        try:
            with path.open("rb") as file, quiet():
                return move_to_device_pass(torch.export.load(file), self.device)
        except Exception as error:
            raise ArtifactError(f"PyTorch does not load the artifact: {type(error).__name__}: {error}") from error


class TorchCompileCpu(MainMemory, TorchCompile):
    """Runs compiled programs on the CPU."""

    device: ClassVar[str] = "cpu"

    def unavailable(self) -> str:
        """Return what the compiler lacks: a C++ compiler, or Python's headers."""
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"torch.compile needs a C++ compiler, and '{compiler}' is not found: install g++, or name one in CXX"
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.exists():
            return f"torch.compile needs Python's headers, and {header} does not exist: install python3-dev"
        return ""


class TorchCompileCuda(TorchCompile):
    """Runs compiled programs on an NVIDIA GPU. Inputs and outputs are arrays in main memory."""

    device: ClassVar[str] = "cuda"
    account: ClassVar[str] = "peak of PyTorch's allocator on the device"

    def unavailable(self) -> str:
        """Return what is missing: CUDA in this PyTorch, or a device."""
        from paretrim.evaluators import torch_cuda

        return torch_cuda.missing()

    def open_timed(self, path: Path) -> DeviceSession:
        """Load a program and compile it for the settings' batch size, as a CUDA graph where it can be captured.

        Raises:
            ArtifactError: PyTorch does not load it, or does not take it.
        """
        from paretrim.evaluators import torch_cuda
        from paretrim.evaluators.torch_resident import TorchResident

        program = self._load(path)
        module = program.module()
        widen(module)
        zeros = _zeros(program, self.settings.batch_size)
        example, other = (tuple(example_batch(z.shape, z.dtype, seed) for z in zeros) for seed in range(2))

        def plain() -> TorchResident:
            return TorchResident(self._compiled(module, dynamic=False), example, self.device, _names(program))

        def graph() -> TorchResident:
            resident = plain()
            expected, _ = resident.answer(*other), resident.answer(*example)
            resident.capture(torch_cuda.captured)
            # A graph that does nothing would leave the last answer in place.
            check_alike(resident.answer(*other), expected)
            return resident

        try:
            return opened(plain, graph)
        except Exception as error:
            raise ArtifactError(f"torch.compile does not take the artifact: {type(error).__name__}: {error}") from error

    def forget_device_peak(self) -> None:
        """Begin to look for the peak anew."""
        from paretrim.evaluators import torch_cuda

        torch_cuda.forget_peak()

    def device_peak(self) -> tuple[int, int] | None:
        """Return the most bytes of tensors, and the most that PyTorch's allocator took for them."""
        from paretrim.evaluators import torch_cuda

        return torch_cuda.peak()


def widen(module: torch.fx.GraphModule) -> None:
    """Compute once what depends on stored weights alone, and drop all that is not used after that."""
    from torch import ops
    from torch._inductor.constant_folding import constant_fold

    for node in list(module.graph.nodes):
        # Would keep the stored weights in use.
        if node.target is ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    constant_fold(module)
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name in module.state_dict().keys() - used:
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)


def _names(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Return what a program calls its inputs where it takes them by name."""
    return tuple(program.example_inputs[1])


def _zeros(program: torch.export.ExportedProgram, batch_size: int) -> list[Array]:
    """Return a batch of the inputs that a program takes."""
    by_position, by_name = program.example_inputs
    return [each.new_zeros((batch_size, *each.shape[1:])).cpu().numpy() for each in (*by_position, *by_name.values())]


def _stored(name: str, tensor: torch.Tensor) -> StoredTensor:
    return StoredTensor(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with some threads, and with as many as before afterwards: training goes on in the same process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
