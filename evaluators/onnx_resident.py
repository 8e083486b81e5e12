"""An ONNX Runtime session that keeps its inputs and outputs on a device, to be timed there."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from paretrim.errors import ArtifactError
from paretrim.evaluators.device_session import example_batch
from paretrim.evaluators.target import Array

_ELEMENTS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Queue(Protocol):
    """A stream of the device: `paretrim.evaluators.cuda_driver.Stream`."""

    def mark(self) -> Any:
        """Return an event after all that was begun so far."""
        ...

    def wait(self) -> None:
        """Wait for all that was begun."""
        ...


class OnnxResident:
    """A session with a batch of one size on a device; see `paretrim.evaluators.device_session.Resident`.

    As in ONNX Runtime's notes on its CUDA provider: a graph is captured by the first run, and reads and writes the memory that
    was bound then.

    Args:
        session: Of one output, whose work goes to the stream.
        batch_size: Samples in a batch.
        device: What ONNX Runtime calls the device.
        stream: Where its work is done.
    """

    def __init__(self, session: Any, batch_size: int, device: str, stream: Queue) -> None:
        import onnxruntime  # noqa: PLC0415 - a target's runtime may not be installed

        self._session, self._stream = session, stream
        given, told = session.get_inputs(), session.get_outputs()[0]
        values = onnxruntime.OrtValue
        self.example = tuple(example_batch(_shape(each, batch_size), _element(each)) for each in given)
        self._inputs = [values.ortvalue_from_numpy(part.copy(), device, 0) for part in self.example]
        self._outputs = values.ortvalue_from_shape_and_type(_shape(told, batch_size), _element(told), device, 0)
        self._binding = session.io_binding()
        for each, place in zip(given, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(each.name, place)
        self._binding.bind_ortvalue_output(told.name, self._outputs)
        self._options = onnxruntime.RunOptions()
        # Else each run would wait for the device.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def fill(self, *batch: Array) -> None:
        """Copy a batch to where the model reads it."""
        for place, part in zip(self._inputs, batch, strict=True):
            place.update_inplace(part)

    def launch(self) -> None:
        """Begin to compute."""
        self._session.run_with_iobinding(self._binding, self._options)

    def fetch(self) -> Array:
        """Wait, and return a copy of the outputs."""
        self._stream.wait()
        return np.array(self._outputs.numpy())

    def mark(self) -> Any:
        """Return an event after all that was begun so far."""
        return self._stream.mark()

    def seconds(self, start: Any, end: Any) -> float:
        """Wait for the later of two events, and return the time between them."""
        return float(start.seconds_to(end))


def _shape(told: Any, batch_size: int) -> list[int]:
    """Return the shape of an input or output for a batch of one size."""
    if not told.shape or not all(isinstance(each, int) for each in told.shape[1:]):
        raise ArtifactError(
            f"'{told.name}' has the shape {told.shape}; all its dimensions but the first must be fixed for it to be timed on "
            "a device"
        )
    return [batch_size, *told.shape[1:]]


def _element(told: Any) -> Any:
    """Return numpy's type of the elements of an input or output."""
    if told.type not in _ELEMENTS:
        raise ArtifactError(f"'{told.name}' is a {told.type}; allowed: {', '.join(_ELEMENTS)}")
    return _ELEMENTS[told.type]
