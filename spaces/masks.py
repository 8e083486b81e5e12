"""Masks over weights: which weights stay, how their number falls in training, and the module that holds a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Pattern:
    """Of every `block` weights in a row along the input dimension, `kept` stay.

    Attributes:
        kept: How many stay.
        block: Of how many.
    """

    kept: int
    block: int

    @classmethod
    def of(cls, text: str) -> Pattern | None:
        """Return the pattern that is written ``kept:block``, or None for ``unstructured``."""
        kept, colon, block = text.partition(":")
        return cls(int(kept), int(block)) if colon else None

    def early(self, ramp: float) -> Pattern:
        """Return the pattern in force when a share `ramp` of the way to this one lies behind."""
        dropped = int((self.block - self.kept) * ramp + 1e-9)
        return Pattern(self.block - dropped, self.block)


class Mask(nn.Module):
    """Multiplies weights by zeros and ones; the dense weights stay behind it.

    Attributes:
        kept: 1 where a weight stays, else 0; in the shape of the weights.
        updates: How many times it has been computed anew.
    """

    kept: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight))
        self.updates = 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights with zeros, shape as given."""
        return weight * self.kept

    def renew(self, kept: torch.Tensor, updates: int) -> None:
        """Take another mask, the one after so many updates."""
        self.kept.copy_(kept)
        self.updates = updates


def cubic(done: float, until: float) -> float:
    """Return which share of the zeros there are when a share `done` of the training lies behind.

    It rises fast at first, when many weights are redundant, and slowly at the end: 1 - (1 - done/until)^3.
    """
    return 1.0 if done >= until else 1.0 - (1.0 - done / until) ** 3


def largest(magnitudes: torch.Tensor, kept: int) -> torch.Tensor:
    """Return a mask, shape as given, of the `kept` largest entries; of equal ones, the first stay."""
    flat = magnitudes.flatten()
    if kept >= len(flat):
        return torch.ones_like(magnitudes)
    if kept <= 0:
        return torch.zeros_like(magnitudes)
    threshold = flat.kthvalue(len(flat) - kept + 1).values
    stays = flat > threshold
    equal = (flat == threshold).nonzero().flatten()
    stays[equal[: kept - int(stays.sum())]] = True
    return stays.to(magnitudes.dtype).view_as(magnitudes)


def largest_of_all(magnitudes: Sequence[torch.Tensor], amount: float, least: float) -> list[torch.Tensor]:
    """Return masks of several layers that rank their weights together.

    Args:
        magnitudes: Of each layer's weights, any shapes.
        amount: Share of all weights that becomes zero.
        least: Share of its weights that each layer keeps in any case; at least one weight.
    """
    joined = torch.cat([each.flatten() for each in magnitudes])
    found = largest(joined, len(joined) - round(len(joined) * amount)).split([each.numel() for each in magnitudes])
    masks = [mask.view_as(each) for mask, each in zip(found, magnitudes, strict=True)]
    floors = [max(1, round(each.numel() * least)) for each in magnitudes]
    return [
        mask if int(mask.sum()) >= floor else largest(each, floor)
        for mask, each, floor in zip(masks, magnitudes, floors, strict=True)
    ]


def largest_of_each(magnitudes: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Return a mask that keeps the largest of each block along the input dimension, which is the second.

    A last block that is not full stays as it is.

    Args:
        magnitudes: Of a layer's weights, shape ``(outputs, inputs, ...)``.
        pattern: How many of how many stay.
    """
    rows = magnitudes.movedim(1, -1)
    full = rows.shape[-1] // pattern.block * pattern.block
    mask = torch.ones_like(rows)
    blocks = rows[..., :full].reshape(-1, pattern.block)
    ranks = blocks.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(blocks).scatter_(1, ranks[:, : pattern.kept], 1.0)
    mask[..., :full] = kept.view(*rows.shape[:-1], full)
    return mask.movedim(-1, 1).contiguous()


def put_on(layer: nn.Module) -> None:
    """Let a layer compute with masked weights; the mask keeps all of them at first."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    parametrize.register_parametrization(layer, "weight", Mask(weight.detach()))


def mask_of(layer: nn.Module) -> Mask | None:
    """Return the mask on a layer's weights, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    return next((each for each in _chain(layer) if isinstance(each, Mask)), None)


def magnitudes_behind(layer: nn.Module) -> torch.Tensor:
    """Return the magnitudes of the weights that a layer's mask is put on, masked ones as well."""
    chain = _chain(layer)
    before = [chain.original] if chain.is_tensor else [getattr(chain, f"original{i}") for i in range(chain.ntensors)]
    with torch.no_grad():
        for each in chain:
            if isinstance(each, Mask):
                break
            before = [each(*before)]
    magnitudes: torch.Tensor = before[0].detach().abs()
    return magnitudes


def first_mask(model: nn.Module) -> Mask | None:
    """Return any mask of a model; all are computed anew together. This is quick, for each step asks it."""
    return next((each for each in model.modules() if isinstance(each, Mask)), None)


def take_off(layer: nn.Module) -> None:
    """Make a layer's zeros final; what else is put on its weights stays, where it comes after the mask."""
    chain = _chain(layer)
    alone = len(chain) == 1 or not chain.is_tensor or not isinstance(chain[0], Mask)
    if alone:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        return
    dense: torch.Tensor = chain.original
    with torch.no_grad():
        dense.mul_(chain[0].kept)  # type: ignore[arg-type]
    del chain[0]


def _chain(layer: nn.Module) -> parametrize.ParametrizationList:
    return layer.parametrizations["weight"]  # type: ignore[index, return-value]
