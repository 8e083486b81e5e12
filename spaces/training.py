"""The loop of recovery training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from paretrim.errors import TrialError
from paretrim.spaces import optimizers, schedules
from paretrim.spaces.augment import STRENGTHS, Augmentation
from paretrim.spaces.device import Samples, moved, on, part_of, settle
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling, TrainingBatch
from paretrim.spaces.team import Share, share

_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Far apart, since each batch may take the next seeds.
_APART = 1_000_003


def recover(model: nn.Module, recipe: Recipe, schooling: Schooling, epochs: int | None = None) -> Iterator[float]:
    """Train a model in place and yield the mean loss after each epoch.

    A model of which every parameter is frozen is left as it is, and nothing is yielded. A batch of a single sample, which
    may be left over at the end of an epoch, is passed over where batch normalization could not train on it.

    In a team, the gradient of a batch is that of its mean loss, as of one process, but for what a loss compares across
    samples. What is random within a sample's way through the model differs between members. Batch normalization works
    with the mean and variance of each member's share, and its running statistics are the members' mean.

    The model is on the schooling's device from the first epoch to the last, and at the end where it was.

    Args:
        model: In training it is in training mode, afterwards in evaluation mode.
        recipe: Says how to train.
        schooling: What to train with.
        epochs: How long; by default as long as the recipe says.

    Raises:
        TrialError: The loss became NaN or infinite, or depends on no parameter, or the batch size is 1 where batch
            normalization needs more, or the device's memory is full.
        UserCodeError: The user's augmentation failed.
    """
    epochs = int(recipe.number("recovery.epochs")) if epochs is None else epochs
    if epochs == 0 or not any(p.requires_grad for p in model.parameters()):
        return
    with on(schooling.device, model, schooling.tutor):
        yield from _recovered(model, recipe, schooling, epochs)


def _recovered(model: nn.Module, recipe: Recipe, schooling: Schooling, epochs: int) -> Iterator[float]:
    torch.manual_seed(recipe.seed + _APART * schooling.team.rank)  # of all devices
    weights = [p for p in model.parameters() if p.requires_grad]
    training = _Training(model, weights, recipe, schooling, epochs)
    patience, best, waited = recipe.number("recovery.early_stop", math.inf), math.inf, 0
    for epoch in range(epochs):
        model.train()
        mean = training.epoch(epoch)
        waited = 0 if mean < best else waited + 1
        best = min(best, mean)
        yield mean
        if waited >= patience:
            break
    model.eval()


class _Training:
    def __init__(
        self, model: nn.Module, weights: list[nn.Parameter], recipe: Recipe, schooling: Schooling, epochs: int
    ) -> None:
        self._model, self._weights, self._schooling, self._seed = model, weights, schooling, recipe.seed
        self._team = schooling.team
        self._averages, self._others = _buffers(model)
        self._device = schooling.device
        self._needs_two = any(isinstance(module, _BatchNorm) for module in model.modules())
        self._size = int(recipe.number("recovery.batch_size", 64))
        if self._size == 1 and self._needs_two:
            raise TrialError(
                "recovery.batch_size is 1, and batch normalization cannot train on a single sample; give at least 2 in "
                "space.recovery.batch_size"
            )
        self._together = int(recipe.number("recovery.accumulation", 1))
        self._batches = math.ceil(schooling.samples / self._size)
        self._total = epochs * self._batches
        self._rate = _rate(recipe)
        self._optimizer = optimizers.build(
            _word(recipe, "recovery.optimizer", "sgd"),
            weights,
            self._rate,
            recipe.number("recovery.momentum", 0.9),
            recipe.number("recovery.weight_decay", 0.0),
        )
        steps = epochs * math.ceil(self._batches / self._together)
        self._schedule = schedules.build(_word(recipe, "recovery.schedule", "onecycle"), self._optimizer, steps)
        self._clip = recipe.number("recovery.clip", 0.0)
        self._format = _FORMATS.get(_word(recipe, "recovery.precision", "32"))
        # Half floats have so few small numbers that gradients would vanish without a scale.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._format is torch.float16)
        self._channels_last = recipe.values.get("recovery.channels_last") is True
        self._augmentation = _augmentation(recipe, recipe.seed + _APART * self._team.rank)
        self._pending = False
        self._optimizer.zero_grad(set_to_none=True)

    def epoch(self, number: int) -> float:
        """Train for one pass and return the mean loss."""
        total, seen = 0.0, 0.0
        for position, batch in enumerate(self._schooling.batches(self._size, self._seed + number)):
            with self._schooling.working():
                self._team.meet()
                self._schooling.advance((number * self._batches + position) / self._total)
                if len(batch.index) > 1 or not self._needs_two:
                    part = share(self._team, len(batch.index), 2 if self._needs_two else 1)
                    total += self._learn(self._shown(batch, part), self._group(position), part.weight) * part.samples
                    seen += part.samples
                if (position + 1) % self._together == 0 or position + 1 == self._batches:
                    self._step()
                else:
                    self._team.meet()
                settle(self._device)
        total, seen = self._team.total([total, seen])
        self._team.follow(self._others)
        mean = total / seen if seen else 0.0
        if not math.isfinite(mean):
            raise TrialError(
                f"the training loss is {mean} in epoch {number + 1} at learning rate {self._rate:.3g}; if many trials end "
                "so, lower the upper end of space.recovery.learning_rate"
            )
        return mean

    def _group(self, position: int) -> int:
        """Return how many batches share a step with the one at a position."""
        return min(self._together, self._batches - position // self._together * self._together)

    def _shown(self, batch: TrainingBatch, part: Share) -> Samples:
        shown = moved(part_of(batch, part.start, part.stop), self._device)
        inputs = shown.inputs
        if self._augmentation is not None:
            inputs = inputs.each(self._augmentation)
        if self._channels_last:
            inputs = inputs.each(_channels_last)
        return replace(shown, inputs=inputs)

    def _learn(self, batch: Samples, group: int, weight: float) -> float:
        """Add the gradients of a part of a batch to those that the next step is made of, and return its loss."""
        divisor = group / weight if weight else math.inf
        with self._narrow():
            outputs = batch.inputs.through(self._model)
            teacher = self._taught(batch)
            loss = self._schooling.loss(outputs if self._format is None else outputs.float(), batch.labels, teacher)
            for penalty in self._schooling.penalties:
                loss = loss + penalty(batch)
        if not loss.requires_grad:
            raise TrialError(
                "the training loss depends on no parameter that could be trained; unfreeze some in the model, or turn "
                "recovery off"
            )
        torch.autograd.backward(self._scaler.scale(loss if divisor == 1 else loss / divisor))
        self._pending = True
        return float(loss.detach())

    def _narrow(self) -> AbstractContextManager[object]:
        return nullcontext() if self._format is None else torch.autocast(self._device.type, self._format)

    def _taught(self, batch: Samples) -> torch.Tensor | None:
        """Return the teacher's outputs: kept ones, unless it has never seen these inputs."""
        if self._schooling.teacher is None:
            return None
        if self._augmentation is None or self._schooling.tutor is None:
            return self._schooling.teacher[batch.index].to(self._device)
        with torch.no_grad():
            answers: torch.Tensor = batch.inputs.through(self._schooling.tutor)
        return answers.float()

    def _step(self) -> None:
        if not self._pending:
            return
        # Before anything is unscaled: what overflowed in one member is then seen by all.
        self._team.combine(self._weights, self._averages)
        if self._clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._weights, self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._pending = False


def _channels_last(part: torch.Tensor) -> torch.Tensor:
    return part.contiguous(memory_format=torch.channels_last) if part.dim() == 4 else part


def _word(recipe: Recipe, name: str, default: str) -> str:
    return str(recipe.values.get(name, default))


def _rate(recipe: Recipe) -> float:
    """Return the learning rate, which has a name of its own where there are several optimizers."""
    chosen = f"recovery.learning_rate.{recipe.values.get('recovery.optimizer')}"
    return recipe.number(chosen, recipe.number("recovery.learning_rate", 0.01))


def _augmentation(recipe: Recipe, seed: int) -> Augmentation | None:
    described = _word(recipe, "recovery.augmented_by", "")
    strength = STRENGTHS[_word(recipe, "recovery.augment", "none")]
    return Augmentation(described, strength, seed) if described and strength else None


def _buffers(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the running statistics of normalizations, and all other buffers."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    found = [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]
    known = {id(each) for each in found}
    return found, [each for each in model.buffers() if id(each) not in known]
