"""Rewriting what the dependency graph cannot see through: attention in one piece, and shortcuts without parameters.

A rewritten model gives the same outputs. A model is only rewritten where something is cut from it; else it stays as it
came from its author.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.multihead import unfold
from paretrim.spaces.stiffness import replace

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    3: nn.Conv1d,
    4: nn.Conv2d,
    5: nn.Conv3d,
}
Calls = list[tuple[torch.Tensor, torch.Tensor]]


def rewrite(model: nn.Module, example: Inputs) -> None:
    """Make a model traceable in place, its outputs unchanged.

    Args:
        model: In evaluation mode.
        example: Some samples.
    """
    unfold(model)
    stand_in(model, example)


def stand_in(model: nn.Module, example: Inputs) -> None:
    """Put a frozen convolution, in place, where a module without parameters only picks and pads channels.

    Args:
        model: In evaluation mode.
        example: Some samples.
    """
    replaced: list[str] = []
    for name, calls in _resizing(model, example).items():
        if not any(name.startswith(f"{outer}.") for outer in replaced):
            found = selection(model.get_submodule(name), calls)
            if found is not None:
                replace(model, name, found)
                replaced.append(name)


def selection(module: nn.Module, calls: Calls) -> nn.Module | None:
    """Return a frozen 1x1 convolution that does what a module does, or None where there is none.

    There is one for what takes each n-th pixel of some channels and gives zeros for the others, as the shortcuts without
    parameters of He et al., "Deep Residual Learning for Image Recognition", 2016 (option A) do.

    Args:
        module: Without parameters.
        calls: The inputs and outputs ``(N, C, ...)`` that it had in the model.
    """
    generator = torch.Generator().manual_seed(0)
    found: nn.Module | None = None
    for shown, _ in calls:
        inputs = torch.randn(shown.shape, generator=generator).to(shown)
        with torch.no_grad():
            outputs = module(inputs)
        found = _fitted(inputs, outputs) if found is None else found
        if found is None:
            return None
        with torch.no_grad():
            answer = found(inputs)
        if answer.shape != outputs.shape or not torch.allclose(answer, outputs, rtol=1e-5, atol=1e-6):
            return None
    return found


@contextmanager
def frozen_kept(model: nn.Module) -> Iterator[None]:
    """Keep frozen parameters frozen through surgery, which makes new ones."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)


def _resizing(model: nn.Module, example: Inputs) -> dict[str, Calls]:
    """Return what modules without parameters gave where they changed the number of channels, the outer ones first."""
    names = {m: n for n, m in model.named_modules() if n and not [*m.parameters(), *m.buffers()]}
    calls: dict[nn.Module, Calls] = {}

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        given = inputs[0] if len(inputs) == 1 else None
        if not (isinstance(given, torch.Tensor) and isinstance(output, torch.Tensor)):
            return
        if given.dim() == output.dim() and given.dim() in _CONVOLUTIONS and given.shape[1] != output.shape[1]:
            calls.setdefault(module, []).append((given.detach(), output.detach()))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            example.through(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: calls[module] for module, name in names.items() if module in calls}


def _fitted(inputs: torch.Tensor, outputs: torch.Tensor) -> nn.Module | None:
    if outputs.dim() != inputs.dim() or min(outputs.shape) == 0:
        return None
    sizes = zip(inputs.shape[2:], outputs.shape[2:], strict=True)
    possible = [[s for s in range(1, before + 1) if -(-before // s) == after] for before, after in sizes]
    made = (_with_strides(inputs, outputs, strides) for strides in product(*possible))
    return next((each for each in made if each is not None), None)


def _with_strides(inputs: torch.Tensor, outputs: torch.Tensor, strides: tuple[int, ...]) -> nn.Module | None:
    picked = inputs[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
    weight = torch.zeros(outputs.shape[1], inputs.shape[1])
    for channel in range(outputs.shape[1]):
        same = (picked == outputs[:, channel : channel + 1]).transpose(0, 1).flatten(1).all(dim=1)
        if bool(same.any()):
            weight[channel, int(same.int().argmax())] = 1.0
        elif bool(outputs[:, channel].any()):
            return None
    kind = _CONVOLUTIONS[inputs.dim()]
    made = kind(inputs.shape[1], outputs.shape[1], 1, stride=strides, bias=False)  # type: ignore[arg-type]
    made.weight = nn.Parameter(weight.view_as(made.weight).to(inputs), requires_grad=False)
    setattr(made, "stands_in", True)  # noqa: B010 - tells it from the layers that learn
    return made.eval()
