"""What training changes in a model: its tensors, and what its modules count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

_NUMBERS = (bool, int, float)
_MODE = "training"


@dataclass(frozen=True)
class Snapshot:
    """The state of a model, buffers that are not saved with it included.

    Attributes:
        tensors: On the CPU, by name.
        numbers: By the name of a module, then of its attribute.
    """

    tensors: Mapping[str, torch.Tensor]
    numbers: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Return the state of a model, apart from it."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in _tensors(model)}
        return cls(tensors, {name: _numbers(module) for name, module in model.named_modules()})

    def give(self, model: nn.Module) -> None:
        """Put a model of the same structure into this state; whether it is in training mode is left as it is."""
        with torch.no_grad():
            for name, tensor in _tensors(model):
                tensor.copy_(self.tensors[name])
        for name, module in model.named_modules():
            vars(module).update(self.numbers[name])


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _numbers(module: nn.Module) -> dict[str, float]:
    return {name: each for name, each in vars(module).items() if type(each) in _NUMBERS and name != _MODE}
