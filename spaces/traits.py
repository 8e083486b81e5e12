"""What kinds of modules a model is made of, as far as it says how to train it."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

Trait = Literal["attention", "batch_norm", "dropout", "layer_norm"]

_ATTENTION = (nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def traits_of(model: nn.Module, *, attends: bool = False) -> tuple[Trait, ...]:
    """Return what a model has of attention, batch normalization, dropout and layer normalization, in that order.

    Args:
        model: The model.
        attends: Whether it is known to have attentions of its author's own.
    """
    found: set[Trait] = {"attention"} if attends else set()
    for module in model.modules():
        # Libraries of language models bring layer normalizations of their own, which are known by their names.
        if type(module).__name__.endswith(("LayerNorm", "LayerNorm2d", "RMSNorm")):
            found.add("layer_norm")
        if isinstance(module, _ATTENTION):
            found.add("attention")
        if isinstance(module, _BatchNorm):
            found.add("batch_norm")
        if isinstance(module, _DropoutNd) or (isinstance(module, nn.MultiheadAttention) and module.dropout > 0):
            found.add("dropout")
    return tuple(sorted(found))


def wants_adaptive_steps(traits: tuple[Trait, ...]) -> bool:
    """Tell whether a model looks like a transformer.

    Plain gradient descent at the rates that suit a convolutional network ruins one.
    """
    return "attention" in traits or ("layer_norm" in traits and "batch_norm" not in traits)
