"""Whole blocks of a model that it can do without."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.stiffness import replace


@dataclass(frozen=True)
class Block:
    """A part of a model that can be removed.

    Attributes:
        name: Its module path.
        outputs: How many outputs it gives in a tuple, 0 for one that is in none.
    """

    name: str
    outputs: int = 0


class Passed(nn.Module):
    """Stands where a block was, and gives back its first input.

    Args:
        length: How many outputs the block gave, of which the others become None; 0 for a single one, not in a tuple.
    """

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.length = length

    def forward(self, first: torch.Tensor, *_: object, **__: object) -> torch.Tensor | tuple[torch.Tensor | None, ...]:
        """Return the first input."""
        return (first, *[None] * (self.length - 1)) if self.length else first


def find_blocks(model: nn.Module, example: Inputs, layers: Sequence[str]) -> tuple[tuple[Block, ...], dict[str, str]]:
    """Find the numbered blocks without which a model still runs and gives outputs of the same shape.

    Blocks are the children of `torch.nn.Sequential` and `torch.nn.ModuleList`, and those whose name ends with a number,
    that hold layers; of blocks within blocks, the outermost that is no mere sequence of others. Those that hold the first
    or the last layer stay.

    Args:
        model: In evaluation mode; it is not changed.
        example: Some samples.
        layers: The paths of its layers, in order of execution.

    Returns:
        The blocks, in the model's order, and the reasons why others stay.
    """
    found: list[Block] = []
    reasons: dict[str, str] = {}
    with torch.no_grad():
        shape = example.through(model).shape
    for name in _candidates(model, layers):
        held = [layer for layer in layers if layer.startswith(f"{name}.")]
        if layers[0] in held or layers[-1] in held:
            reasons[name] = "holds the model's first or last layer"
            continue
        outcome = _tried(model, example, name, shape)
        if isinstance(outcome, Block):
            found.append(outcome)
        else:
            reasons[name] = outcome
    return tuple(found), reasons


def drop(model: nn.Module, block: Block) -> None:
    """Remove a block in place, giving its input to what came after it."""
    replace(model, block.name, Passed(block.outputs))


def _candidates(model: nn.Module, layers: Sequence[str]) -> list[str]:
    modules = dict(model.named_modules())
    numbered = [n for n in modules if n and _is_block(modules, n) and any(each.startswith(f"{n}.") for each in layers)]
    chosen: list[str] = []
    for name in numbered:
        inner = [n for n in numbered if n.startswith(f"{name}.")]
        if not _is_sequence(modules, name, inner) and not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen.append(name)
    return chosen


def _is_sequence(modules: dict[str, nn.Module], name: str, inner: Sequence[str]) -> bool:
    """Tell whether a module is a mere sequence of blocks, or holds a list of them."""
    parents = [modules[each.rpartition(".")[0]] for each in inner]
    lists = [parent for parent in parents if isinstance(parent, nn.ModuleList)]
    return len(lists) > 1 or (isinstance(modules[name], nn.Sequential | nn.ModuleList) and len(inner) > 1)


def _is_block(modules: dict[str, nn.Module], name: str) -> bool:
    parent = modules[name.rpartition(".")[0]]
    return isinstance(parent, nn.Sequential | nn.ModuleList) or name[-1].isdigit()


def _tried(model: nn.Module, example: Inputs, name: str, shape: torch.Size) -> Block | str:
    """Return the block, or why it cannot be removed."""
    twin = copy.deepcopy(model)
    same: list[bool] = []
    lengths: set[int] = set()

    def note(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        given = inputs[0] if inputs else None
        tensors = isinstance(first, torch.Tensor) and isinstance(given, torch.Tensor)
        same.append(tensors and getattr(first, "shape", None) == getattr(given, "shape", None))
        lengths.add(len(output) if isinstance(output, tuple) else 0)

    handle = twin.get_submodule(name).register_forward_hook(note)
    try:
        with torch.no_grad():
            example.through(twin)
            handle.remove()
            if not same or not all(same) or len(lengths) > 1:
                return "gives another shape than it gets" if same else "is not called by itself"
            block = Block(name, lengths.pop())
            drop(twin, block)
            after = example.through(twin).shape
    except Exception as error:  # noqa: BLE001 - whatever a structure does without it, the block stays
        return f"the model does not run without it ({type(error).__name__})"
    return block if after == shape else "the model's output changes its shape without it"
