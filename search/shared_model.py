"""A model whose weights all processes of a node share: Ray's store holds them once, and each process maps them into its memory.

Nobody may write to them there: what trials do, they do to copies.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


class SharedModel:
    """A model on its way through Ray's store: a frame without weights, and the weights as arrays, which Ray does not copy.

    Buffers go with the frame, since a model may write to them whenever it runs.

    Args:
        model: On the CPU; it is not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = _plain(model)
        gaps: dict[int, Any] = {
            id(each): nn.Parameter(each.detach()[:0].clone(), each.requires_grad) for each in weights
        }
        self._frame = copy.deepcopy(model, gaps)
        self._types = [each.dtype for each in weights]
        self._arrays = [_array(each) for each in weights]

    def opened(self) -> nn.Module:
        """Return the model; its weights are those of the store."""
        for gap, array, kind in zip(_plain(self._frame), self._arrays, self._types, strict=True):
            gap.data = _tensor(array).view(kind)
        return self._frame


def _plain(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are ordinary tensors, those that several modules have in common once."""
    return [each for each in model.parameters() if type(each) is nn.Parameter and each.ndim]


def _array(weights: torch.Tensor) -> npt.NDArray[Any]:
    # NumPy has not all of torch's types.
    bits = {1: torch.uint8, 2: torch.int16}.get(weights.element_size())
    values = weights.detach().contiguous()
    return values.numpy() if bits is None else values.view(bits).numpy()


def _tensor(array: npt.NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
