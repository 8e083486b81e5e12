"""Grids on which the weights of a layer are put while it is trained: the families, as parametrizations.

All of them end on the grid of 8-bit integers: a weight is a code of at most 127 either way (64 where the target says so) times
the step of its output channel, or of its block of 32, so that the target runs it as an integer, however many bits the family's
own values need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from paretrim.evaluators.storage import BLOCK, PEAK
from paretrim.spaces.rounding import largest, least_error, midpoints, nearest, span

# In how many steps of training the values of a codebook move once.
_REFIT = 8

Family = Literal["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"]
Steps = Literal["channel", "tensor", "block"]


@dataclass(frozen=True)
class Form:
    """What a grid is like, whatever its family.

    Attributes:
        bits: Per weight, 2 to 8.
        steps: Whether each output channel has a step of its own, all have one in common, or each block of `BLOCK` weights of a
            channel has one; blocks are for matrices.
        peak: The largest code that there may be.
    """

    bits: int
    steps: Steps = "channel"
    peak: int = PEAK


@dataclass
class Record:
    """What a grid has done last, kept at the layer, where it outlives the parametrization.

    Attributes:
        kind: What has a step of its own.
        steps: Distance between neighbouring codes: of each output channel, shape ``(C,)``, of the layer, ``(1,)``, or of each
            block of each channel, ``(C * blocks,)``.
        lowest: The lowest code of each of these, where they differ; None where the highest code has its like below zero.
    """

    kind: Steps
    steps: torch.Tensor | None = None
    lowest: torch.Tensor | None = None

    def of_each(self, values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return steps, or lowest codes, as they broadcast to weights of a shape ``(C, ...)``."""
        if self.kind == "block":
            return values.view(shape[0], -1).repeat_interleave(BLOCK, dim=1)[:, : shape[1]]
        return values.view(-1, *[1] * (len(shape) - 1))


class WeightGrid(nn.Module, ABC):
    """Puts weights on a grid.

    Args:
        form: What it is like.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.bits, self.shared = form.bits, form.steps == "tensor"
        self.top = form.peak
        self.levels = min(2 ** (form.bits - 1) - 1, form.peak)
        self.record = Record(form.steps)

    @abstractmethod
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights on the grid, shape as given."""

    def note(self, steps: torch.Tensor) -> None:
        """Keep the steps for whoever stores the weights."""
        self.record.steps = steps.detach().flatten()

    def ends(self, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lowest and the highest code, once the grid has been used, as they broadcast to weights of a shape."""
        if self.record.lowest is None:
            return torch.tensor(-float(self.levels)), torch.tensor(float(self.levels))
        lowest = self.record.of_each(self.record.lowest, shape)
        return lowest, lowest + (2**self.bits - 1)

    def peak(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the largest magnitude of each channel, or of the layer, as it broadcasts; 1 where all are zero."""
        return largest(weight, self.shared)


class StraightThrough(WeightGrid):
    """A grid that weights are placed on as it says; the gradient passes straight through (Bengio et al., 2013)."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights on the grid, shape as given."""
        with torch.no_grad():
            codes, steps = self.placed(weight)
            settled = codes * steps
        self.note(steps)
        # The difference is exactly zero, so that the sum is exactly on the grid.
        passed: torch.Tensor = settled + (weight - weight.detach())
        return passed

    @abstractmethod
    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes, shape as given, and steps, which broadcast to them."""


class Uniform(StraightThrough):
    """Codes from ``-(2**(bits - 1) - 1)`` up, the largest weight on the outermost.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018.
    """

    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and steps."""
        steps = self.peak(weight) / self.levels
        return torch.round(weight / steps), steps


class Asymmetric(StraightThrough):
    """``2**bits`` codes from the least weight, or zero, to the largest, so that none is lost where most lie on one side.

    Zero is a code, and weights that are zero stay so. Source: Jacob et al., as for `Uniform`, which has one code fewer.
    """

    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and steps, and keep the lowest codes."""
        below, above = span(weight, self.shared)
        most = 2**self.bits - 1
        steps = (above - below) / most
        lowest = torch.round(below / steps)
        self.record.lowest = lowest.flatten()
        return torch.round(weight / steps).clamp(lowest, lowest + most), steps


class Settled(StraightThrough):
    """Codes of steps that are given, for weights that are on their grid already."""

    def __init__(self, form: Form, steps: torch.Tensor) -> None:
        super().__init__(form)
        self.register_buffer("steps", steps, persistent=False)

    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and steps."""
        steps = self.get_buffer("steps").view(-1, *[1] * (weight.dim() - 1))
        return torch.round(weight / steps), steps


class Noise(Uniform):
    """In training, only a random half of the weights is on the grid: the others give unbiased gradients.

    Source: Fan et al., "Training with Quantization Noise for Extreme Model Compression", 2021.
    """

    def __init__(self, form: Form, seed: int) -> None:
        super().__init__(form)
        self.seed, self.draws = seed, 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights, shape as given: all on the grid unless in training."""
        settled = super().forward(weight)
        if not self.training:
            return settled
        source = torch.Generator(weight.device).manual_seed(self.seed + self.draws)
        self.draws += 1
        chosen = torch.rand(weight.shape, generator=source, device=weight.device) < 0.5
        return torch.where(chosen, settled, weight)


class LearnedSteps(WeightGrid):
    """Uniform codes whose steps are trained with the weights.

    Source: Esser et al., "Learned Step Size Quantization", 2020. The steps begin where the squared error is least.
    """

    def __init__(self, form: Form, weight: torch.Tensor) -> None:
        super().__init__(form)
        widest = self.peak(weight) / self.levels

        def rounded(share: torch.Tensor) -> torch.Tensor:
            steps = widest * share
            found: torch.Tensor = torch.round(weight / steps).clamp(-self.levels, self.levels) * steps
            return found

        best = widest * least_error(weight, rounded, self.shared)
        self.step = nn.Parameter(best.clone())
        # A step that training drives to zero or below would never come back.
        self.register_buffer("least", best / 10, persistent=False)
        self.rate = (self.levels * weight.numel() / best.numel()) ** -0.5

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights on the grid; gradients reach them within the grid's ends, and the steps."""
        bounded = torch.maximum(self.step, self.get_buffer("least"))
        scaled = bounded * self.rate
        steps = bounded.detach() + (scaled - scaled.detach())
        inside = (weight / steps).clamp(-self.levels, self.levels)
        codes = torch.round(inside).detach() + (inside - inside.detach())
        self.note(bounded)
        settled: torch.Tensor = codes * steps
        return settled


class PowersOfTwo(StraightThrough):
    """Zero and ``scale * 2**-k``: 2 bits have one magnitude, 3 bits three, 4 bits seven. More bits gain nothing.

    Source: Miyashita et al., "Convolutional Neural Networks using Logarithmic Data Representation", 2016. The scale is
    the share of a channel's peak that has the least squared error before training, and follows the peak in training.
    """

    def __init__(self, form: Form, weight: torch.Tensor) -> None:
        super().__init__(form)
        magnitudes = [2.0**k for k in range(2 ** (form.bits - 1) - 1)]
        self.highest = magnitudes[-1]  # 64 at most, which the reduced range has too
        values = [0.0, *magnitudes]
        self.register_buffer("values", torch.tensor(values, dtype=weight.dtype), persistent=False)
        peak = self.peak(weight)

        def rounded(share: torch.Tensor) -> torch.Tensor:
            steps = peak * share / self.highest
            return self._codes(weight / steps) * steps

        self.register_buffer("share", least_error(weight, rounded, self.shared), persistent=False)

    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and steps."""
        steps = self.peak(weight) * self.get_buffer("share") / self.highest
        return self._codes(weight / steps), steps

    def _codes(self, scaled: torch.Tensor) -> torch.Tensor:
        codes: torch.Tensor = nearest(scaled.abs(), self.get_buffer("values")) * scaled.sign()
        return codes


class Codebook(StraightThrough):
    """``2**bits`` values for a whole layer, zero among them, relative to each channel's peak and found by k-means.

    Source: Han et al., "Deep Compression", 2016. Values lie on the 8-bit grid; in training each moves to the mean of
    the weights that it stands for, at every eighth step, since that costs more than all else here.
    """

    def __init__(self, form: Form, weight: torch.Tensor) -> None:
        super().__init__(form)
        self.draws = 0
        relative = weight / self.peak(weight)
        spread = torch.linspace(float(relative.min()), float(relative.max()), 2**form.bits).to(weight)
        spread[spread.abs().argmin()] = 0.0  # what is pruned stays zero
        self.register_buffer("centroids", spread, persistent=False)
        for _ in range(20):
            self._refit(relative)
            self._fill(relative.flatten())

    def placed(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes and steps; in training, move the values first."""
        peak = self.peak(weight)
        relative = weight / peak
        if self.training:
            if self.draws % _REFIT == 0:
                self._refit(relative)
            self.draws += 1
        top = self.top
        codes = torch.round(self.get_buffer("centroids") * top)
        # What lies halfway between two codes is a whole or a half, so that a table of halves holds the nearest of all.
        halves = torch.arange(-2 * top, 2 * top + 1, device=codes.device)
        table = nearest(halves / 2 + 0.25, codes)
        # A weight that is not a number must not end as an index beyond the table: the loss will tell.
        place = (torch.floor(relative * (2 * top)) + 2 * top).long().clamp(0, 4 * top)
        return table[place].to(weight.dtype), peak / top

    def _refit(self, relative: torch.Tensor) -> None:
        centroids = self.get_buffer("centroids")
        flat = relative.flatten()
        member = torch.bucketize(flat, midpoints(centroids))
        count = torch.bincount(member, minlength=len(centroids)).to(flat)
        total = torch.bincount(member, weights=flat, minlength=len(centroids)).to(flat)
        moved = torch.where((count > 0) & (centroids != 0), total / count.clamp_min(1), centroids)
        centroids.copy_(moved.sort().values)

    def _fill(self, relative: torch.Tensor) -> None:
        """Move one value that stands for no weight to the weight that is farthest from its own."""
        centroids = self.get_buffer("centroids")
        member = torch.bucketize(relative, midpoints(centroids))
        empty = (torch.bincount(member, minlength=len(centroids)) == 0) & (centroids != 0)
        distance = (relative - centroids[member]).abs()
        if empty.any() and distance.max() > 0.5 / self.top:
            centroids[empty.nonzero()[0]] = relative[distance.argmax()]
            centroids.copy_(centroids.sort().values)
