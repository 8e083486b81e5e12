"""Gated linear units, whose halves are cut together: the dependency graph follows them once they are taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# A program of torch.export calls the operator itself.
_UNITS = (functional.glu, torch.ops.aten.glu.default)


class GatesTakenApart(TorchFunctionMode):
    """Computes gated linear units as a product of two halves while it is entered.

    As one operator (Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2017) such a unit gives half as
    many channels as it takes, of which nothing says which two made each. Of a split and a product that is known.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands for it."""
        return (_halves if func in _UNITS else func)(*args, **(kwargs or {}))


def _halves(input: torch.Tensor, dim: int = -1) -> torch.Tensor:
    given, gate = input.chunk(2, dim)
    return given * torch.sigmoid(gate)
