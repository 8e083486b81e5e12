"""What a program does, step by step: operators of torch and layers, called on earlier results."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from paretrim.errors import SourceError

_OPERATORS = frozenset(
    {
        *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs", "getitem"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
    }
)
_SYMBOLIC = frozenset({"sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_ite", "sym_sum", "sym_sqrt"})
_TOUCHING_FILES = frozenset({"from_file"})


@dataclass(frozen=True)
class Result:
    """The result of an earlier step, or an input of the program."""

    name: str


@dataclass(frozen=True)
class Held:
    """A parameter, buffer or constant of the model, by its path."""

    name: str


@dataclass(frozen=True)
class Here:
    """The device on which the model is."""


@dataclass(frozen=True)
class Argument:
    """What an operator is given.

    Attributes:
        name: What the operator calls it.
        value: A number, a `Result`, a `Held`, or a list or tuple of such.
        positional: Whether it is given by its position.
    """

    name: str
    value: Any
    positional: bool = True


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        target: The operator, such as ``aten.relu.default``; the path of a layer where `layer` is true.
        arguments: What it is given.
        results: Names of its results; None for one that is not kept.
        single: Whether it gives one result rather than a tuple.
        scope: Path of the innermost module in which it stood.
        kind: Class of that module.
        layer: Whether it calls a layer of the model.
        rank: Number of dimensions of its first input, where that is a tensor.
    """

    target: str
    arguments: tuple[Argument, ...]
    results: tuple[str | None, ...]
    single: bool = True
    scope: str = ""
    kind: str = ""
    layer: bool = False
    rank: int = 0

    @property
    def name(self) -> str:
        """The operator without its namespace and overload; its own name where it is of no namespace."""
        return self.target.split(".")[1]

    def changes(self) -> bool:
        """Tell whether it changes what it is given, in place."""
        return not self.layer and self.target.startswith("aten.") and self.name.endswith("_") and self.name[-2:] != "__"

    def describe(self) -> str:
        """Return it as a line of a listing."""
        given = ", ".join(f"{each.name}={_text(each.value)}" for each in self.arguments)
        return f"{', '.join(str(name) for name in self.results)} = {self.target}({given})"


def names_in(value: Any, kind: type[Result] | type[Held]) -> Iterator[str]:
    """Yield the names of all results, or of all tensors held, in a value."""
    if isinstance(value, kind):
        yield value.name
    elif isinstance(value, list | tuple):
        for part in value:
            yield from names_in(part, kind)


def replaced(value: Any, known: Mapping[Any, Any]) -> Any:
    """Return a value with some of its results and tensors replaced by others."""
    if isinstance(value, list | tuple):
        return type(value)(replaced(part, known) for part in value)
    return known.get(value, value) if isinstance(value, Result | Held) else value


@functools.cache
def function(target: str) -> Callable[..., Any]:
    """Return an operator.

    Raises:
        SourceError: It is none of torch's own on tensors and numbers.
    """
    space, _, rest = target.partition(".")
    if space == "aten" and rest.partition(".")[0] not in _TOUCHING_FILES and rest.count(".") == 1:
        name, overload = rest.split(".")
        found = getattr(getattr(torch.ops.aten, name, None), overload, None)
        if isinstance(found, torch._ops.OpOverload):
            return found
    if space == "operator" and rest in _OPERATORS:
        return getattr(operator, rest)  # type: ignore[no-any-return]
    if space == "torch" and rest in _SYMBOLIC:
        return getattr(torch, rest)  # type: ignore[no-any-return]
    raise SourceError(
        f"the program calls '{target}', and only operators of torch itself (aten) are called; export a model without custom "
        "operators"
    )


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(part) for part in value)}]"
    return value.name if isinstance(value, Result | Held) else str(value)
