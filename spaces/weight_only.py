"""Modules of which little but the storage of their weights is changed: embeddings, recurrent layers, transposed convolutions.

They are no layers of the anatomy: every technique that cuts, factorizes, thins out or computes with integers goes
through those, and none of that is done to these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from paretrim.evaluators.parametrized import behind, weight_names


@dataclass(frozen=True)
class WeightOnly:
    """An embedding, a recurrent layer or a transposed convolution.

    Attributes:
        name: Its module path in the model.
        weights: The paths of its weights, biases left out: ``lstm.weight_ih_l0``.
        tied: The layer, or the earlier module of this kind, that has a weight in common with it; empty where none has.
    """

    name: str
    weights: tuple[str, ...]
    tied: str = ""


def find_weight_only(model: nn.Module, ran: Sequence[str], layers: Sequence[str]) -> tuple[WeightOnly, ...]:
    """Return the embeddings, recurrent layers and transposed convolutions of a model, whose weights can be stored narrow.

    An embedding with `max_norm` is none of them, since it changes its own weights at each call.

    Args:
        model: Left as it is.
        ran: Module paths of those that ran, in order of execution.
        layers: Module paths of the layers.
    """
    holders = {id(behind(model.get_submodule(name), "weight")): name for name in reversed(layers)}
    found = []
    for name in ran:
        module = model.get_submodule(name)
        own = weight_names(module) if getattr(module, "max_norm", None) is None else ()
        identities = [id(getattr(module, each)) for each in own]
        if own:
            tied = next((holders[each] for each in identities if each in holders), "")
            found.append(WeightOnly(name, tuple(f"{name}.{each}" for each in own), tied))
            holders = dict.fromkeys(identities, name) | holders
    return tuple(found)
