"""Recovery training: a cut and quantized model learns again what it lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from paretrim.errors import UsageError
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value
from paretrim.spaces.optimizers import RATES, OptimizerName
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery_options import RecoveryOptions
from paretrim.spaces.schooling import Loss, Schooling, classes_last
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.spaces.training import recover
from paretrim.spaces.traits import wants_adaptive_steps

__all__ = ["Recovery", "RecoveryOptions", "recover", "smoothed"]


class Recovery(Technique):
    """Trains the model again, by default with momentum and a one-cycle learning rate.

    What differs from the defaults stands in the recipe, so that the recipe makes the same model again.
    """

    name: ClassVar[str] = "recovery"
    # Before distillation, which blends the teacher with what labels say: smoothing is of the labels only.
    stage: ClassVar[int] = 65
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = RecoveryOptions
    options: RecoveryOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the learning rate, and whatever else has several values; the rest is constant within a job.

        Raises:
            UsageError: Images shall be augmented, and the inputs are none.
        """
        options = self.options
        return (
            Choice("recovery.epochs", options.epochs, neutral=0),
            _choice("recovery.batch_size", options.batch_size),
            _choice("recovery.momentum", (options.momentum,)),
            _choice("recovery.weight_decay", (options.weight_decay,)),
            *self._optimizers(anatomy),
            *self._when_asked_for(),
            *_number("recovery.label_smoothing", options.label_smoothing or None, neutral=0.0),
            *_number("recovery.dropout", options.dropout if "dropout" in anatomy.traits else None),
            *self._augmentation(anatomy),
        )

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Tell that there is no dropout to set."""
        if self.options.dropout is None or "dropout" in anatomy.traits:
            return {}
        return {"dropout": "the model has no dropout layer that recovery.dropout could set"}

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Set the probability of the dropout layers."""
        if "recovery.dropout" not in recipe.values:
            return
        share = recipe.number("recovery.dropout")
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.p = share
            elif isinstance(module, nn.MultiheadAttention):
                module.dropout = share

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        """Return the loss with the labels smoothed."""
        share = recipe.number("recovery.label_smoothing")
        return smoothed(plain, share) if share else plain

    def _optimizers(self, anatomy: Anatomy) -> Iterator[Dimension]:
        adaptive = wants_adaptive_steps(anatomy.traits)
        names: Sequence[OptimizerName] = self.options.optimizer or (("adamw",) if adaptive else ("sgd",))
        trained = (Condition("recovery.epochs"),) if 0 in self.options.epochs else ()
        if tuple(names) != ("sgd",):
            yield Choice("recovery.optimizer", tuple(names), neutral=names[0], when=trained)
        for name in names:
            low, high = self._rates(name)
            several = len(names) > 1
            yield Range(
                f"recovery.learning_rate.{name}" if several else "recovery.learning_rate",
                low,
                high,
                neutral=math.sqrt(low * high),
                log=True,
                when=(Condition("recovery.optimizer", (name,)),) if several else trained,
            )

    def _rates(self, optimizer: OptimizerName) -> tuple[float, float]:
        given = self.options.learning_rate
        if isinstance(given, dict):
            return given.get(optimizer, RATES[optimizer])
        return given or RATES[optimizer]

    def _when_asked_for(self) -> Iterator[Choice]:
        for name in ("schedule", "clip", "accumulation", "precision", "channels_last", "early_stop"):
            given = getattr(self.options, name)
            if given != RecoveryOptions.model_fields[name].default:
                yield _choice(f"recovery.{name}", given if isinstance(given, tuple) else (given,))

    def _augmentation(self, anatomy: Anatomy) -> Iterator[Choice]:
        options = self.options
        if options.augment and not anatomy.inputs.image:
            raise UsageError(
                f"space.recovery.augment: {', '.join(options.augment)} are for images, floats of shape (channels, height, "
                f"width), and an input of this model is {anatomy.inputs.described()}; take them "
                "out, or name a function of your own in space.recovery.augmentation"
            )
        if options.augmentation and len(anatomy.inputs.parts) > 1:
            raise UsageError(
                f"space.recovery.augmentation: {options.augmentation} gets one tensor, and this model takes several inputs: "
                f"{anatomy.inputs.described()}; leave it out"
            )
        named = [*options.augment, *([options.augmentation] if options.augmentation else [])]
        if named:
            yield Choice("recovery.augment", options.augment_strength, neutral="none")
            yield _choice("recovery.augmented_by", ("+".join(named),))


def smoothed(plain: Loss, share: float) -> Loss:
    """Return a loss of labels that give a share to all classes alike (Szegedy et al., "Rethinking Inception", 2016).

    Args:
        plain: Cross-entropy. A loss of anything but classes that exclude each other is left as it is.
        share: From 0 to below 1.
    """

    def loss(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        right = plain(outputs, labels, teacher)
        scores = classes_last(outputs, labels)
        if not scores:
            return right
        known = scores[0][labels >= 0]  # a negative label stands for no token
        if not len(known):
            return right
        return (1.0 - share) * right - share * functional.log_softmax(known, dim=-1).mean()

    return loss


def _choice(name: str, values: tuple[Value, ...]) -> Choice:
    return Choice(name, values, neutral=values[0])


def _number(name: str, given: float | tuple[float, float] | None, neutral: float | None = None) -> Iterator[Dimension]:
    """Yield the knob of a number or a range, or none."""
    if isinstance(given, tuple):
        yield Range(name, *given, neutral=given[0] if neutral is None else neutral)
    elif given is not None:
        yield Choice(name, (given,), neutral=given if neutral is None else neutral)
