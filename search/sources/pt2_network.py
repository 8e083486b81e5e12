"""A program as a torch module: its layers under their paths, and the steps between them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paretrim.search.sources.pt2_steps import Held, Here, Result, Step, function, names_in

Tensor = torch.Tensor


class Network(nn.Module):
    """Runs steps one after another.

    It is no `torch.fx.GraphModule`, which loses its hooks when it is copied, and runs Python code made from its graph when
    it is unpickled.

    Args:
        steps: In order; those that call layers name children of the module, which are put into it afterwards.
        inputs: What the model calls its inputs, and what the steps call them.
        outputs: What is given: a value, or a tuple or mapping of such.
    """

    def __init__(self, steps: Sequence[Step], inputs: Mapping[str, str], outputs: Any) -> None:
        super().__init__()
        self._steps, self._inputs, self._outputs = tuple(steps), dict(inputs), outputs
        self._over = _last_uses(self._steps, outputs)
        # Exporters ask for the names of the arguments, which differ from program to program.
        self.forward = functools.partial(Network._answer, self)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in inputs])  # type: ignore[attr-defined]

    def _answer(self, *positional: Tensor, **named: Tensor) -> Any:
        """Return the outputs for inputs by position or by name."""
        signature: inspect.Signature = self.forward.__signature__  # type: ignore[attr-defined]
        values = {self._inputs[n]: value for n, value in signature.bind(*positional, **named).arguments.items()}
        for step, over in zip(self._steps, self._over, strict=True):
            results = self._taken(step, values)
            given = (results,) if step.single else results or ()
            values |= {name: value for name, value in zip(step.results, given, strict=False) if name is not None}
            for name in over:
                del values[name]
        return self._filled(self._outputs, values)

    def _taken(self, step: Step, values: Mapping[str, Any]) -> Any:
        positional = [self._filled(each.value, values) for each in step.arguments if each.positional]
        named = {each.name: self._filled(each.value, values) for each in step.arguments if not each.positional}
        called = self.get_submodule(step.target) if step.layer else function(step.target)
        return called(*positional, **named)

    def _filled(self, value: Any, values: Mapping[str, Any]) -> Any:
        """Return a value in which results and tensors stand for their names."""
        if isinstance(value, Result):
            return values[value.name]
        if isinstance(value, Held):
            return _tensor(self, value.name)
        if isinstance(value, Here):
            return next((each.device for each in self.parameters()), torch.device("cpu"))
        if isinstance(value, Mapping):
            return {name: self._filled(part, values) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._filled(part, values) for part in value)
        return value

    def extra_repr(self) -> str:
        """Return the steps as a listing, by which one program is told from another."""
        lines = [f"inputs {self._inputs}", *(step.describe() for step in self._steps), f"outputs {self._outputs}"]
        return "\n".join(lines)


def _tensor(model: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    found = getattr(model.get_submodule(owner), name)
    assert isinstance(found, Tensor)  # noqa: S101 - for the type checker: only tensors are put there
    return found


def _last_uses(steps: Sequence[Step], outputs: Any) -> tuple[tuple[str, ...], ...]:
    """Return, for each step, the values that nothing needs after it, so that their memory is free again."""
    needed = set(_results_in(outputs))
    over: list[tuple[str, ...]] = []
    for step in reversed(steps):
        own = {name for name in step.results if name is not None}
        used = own | {name for each in step.arguments for name in names_in(each.value, Result)}
        over.append(tuple(sorted(used - needed)))
        needed = (needed | used) - own
    return tuple(reversed(over))


def _results_in(outputs: Any) -> list[str]:
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple) else None
    if parts is None:
        return list(names_in(outputs, Result))
    return [name for part in parts for name in _results_in(part)]
