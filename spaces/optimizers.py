"""The optimizers that recovery training may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn

from paretrim.errors import UsageError

OptimizerName = Literal["sgd", "adamw", "rmsprop"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)

RATES: dict[OptimizerName, tuple[float, float]] = {
    "sgd": (0.003, 0.1),
    "adamw": (0.0001, 0.003),
    "rmsprop": (0.0001, 0.003),
}
"""Peak learning rates that win accuracy back, by optimizer."""


def build(
    name: str, weights: Sequence[nn.Parameter], rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimizer.

    Args:
        name: ``sgd`` with Nesterov's momentum (Sutskever et al., "On the importance of initialization and momentum",
            2013), ``adamw`` (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) or ``rmsprop``
            (Tieleman and Hinton, 2012).
        weights: What it trains.
        rate: Learning rate.
        momentum: From 0 to below 1; for ``adamw`` how slowly it forgets the gradients' mean.
        weight_decay: On all weights.

    Raises:
        UsageError: No optimizer has that name.
    """
    if name == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
    if name == "adamw":
        return torch.optim.AdamW(weights, lr=rate, betas=(momentum, 0.999), weight_decay=weight_decay)
    if name == "rmsprop":
        return torch.optim.RMSprop(weights, lr=rate, momentum=momentum, weight_decay=weight_decay)
    raise UsageError(f"unknown optimizer '{name}'; allowed: {', '.join(OPTIMIZERS)}")
