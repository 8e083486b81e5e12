"""Which layers a model runs, and what their outputs meet next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import LAYER_TYPES

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def layers_run(model: nn.Module, example: Inputs) -> dict[str, bool]:
    """Return the layers with weights that a model runs, and of each whether its output meets batch normalization.

    Args:
        model: Left as it is.
        example: Some samples.
    """
    met: dict[str, bool] = {}
    makers: dict[int, str] = {}
    alive: list[torch.Tensor] = []  # a freed tensor's identity would be given to another
    names = {module: name for name, module in model.named_modules()}

    def made(module: nn.Module, _: object, output: torch.Tensor) -> None:
        met.setdefault(names[module], False)
        makers[id(output)] = names[module]
        alive.append(output)

    def taken(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in makers:
            met[makers[id(inputs[0])]] = True

    handles = [each.register_forward_hook(made) for each in names if isinstance(each, LAYER_TYPES)]
    handles += [each.register_forward_pre_hook(taken) for each in names if isinstance(each, _NORMS)]
    try:
        with _evaluating(model), torch.no_grad():
            example.through(model)
    finally:
        for handle in handles:
            handle.remove()
    return met


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
