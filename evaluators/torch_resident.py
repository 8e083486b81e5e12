"""A torch model that stays on a device, with its inputs and outputs, to be timed there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from paretrim.evaluators import torch_cuda
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.target import Array, Batch


class TorchResident:
    """A model on a device with a batch of one size; see `paretrim.evaluators.device_session.Resident`.

    Args:
        model: Computes outputs from inputs, both on the device, without waiting for it.
        example: A batch.
        device: Where the model is.
        names: What the model calls its inputs, where it takes them by name.
    """

    def __init__(
        self, model: Callable[..., torch.Tensor], example: Batch, device: str, names: tuple[str, ...] = ()
    ) -> None:
        self._model, self.example = model, example
        # Made where gradients are not known of, and written where they are not either.
        with torch.inference_mode():
            self._inputs = Inputs(tuple(torch.from_numpy(part).to(device, copy=True) for part in example), names)
            self._outputs = self._inputs.through(model)
        self._launch: Callable[[], object] = self._compute

    def capture(self, captured: Callable[[Callable[[], object]], Callable[[], object]]) -> None:
        """Let a captured graph take the model's place, as `torch_cuda.captured` makes it."""
        with torch.inference_mode():
            self._launch = captured(self._compute)

    def answer(self, *batch: Array) -> Array:
        """Answer a batch."""
        self.fill(*batch)
        self.launch()
        return self.fetch()

    def fill(self, *batch: Array) -> None:
        """Copy a batch to where the model reads it."""
        with torch.inference_mode():
            for place, part in zip(self._inputs.parts, batch, strict=True):
                place.copy_(torch.from_numpy(part))

    def launch(self) -> None:
        """Begin to compute."""
        with torch.inference_mode():
            self._launch()

    def fetch(self) -> Array:
        """Wait, and return a copy of the outputs."""
        copied: Array = self._outputs.to("cpu", copy=True).numpy()
        return copied

    def mark(self) -> Any:
        """Return an event after all that was begun so far."""
        return torch_cuda.mark()

    def seconds(self, start: Any, end: Any) -> float:
        """Wait for the later of two events, and return the time between them."""
        return torch_cuda.seconds(start, end)

    def _compute(self) -> None:
        self._outputs = self._inputs.through(self._model)
