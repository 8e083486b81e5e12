"""Recurrent layers in the dependency graph: the channels that they read can be cut, their hidden units stay.

Torch-Pruning follows the gradients from operation to operation. Within a recurrent layer these run through all steps of
the sequence, and a graph of them tells nothing; so each is one operation while a model is traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

KEPT = "its channels are tied to the hidden units of a recurrent layer, which are not cut"


class HiddenUnitsError(Exception):
    """A cut would take hidden units of a recurrent layer."""


class RecurrentPruner:
    """Cuts what a recurrent layer reads, as Torch-Pruning's pruners do with what they are for."""

    def prune_in_channels(self, layer: nn.RNNBase, idxs: Sequence[int]) -> nn.RNNBase:
        """Cut columns of what the first of its layers reads the inputs with."""
        gone = set(idxs)
        kept = [channel for channel in range(layer.input_size) if channel not in gone]
        for name in readers(layer):
            weight = getattr(layer, name)
            cut = nn.Parameter(weight.detach()[:, kept].clone(), requires_grad=weight.requires_grad)
            cut.grad = None if weight.grad is None else weight.grad[:, kept].clone()
            setattr(layer, name, cut)
        layer.input_size = len(kept)
        return layer

    def prune_out_channels(self, layer: nn.RNNBase, idxs: Sequence[int]) -> nn.RNNBase:
        """Refuse it.

        Raises:
            HiddenUnitsError: Always.
        """
        raise HiddenUnitsError(KEPT)

    def get_in_channels(self, layer: nn.RNNBase) -> int:
        """Return how many channels it reads."""
        return layer.input_size

    def get_out_channels(self, layer: nn.RNNBase) -> int:
        """Return how many channels it gives."""
        return _width(layer)

    def get_in_channel_groups(self, layer: nn.RNNBase) -> int:
        """Return 1: channels are cut one by one."""
        return 1

    get_out_channel_groups = get_in_channel_groups


def readers(layer: nn.RNNBase) -> tuple[str, ...]:
    """Return the names of the weights with which a recurrent layer reads its inputs, shape ``(gates, inputs)``."""
    return ("weight_ih_l0", "weight_ih_l0_reverse") if layer.bidirectional else ("weight_ih_l0",)


def pruners(model: nn.Module) -> Mapping[type[nn.Module], RecurrentPruner]:
    """Return what cuts the recurrent layers of a model, by their types."""
    return {type(each): RecurrentPruner() for each in model.modules() if isinstance(each, nn.RNNBase)}


@contextmanager
def opaque(model: nn.Module) -> Iterator[None]:
    """Let each recurrent layer be one operation, which gives zeros."""
    layers = [each for each in model.modules() if isinstance(each, nn.RNNBase)]
    try:
        for each in layers:
            object.__setattr__(each, "forward", MethodType(_forward, each))
        yield
    finally:
        for each in layers:
            vars(each).pop("forward", None)


class _Step(torch.autograd.Function):
    """Zeros of another width than the inputs. No gradient is ever taken; the graph alone is looked at."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, width: int) -> torch.Tensor:  # noqa: ARG004
        return inputs.new_zeros((*inputs.shape[:-1], width))

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[None, None, None]:  # noqa: ARG004
        return None, None, None


def _forward(layer: nn.RNNBase, inputs: torch.Tensor, *_: Any) -> tuple[torch.Tensor, Any]:
    weight = next(layer.parameters())
    outputs: torch.Tensor = _Step.apply(inputs, weight, _width(layer))  # type: ignore[no-untyped-call]
    time = 1 if layer.batch_first and inputs.dim() == 3 else 0
    directions = 2 if layer.bidirectional else 1
    size = layer.proj_size or layer.hidden_size
    last = outputs.select(time, -1)[..., :size].unsqueeze(0)
    states = last.repeat(layer.num_layers * directions, *[1] * (last.dim() - 1))
    if not isinstance(layer, nn.LSTM):
        return outputs, states
    cells = states if size == layer.hidden_size else states.new_zeros((*states.shape[:-1], layer.hidden_size))
    return outputs, (states, cells)


def _width(layer: nn.RNNBase) -> int:
    return (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
