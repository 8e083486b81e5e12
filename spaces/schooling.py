"""What a technique and recovery training work with: batches, the teacher, the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.team import Alone, Team

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``(outputs, labels, teacher outputs or None) -> scalar``."""
CPU = torch.device("cpu")


class TrainingBatch(Protocol):
    """Some training samples: inputs, labels, and their positions in the split."""

    @property
    def inputs(self) -> Inputs: ...  # noqa: D102
    @property
    def labels(self) -> torch.Tensor: ...  # noqa: D102
    @property
    def index(self) -> torch.Tensor: ...  # noqa: D102


class Penalty(Protocol):
    """Added to the loss at each step of training, beside what the outputs' loss says."""

    def __call__(self, batch: TrainingBatch) -> torch.Tensor:
        """Return a scalar, after the model has answered the batch."""
        ...

    def close(self) -> None:
        """Take away all that was hooked onto the model."""
        ...


@dataclass(frozen=True)
class Schooling:
    """What recovery training works with.

    Attributes:
        batches: ``(batch size, seed) -> batches`` of one shuffled pass over the training split.
        samples: Number of training samples.
        teacher: The teacher's outputs for all training samples, or None.
        loss: What is minimized.
        working: Entered around each batch, so that a measurement on this machine can make training wait.
        tutor: The model that teaches, in evaluation mode and not to be changed; None where nothing is distilled.
        penalties: Added to the loss at each step.
        advance: Called before each step with the share of the training that lies behind.
        channel_ms: Milliseconds that one channel of a group costs on the target, by the group's name; empty unless they
            were measured.
        team: Who trains; each member is given all batches and takes its share of them.
        device: Where models are trained and what needs gradients is computed; see spaces/device.py.
    """

    batches: Callable[[int, int], Iterator[TrainingBatch]]
    samples: int
    teacher: torch.Tensor | None
    loss: Loss
    working: Callable[[], AbstractContextManager[None]]
    tutor: nn.Module | None = None
    penalties: tuple[Penalty, ...] = ()
    advance: Callable[[float], None] = lambda _: None
    channel_ms: Mapping[str, float] = field(default_factory=dict)
    team: Team = field(default_factory=Alone)
    device: torch.device = CPU


def classes_last(outputs: torch.Tensor, labels: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return outputs, and others of their shape, with a score for each class in the last dimension.

    Nothing is returned where labels do not name one of several classes. Scores are in the last dimension as they come, or, of
    images, in the second.
    """
    if labels.is_floating_point() or outputs.dim() != labels.dim() + 1:
        return ()
    dim = next((dim for dim in (-1, 1) if _without(outputs, dim) == labels.shape and outputs.shape[dim] > 1), None)
    return () if dim is None else tuple(each.movedim(dim, -1) for each in (outputs, *others))


def _without(outputs: torch.Tensor, dim: int) -> tuple[int, ...]:
    return tuple(size for at, size in enumerate(outputs.shape) if at != dim % outputs.dim())
