"""Rounding a layer's weights so that its outputs change least: what one weight loses is made up for by the next.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023. It needs some
samples, no labels and no gradients, so it suits models that are too large to be trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.inputs import Inputs

_DAMPING = 0.01
_COLUMNS = 128


def reconstructible(module: nn.Module) -> bool:
    """Tell whether a layer's outputs are a product of its weights with what it takes: linear layers, ungrouped convolutions."""
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, nn.Conv1d | nn.Conv2d) or isinstance(module.padding, str):
        return False
    return module.groups == 1 and module.padding_mode == "zeros"


def grams(model: nn.Module, layers: Sequence[str], batches: Iterable[Inputs]) -> dict[str, torch.Tensor]:
    """Return of each layer the mean of the outer products of what its weights are multiplied with.

    Args:
        model: In evaluation mode; it is run as it is.
        layers: Paths of layers that are `reconstructible`.
        batches: Samples.

    Returns:
        By path, shape ``(K, K)`` where the weights are ``(outputs, K)`` once they are flattened; layers that did not run are
        missing.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def look(name: str, module: nn.Module, given: torch.Tensor) -> None:
        rows = _rows(module, given)
        sums[name] = sums.get(name, torch.zeros(rows.shape[1], rows.shape[1])) + rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        return model.get_submodule(name).register_forward_pre_hook(lambda module, given: look(name, module, given[0]))

    handles = [hook(name) for name in layers]
    try:
        with torch.no_grad():
            for inputs in batches:
                inputs.through(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def _rows(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """Return what the flattened weights of a layer are multiplied with, shape ``(N, K)``."""
    if isinstance(module, nn.Linear):
        return given.reshape(-1, given.shape[-1]).float()
    conv = cast("nn.Conv1d | nn.Conv2d", module)
    sizes = (conv.kernel_size, conv.dilation, cast("tuple[int, ...]", conv.padding), conv.stride)
    if isinstance(conv, nn.Conv1d):  # an image of one row
        given = given.unsqueeze(2)
        kernel, dilation, padding, stride = (
            (neutral, *each) for each, neutral in zip(sizes, (1, 1, 0, 1), strict=True)
        )
    else:
        kernel, dilation, padding, stride = sizes
    columns = functional.unfold(given.float(), kernel, dilation, padding, stride)
    return columns.transpose(1, 2).flatten(0, 1)


def rounded(
    weight: torch.Tensor, steps: torch.Tensor, ends: tuple[torch.Tensor, torch.Tensor], gram: torch.Tensor
) -> torch.Tensor:
    """Return weights on a grid with which a layer's outputs differ little from what they were.

    Columns are rounded one after the other; the error of each is made up for by those that follow. Zeros stay zeros.

    Args:
        weight: Shape ``(outputs, ...)``.
        steps: Between neighbouring codes, as they broadcast to ``(outputs, K)``.
        ends: The lowest and the highest code, likewise.
        gram: Of `grams`.
    """
    left = weight.detach().flatten(1).double()
    absent, scale = left == 0, steps.detach().double().expand(left.shape)
    low, high = (each.double().expand(left.shape) for each in ends)
    factor = _factor(gram.double())
    settled = torch.zeros_like(left)
    for start in range(0, left.shape[1], _COLUMNS):
        stop = min(start + _COLUMNS, left.shape[1])
        errors = torch.zeros(len(left), stop - start, dtype=left.dtype)
        for at in range(start, stop):
            codes = torch.round(left[:, at] / scale[:, at]).clamp(low[:, at], high[:, at])
            settled[:, at] = torch.where(absent[:, at], 0.0, codes * scale[:, at])
            errors[:, at - start] = (left[:, at] - settled[:, at]) / factor[at, at]
            left[:, at:stop] -= errors[:, at - start, None] * factor[at, at:stop]
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return settled.to(weight.dtype).view_as(weight)


def _factor(gram: torch.Tensor) -> torch.Tensor:
    """Return the upper triangle whose square is the inverse of a damped matrix."""
    diagonal = gram.diagonal()
    damped = gram + torch.diag(torch.where(diagonal > 0, _DAMPING * diagonal.mean(), 1.0))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
