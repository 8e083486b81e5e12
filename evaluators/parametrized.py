"""Weights that are computed from what is stored or trained: putting such a form on a module's weights, and taking it off.

Torch's parametrizations do that for one tensor of a module. A recurrent layer has several, and hands its library a list
of them that torch fills when the module is built: what is put on its weights must reach that list at each call.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

WEIGHT_ONLY: tuple[type[nn.Module], ...] = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LSTM,
    nn.GRU,
    nn.RNN,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Modules whose weights can be stored narrow, while they take and give floats."""


def weight_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's own weights; biases are none, nor what somebody else has put a form on."""
    return tuple(name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight"))


def weight_path(name: str, modules: Container[str]) -> str:
    """Return the path of the weights that a name in a request for storage stands for.

    Args:
        name: The module path of a layer, or the path of a weight itself.
        modules: The module paths of the model.
    """
    return f"{name}.weight" if name in modules else name


def other_weights(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Return those names of a request for storage that are paths of weights of a model, and not of layers."""
    weights = {path for path, _ in model.named_parameters(remove_duplicate=False)}
    return tuple(name for name in names if name in weights)


def owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that has a weight, and what it calls it."""
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def behind(module: nn.Module, name: str) -> torch.Tensor:
    """Return the tensor that a weight is computed from, or the weight itself where nothing is put on it."""
    if not parametrize.is_parametrized(module, name):
        return cast("torch.Tensor", getattr(module, name))
    chain = chain_of(module, name)
    return cast("torch.Tensor", chain.original if chain.is_tensor else chain.original0)


def chain_of(module: nn.Module, name: str) -> parametrize.ParametrizationList:
    """Return what is put on a weight, one after the other."""
    return cast("parametrize.ParametrizationList", cast("nn.ModuleDict", module.parametrizations)[name])


def put_on(module: nn.Module, name: str, form: nn.Module, *, unsafe: bool = False) -> None:
    """Let a module compute with what a form makes of one of its weights.

    Args:
        module: Any; a recurrent layer too.
        name: What the module calls the weight.
        form: Takes the weight, shape as it is, and gives one of the same shape.
        unsafe: Whether the stored type may differ, as in `parametrize.register_parametrization`.
    """
    parametrize.register_parametrization(module, name, form, unsafe=unsafe)
    if isinstance(module, nn.RNNBase) and _before not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_before)
        module.register_forward_hook(_after)
        # Torch looks whether weights have changed by computing each of them twice; here that is known.
        object.__setattr__(module, "_update_flat_weights", _nothing)
        _after(module)


def take_off(module: nn.Module, name: str, *, keep: bool = True) -> None:
    """Make what is put on a weight final, or with `keep` false give the module the weight behind it."""
    parametrize.remove_parametrizations(module, name, leave_parametrized=keep)
    if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
        for hooks, hook in ((module._forward_pre_hooks, _before), (module._forward_hooks, _after)):
            for key in [key for key, each in hooks.items() if each is hook]:
                del hooks[key]
        object.__delattr__(module, "_update_flat_weights")
        module._init_flat_weights()


# Functions of the module, which copies and pickles of a layer bring along as they are.


def _before(module: nn.Module, *_: object) -> None:
    """Fill a recurrent layer's list with its weights as they are now."""
    recurrent = cast("nn.RNNBase", module)
    recurrent._flat_weights = [getattr(recurrent, name) for name in recurrent._flat_weights_names]


def _after(module: nn.Module, *_: object) -> None:
    """Leave nothing in the list that was computed: it could not be copied, and would keep a graph of gradients alive."""
    recurrent = cast("nn.RNNBase", module)
    recurrent._flat_weights = [behind(recurrent, name) for name in recurrent._flat_weights_names]
    recurrent._flat_weight_refs = [None for _ in recurrent._flat_weights]


def _nothing() -> None:
    pass
