"""Recovery training: a cut and quantized model learns again what it lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from paretrim.errors import TrialError
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling, TrainingBatch
from paretrim.spaces.technique import Technique, TechniqueOptions

Rate = Annotated[float, Field(gt=0.0, le=10.0)]


class RecoveryOptions(TechniqueOptions):
    """Settings of recovery training.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Samples per step.
        learning_rate: Range of the peak learning rate.
        momentum: Of stochastic gradient descent.
        weight_decay: On all weights.
    """

    epochs: Annotated[int, Field(ge=0, le=1000)] = 4
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    learning_rate: tuple[Rate, Rate] = (0.003, 0.1)
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4

    @model_validator(mode="after")
    def _ordered(self) -> RecoveryOptions:
        low, high = self.learning_rate
        if low >= high:
            raise ValueError(f"learning_rate runs from {low} to {high}; the first must be the smaller")
        return self


class Recovery(Technique):
    """Trains with momentum and a one-cycle learning rate (Smith and Topin, "Super-Convergence", 2018)."""

    name: ClassVar[str] = "recovery"
    stage: ClassVar[int] = 80
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = RecoveryOptions
    options: RecoveryOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the learning rate; the rest is constant within a job but belongs to the recipe."""
        low, high = self.options.learning_rate
        return (
            Choice("recovery.epochs", (self.options.epochs,), neutral=0),
            Choice("recovery.batch_size", (self.options.batch_size,), neutral=self.options.batch_size),
            Choice("recovery.momentum", (self.options.momentum,), neutral=self.options.momentum),
            Choice("recovery.weight_decay", (self.options.weight_decay,), neutral=self.options.weight_decay),
            Range("recovery.learning_rate", low, high, neutral=math.sqrt(low * high), log=True),
        )


def recover(model: nn.Module, recipe: Recipe, schooling: Schooling, epochs: int | None = None) -> Iterator[float]:
    """Train a model in place and yield the mean loss after each epoch.

    Args:
        model: In training it is in training mode, afterwards in evaluation mode.
        recipe: Says how to train.
        schooling: What to train with.
        epochs: How long; by default as long as the recipe says.

    Raises:
        TrialError: The loss became NaN or infinite.
    """
    epochs = int(recipe.number("recovery.epochs")) if epochs is None else epochs
    size = int(recipe.number("recovery.batch_size", 64))
    if epochs == 0:
        return
    torch.manual_seed(recipe.seed)
    rate = recipe.number("recovery.learning_rate", 0.01)
    optimizer = torch.optim.SGD(
        (p for p in model.parameters() if p.requires_grad),
        lr=rate,
        momentum=recipe.number("recovery.momentum", 0.9),
        weight_decay=recipe.number("recovery.weight_decay", 0.0),
        nesterov=recipe.number("recovery.momentum", 0.9) > 0,
    )
    steps = epochs * math.ceil(schooling.samples / size)
    # With a fifth of exactly five steps to rise in, the scheduler would divide by zero.
    rise = 0.2 if steps != 5 else 0.25
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=rise, cycle_momentum=False
    )
    step = 0
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for batch in schooling.batches(size, recipe.seed + epoch):
            with schooling.working():
                schooling.advance(step / steps)
                step += 1
                total += _step(model, batch, schooling, optimizer, schedule) * len(batch.index)
        mean = total / schooling.samples
        if not math.isfinite(mean):
            raise TrialError(
                f"the training loss is {mean} in epoch {epoch + 1} at learning rate {rate:.3g}; if many trials end so, "
                "lower the upper end of space.recovery.learning_rate"
            )
        yield mean
    model.eval()


def _step(
    model: nn.Module,
    batch: TrainingBatch,
    schooling: Schooling,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    if len(batch.index) < 2:
        return 0.0  # batch normalization cannot train on a single sample
    optimizer.zero_grad(set_to_none=True)
    teacher = None if schooling.teacher is None else schooling.teacher[batch.index]
    loss = schooling.loss(model(batch.inputs), batch.labels, teacher)
    for penalty in schooling.penalties:
        loss = loss + penalty(batch)
    loss.backward()
    optimizer.step()
    schedule.step()
    return float(loss.detach())
