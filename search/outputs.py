"""Models that give several outputs, or one in a wrapping: which tensor of it counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from paretrim.errors import UserCodeError
from paretrim.evaluators.inputs import Inputs

# What classifiers and language models of the transformers library call it.
_USUAL = "logits"


def settle(model: nn.Module, inputs: Inputs, which: str | int | None, who: str) -> None:
    """See to it that a model gives one tensor from now on.

    A hook on the model picks it, so that the paths of its layers stay what they are, and what is exported has one output.

    Args:
        model: Of a user's; changed in place where it gives anything but a tensor.
        inputs: Some samples.
        which: Name or position of the output that counts; None for the only one, or for ``logits``.
        who: What the model is called in messages.

    Raises:
        UserCodeError: The model does not run on the inputs, or no output is found.
    """
    try:
        with torch.no_grad():
            answer = inputs.through(model)
    except Exception as error:
        raise UserCodeError(
            f"{who} does not run on inputs ({inputs.described()}): {type(error).__name__}: {error}; check that data and "
            "model belong together"
        ) from error
    if which is None and isinstance(answer, torch.Tensor):
        return
    _picked(answer, which, who)
    model.register_forward_hook(partial(_pick, which, who))


def _pick(which: str | int | None, who: str, _: nn.Module, __: Any, answer: Any) -> torch.Tensor:
    return _picked(answer, which, who)


def _picked(answer: Any, which: str | int | None, who: str) -> torch.Tensor:
    """Return the tensor that counts.

    Raises:
        UserCodeError: There is none, or it is not told which.
    """
    named = {str(name): part for name, part in answer.items()} if isinstance(answer, Mapping) else {}
    if not named and isinstance(answer, tuple | list):
        named = {str(position): part for position, part in enumerate(answer)}
    tensors = {name: part for name, part in named.items() if isinstance(part, torch.Tensor)}
    wanted = str(which) if which is not None else _USUAL if _USUAL in tensors else next(iter(tensors), "")
    if wanted not in tensors or (which is None and wanted != _USUAL and len(tensors) > 1):
        found = f"outputs {', '.join(tensors)}" if tensors else f"a {type(answer).__name__}"
        raise UserCodeError(
            f"{who} gives {found}; say with `output` in the job which of them counts, by its name or position, or return one "
            "tensor"
        )
    return tensors[wanted]
