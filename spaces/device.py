"""Where models are trained and scored: the one place that moves them, and their batches, to a GPU and back.

A model is on the device only while it computes there. Everything else (cutting, factorizing, baking, lowering, caching) is
done on the CPU. Where the device is the CPU, nothing is moved.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from paretrim.errors import LostTrialError
from paretrim.evaluators import torch_cuda
from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.schooling import CPU, TrainingBatch

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Samples:
    """A batch as the model sees it: on its device, augmented; the positions stay on the CPU."""

    inputs: Inputs
    labels: torch.Tensor
    index: torch.Tensor


def chosen(name: DeviceName) -> torch.device:
    """Return the device of this process: the first GPU that it sees, or the CPU where that is wanted or it sees none."""
    if name == "cpu" or torch_cuda.missing():
        return CPU
    return torch.device("cuda", 0)


def described(device: torch.device) -> str:
    """Return what the last bits of sums depend on: the processor's capabilities, and the GPU's name."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if device.type == "cpu" else f"{capability} {torch.cuda.get_device_name(device)}"


def part_of(batch: TrainingBatch, start: int, stop: int) -> Samples:
    """Return some samples of a batch, where they are."""
    own = slice(start, stop)
    return Samples(batch.inputs[own], batch.labels[own], batch.index[own])


def moved(batch: TrainingBatch, device: torch.device) -> Samples:
    """Return a batch on a device."""
    return Samples(batch.inputs.to(device), batch.labels.to(device), batch.index)


def answers(model: nn.Module, batches: Iterable[TrainingBatch], device: torch.device) -> torch.Tensor:
    """Return what a model computes of batches on a device, on the CPU, shape ``(N, ...)``."""
    with on(device, model), torch.no_grad():
        return torch.cat([moved(batch, device).inputs.through(model).cpu() for batch in batches])


def settle(device: torch.device) -> None:
    """Wait for what was begun on a device: a measurement there, which work makes room for, must not meet it."""
    if device.type == "cuda":
        torch_cuda.wait(device)


@contextmanager
def on(device: torch.device, *models: nn.Module | None) -> Iterator[None]:
    """Hold models on a device for a while; then they are back where they were, and the device's memory is given back.

    Raises:
        LostTrialError: The device's memory is full; says what to do. What filled it is let go.
    """
    homes = ((model, _home(model)) for model in models if model is not None)
    away = [(model, home) for model, home in homes if home is not None and home != device]
    full = ""
    try:
        for model, _ in away:
            model.to(device)
        yield
    except RuntimeError as error:
        if not torch_cuda.out_of_memory(error):
            raise
        # The error would keep alive what the frames that it came through hold: all that filled the memory.
        traceback.clear_frames(error.__traceback__)
        full = str(error).strip().partition("\n")[0]
    finally:
        for model, home in away:
            model.to(home)
        if away or full:
            torch_cuda.give_back()
    if full:
        raise LostTrialError(
            f"the GPU's memory does not do for this trial ({full}); give a smaller space.recovery.batch_size, or let fewer "
            "trials share a GPU: a larger budget.trial_gpus, or a smaller budget.parallel"
        )


def _home(model: nn.Module) -> torch.device | None:
    """Return where a model is; None where it has nothing to move."""
    some: torch.Tensor | None = next(model.parameters(), None)
    some = next(model.buffers(), None) if some is None else some
    return None if some is None else some.device
