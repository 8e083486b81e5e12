"""Rounding weights to values: how large they are, which value is nearest, which scale loses least."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Below this a channel counts as all zeros.
_NOTHING = 1e-12


def largest(weight: torch.Tensor, shared: bool) -> torch.Tensor:
    """Return the largest magnitude of each channel, or of all, with as many dimensions; 1 where all are zero."""
    peak = weight.detach().abs().flatten(1).amax(dim=1)
    peak = peak.amax(dim=0, keepdim=True) if shared else peak
    return torch.where(peak > _NOTHING, peak, torch.ones_like(peak)).view(-1, *[1] * (weight.dim() - 1))


def span(weight: torch.Tensor, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the largest weight of each channel, or of all, and zero; 0 and 1 where all are zero.

    Both have as many dimensions as the weights.
    """
    rows = weight.detach().flatten(1)
    below, above = rows.amin(dim=1).clamp_max(0), rows.amax(dim=1).clamp_min(0)
    if shared:
        below, above = below.amin(dim=0, keepdim=True), above.amax(dim=0, keepdim=True)
    above = torch.where(above - below > _NOTHING, above, torch.ones_like(above))
    shape = (-1, *[1] * (weight.dim() - 1))
    return below.view(shape), above.view(shape)


def least_error(weight: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor], shared: bool) -> torch.Tensor:
    """Return the share from 0.05 to 1 at which rounding the weights loses least, of each channel or of all.

    Args:
        weight: Shape ``(C, ...)``.
        rounded: ``share -> weights``.
        shared: Whether there is one share for all channels.
    """
    best = torch.ones_like(largest(weight, shared))
    least = torch.full_like(best, torch.inf)
    for tried in torch.linspace(1.0, 0.05, 39).tolist():
        share = torch.full_like(best, tried)
        errors = (rounded(share) - weight).square().flatten(1).sum(dim=1)
        error = (errors.sum(dim=0, keepdim=True) if shared else errors).view_as(best)
        best, least = torch.where(error < least, share, best), torch.minimum(error, least)
    return best


def nearest(values: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
    """Return for each value the nearest of some that are sorted upwards."""
    found: torch.Tensor = ordered[torch.bucketize(values, midpoints(ordered))]
    return found


def midpoints(ordered: torch.Tensor) -> torch.Tensor:
    """Return what lies halfway between neighbours, shape ``(N - 1,)``."""
    return (ordered[1:] + ordered[:-1]) / 2
