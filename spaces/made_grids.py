"""Making the grid for some weights: of a family, for whole rows or for each block of a row."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from paretrim.evaluators.storage import BLOCK
from paretrim.spaces.weight_grids import (
    Asymmetric,
    Codebook,
    Family,
    Form,
    LearnedSteps,
    Noise,
    PowersOfTwo,
    Settled,
    Uniform,
    WeightGrid,
)


class InBlocks(WeightGrid):
    """A matrix of which each block of `BLOCK` weights in a row is on a grid as if it were an output channel.

    Source: Dettmers and Zettlemoyer, "The case for 4-bit precision: k-bit Inference Scaling Laws", 2023.
    """

    def __init__(self, form: Form, inner: WeightGrid) -> None:
        super().__init__(form)
        self.inner = inner

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights on the grid, shape as given."""
        rows, columns = weight.shape
        on_grid: torch.Tensor = self.inner(in_rows(weight)).view(rows, -1)[:, :columns]
        self.record.steps, self.record.lowest = self.inner.record.steps, self.inner.record.lowest
        return on_grid


def in_rows(matrix: torch.Tensor) -> torch.Tensor:
    """Return the blocks of a matrix as rows, ``(rows * blocks, BLOCK)``; what the last of a row lacks are zeros."""
    missing = -matrix.shape[1] % BLOCK
    return functional.pad(matrix, (0, missing)).reshape(-1, BLOCK)


def make(family: Family, form: Form, weight: torch.Tensor, seed: int) -> WeightGrid:
    """Return a grid of a family for a layer's weights.

    From 5 bits on, powers of two mean the uniform grid, for they only become denser around zero; at 8 bits a codebook
    does, for it would hold the whole 8-bit grid, and an asymmetric one, for half of its codes would be none of that grid.

    Args:
        family: Which.
        form: What it is like.
        weight: As the layer has them before training, shape ``(C, ...)``.
        seed: Of what is random.
    """
    weight = weight.detach()
    if form.steps == "block":
        return InBlocks(form, make(family, replace(form, steps="channel"), in_rows(weight), seed))
    if family == "lsq":
        return LearnedSteps(form, weight)
    if family == "asymmetric" and 2**form.bits - 1 <= form.peak:
        return Asymmetric(form)
    if family == "power_of_two" and form.bits <= 4:
        return PowersOfTwo(form, weight)
    if family == "codebook" and form.bits <= 7:
        return Codebook(form, weight)
    return Noise(form, seed) if family == "noise" else Uniform(form)


def settled(form: Form, steps: torch.Tensor) -> WeightGrid:
    """Return the grid of weights that are on it already, with the steps of its `Record`."""
    if form.steps == "block":
        return InBlocks(form, Settled(replace(form, steps="channel"), steps))
    return Settled(form, steps)
