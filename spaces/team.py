"""Who trains a model: one process, or several that each take a share of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Share:
    """One member's part of a batch.

    Attributes:
        start: Its first sample.
        stop: The one after its last.
        weight: What its mean loss counts in the batch's; 0 where the batch is too small for all members.
    """

    start: int
    stop: int
    weight: float

    @property
    def samples(self) -> int:
        """How many samples count that only this member has."""
        return self.stop - self.start if self.weight else 0


class Team(Protocol):
    """Processes that train copies of one model, which stay the same to the bit from step to step."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102

    def meet(self) -> None:
        """Wait for all members to come here."""
        ...

    def combine(self, weights: Sequence[nn.Parameter], averages: Sequence[torch.Tensor]) -> None:
        """Replace, in place, gradients by the sum and `averages` by the mean over all members."""
        ...

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all members."""
        ...

    def follow(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors, in place, by those of the first member."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def meet(self) -> None:
        """Go on."""

    def combine(self, weights: Sequence[nn.Parameter], averages: Sequence[torch.Tensor]) -> None:
        """Leave all as it is."""

    def total(self, values: Sequence[float]) -> list[float]:
        """Return them as they are."""
        return list(values)

    def follow(self, tensors: Sequence[torch.Tensor]) -> None:
        """Leave all as it is."""


def share(team: Team, samples: int, least: int) -> Share:
    """Return the part of a batch that a member of a team takes.

    Where a batch is too small for all, those that go without take the part of another, with a weight of 0: what counts
    how often a layer was run counts the same everywhere.

    Args:
        team: Its team.
        samples: In the batch.
        least: That a model can be trained on at once.
    """
    parts = min(team.size, max(1, samples // least))
    part = team.rank % parts
    start, stop = samples * part // parts, samples * (part + 1) // parts
    return Share(start, stop, (stop - start) / samples if team.rank < parts else 0.0)
