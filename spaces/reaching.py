"""Which modules have no say in a model's output: a library's model often computes more than its user takes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs

UNUSED = "does not reach the model's output"


def unused(model: nn.Module, example: Inputs, names: Sequence[str]) -> frozenset[str]:
    """Return those of some modules that run and do not reach the model's output.

    Args:
        model: In evaluation mode; it is not changed.
        example: Some samples.
        names: Paths of modules that run on these.
    """
    doubtful = _without_gradient(model, example, names)
    with torch.no_grad():
        usual = example.through(model) if doubtful else None
    # A part of a model may run without gradients, so each is tried.
    return frozenset(name for name in doubtful if _moves_nothing(model, example, name, usual))


def _without_gradient(model: nn.Module, example: Inputs, names: Sequence[str]) -> list[str]:
    own = [list(model.get_submodule(name).parameters(recurse=False)) for name in names]
    frozen = [each for some in own for each in some if not each.requires_grad]
    try:
        for each in frozen:
            each.requires_grad_(True)
        with torch.enable_grad():
            outputs = example.through(model)
            if not isinstance(outputs, torch.Tensor) or not outputs.requires_grad:
                return list(names)
            every = [each for some in own for each in some]
            found = torch.autograd.grad(outputs.float().sum(), every, allow_unused=True)
    except RuntimeError:
        return list(names)
    finally:
        for each in frozen:
            each.requires_grad_(False)
    reached = {id(each) for each, gradient in zip(every, found, strict=True) if gradient is not None}
    return [name for name, some in zip(names, own, strict=True) if not any(id(each) in reached for each in some)]


def _moves_nothing(model: nn.Module, example: Inputs, name: str, usual: object) -> bool:
    """Tell whether the model answers the same when a module gives something else."""
    handle = model.get_submodule(name).register_forward_hook(lambda *given: _disturbed(given[-1]))
    try:
        with torch.no_grad():
            changed = example.through(model)
    except Exception:  # noqa: BLE001 - whoever reads what the module gives may refuse it: it has a say
        return False
    finally:
        handle.remove()
    return isinstance(usual, torch.Tensor) and isinstance(changed, torch.Tensor) and torch.equal(usual, changed)


def _disturbed(output: object) -> object:
    if isinstance(output, torch.Tensor):
        return output * 1.5 + 1.0 if output.is_floating_point() else output
    return tuple(map(_disturbed, output)) if isinstance(output, tuple) else output
