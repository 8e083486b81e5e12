"""Putting the weights of a model on grids for training, and making that final."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.parametrized import behind, chain_of, owner, put_on, take_off
from paretrim.spaces.made_grids import make, settled
from paretrim.spaces.reconstruction import grams, reconstructible, rounded
from paretrim.spaces.weight_grids import Family, Form, Record, WeightGrid

_RECORDS = "paretrim_grids"


def put_on_grids(model: nn.Module, forms: Mapping[str, Form], family: Family, seed: int) -> None:
    """Let a model compute with some weights on their grids, while gradients reach the weights themselves.

    Weights that several modules have in common, at the same bits, are on one grid.

    Args:
        model: Changed in place.
        forms: The form of each weight's grid, by the weight's path.
        family: Of the grids.
        seed: Of what is random.
    """
    made: dict[tuple[int, int], WeightGrid] = {}
    for position, (path, form) in enumerate(forms.items()):
        module, name = owner(model, path)
        held = (id(behind(module, name)), form.bits)
        if held not in made:
            weight = cast("torch.Tensor", getattr(module, name))
            # Far apart, since each draw takes the next seed.
            made[held] = make(family, form, weight, (seed * 1009 + position) * 1_000_003)
        grid = made[held]
        grid.train(module.training)
        put_on(module, name, grid)
        object.__setattr__(module, _RECORDS, _records(module) | {name: grid.record})


def reconstruct(
    model: nn.Module,
    forms: Mapping[str, Form],
    family: Family,
    batches: Iterable[Inputs],
) -> frozenset[str]:
    """Put weights of layers on grids so that the layers' outputs change little, and return the paths of those weights.

    Weights that several modules have in common are left alone: their modules take different inputs.

    Args:
        model: In evaluation mode; changed in place.
        forms: The form of each weight's grid, by the weight's path.
        family: Of the grids; one whose codes are equal steps.
        batches: Samples.
    """
    uses = Counter(id(each) for _, each in model.named_parameters(remove_duplicate=False))
    found = {path: owner(model, path) for path in forms}
    alone = {
        path.removesuffix(f".{name}"): path
        for path, (module, name) in found.items()
        if reconstructible(module) and uses[id(getattr(module, name))] == 1
    }
    for layer, gram in grams(model, list(alone), batches).items():
        module, name = found[alone[layer]]
        _reconstruct(module, name, gram, family, forms[alone[layer]])
    return frozenset(alone.values())


def _reconstruct(module: nn.Module, name: str, gram: torch.Tensor, family: Family, form: Form) -> None:
    weight = cast("nn.Parameter", getattr(module, name))
    grid = make(family, form, weight, 0).eval()
    with torch.no_grad():
        grid(weight)
        steps = cast("torch.Tensor", grid.record.steps)
        shape = weight.flatten(1).shape
        weight.copy_(rounded(weight, grid.record.of_each(steps, shape), grid.ends(shape), gram))
    held = settled(form, steps)
    put_on(module, name, held)
    object.__setattr__(module, _RECORDS, _records(module) | {name: held.record})


def settle(model: nn.Module) -> None:
    """Replace weights by those on their grids."""
    done: set[int] = set()
    for module in list(model.modules()):
        for name in _on_grids(module):
            chain = chain_of(module, name)
            chain.eval()  # what is random or moves in training is over
            held = id(behind(module, name))
            # What another module has in common with this one was settled there.
            take_off(module, name, keep=held not in done or len(chain) > 1)
            done.add(held)


def record_of(model: nn.Module, path: str) -> Record | None:
    """Return what the grid of a weight has done last, or None where there was no grid."""
    module, name = owner(model, path)
    return _records(module).get(name)


def _on_grids(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    chains = cast("nn.ModuleDict", module.parametrizations)
    return [name for name, chain in chains.items() if any(isinstance(each, WeightGrid) for each in chain.children())]


def _records(module: nn.Module) -> dict[str, Record]:
    return cast("dict[str, Record]", getattr(module, _RECORDS, {}))
