"""Which layers can be replaced by several: those that their parents only call."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs

PLAIN: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_READ = "its parent reads its weights by name rather than calling it"


def rigid(model: nn.Module, example: Inputs, names: Sequence[str]) -> dict[str, str]:
    """Return the layers, by module path, that cannot be replaced by a sequence of layers, with the reason.

    Each one is really wrapped, and the model run, in evaluation and in training mode: a module such as
    ``nn.TransformerEncoderLayer`` reads the weights of its layers in one mode and calls them in the other.

    Args:
        model: In evaluation mode; it is not changed.
        example: Some samples.
        names: Module paths of the layers.
    """
    found = {name: reason for name in names if (reason := _own_kind(model.get_submodule(name)) or _tied(model, name))}
    left = [name for name in names if name not in found]
    if not _runs(model, example, left):
        found |= {name: _READ for name in left if not _runs(model, example, [name])}
    return found


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module under a path of a model, in the place of the one that stands there."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _own_kind(layer: nn.Module) -> str:
    if type(layer) not in PLAIN:
        return f"it is a {type(layer).__name__}, not a plain linear layer or convolution"
    return "has grouped channels" if getattr(layer, "groups", 1) > 1 else ""


def _tied(model: nn.Module, name: str) -> str:
    weight = model.get_submodule(name).weight
    owners = [path for path, each in model.named_parameters(remove_duplicate=False) if each is weight]
    others = ", ".join(path.removesuffix(".weight") for path in owners if path != f"{name}.weight")
    return f"its weights are also those of {others}" if others else ""


def _runs(model: nn.Module, example: Inputs, names: Sequence[str]) -> bool:
    """Tell whether a model runs with layers wrapped, in each of the modes in which it runs without that."""
    for training in (False, True):
        twin = copy.deepcopy(model).train(training)
        runs = not training or _answers(twin, example)
        for name in names:
            replace(twin, name, nn.Sequential(twin.get_submodule(name)))
        if runs and not _answers(twin, example):
            return False
    return True


def _answers(model: nn.Module, example: Inputs) -> bool:
    try:
        # Dropout would shift what others draw afterwards.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            example.through(model)
    except Exception:  # noqa: BLE001 - whatever the model's code does then, it does not run
        return False
    return True
