"""Distillation: the uncompressed model's outputs teach the compressed one."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss
from paretrim.spaces.technique import Technique, TechniqueOptions

Temperature = Annotated[float, Field(ge=0.5, le=50.0)]
Weight = Annotated[float, Field(ge=0.0, le=1.0)]


class DistillationOptions(TechniqueOptions):
    """Settings of distillation.

    Attributes:
        temperature: Range of the temperature that softens both outputs.
        weight: Range of the share of the teacher in the loss; the labels have the rest.
    """

    temperature: tuple[Temperature, Temperature] = (1.0, 8.0)
    weight: tuple[Weight, Weight] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> DistillationOptions:
        for name, (low, high) in (("temperature", self.temperature), ("weight", self.weight)):
            if low >= high:
                raise ValueError(f"{name} runs from {low} to {high}; the first must be the smaller")
        return self


class Distillation(Technique):
    """Matches softened outputs (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).

    For outputs that are not class scores, the squared distance to the teacher's outputs takes the place of the
    divergence, and the temperature has no meaning.
    """

    name: ClassVar[str] = "distillation"
    stage: ClassVar[int] = 70
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = DistillationOptions
    options: DistillationOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the temperature and the weight."""
        low, high = self.options.temperature
        least, most = self.options.weight
        return (
            Range("distillation.temperature", low, high, neutral=low, log=True),
            Range("distillation.weight", least, most, neutral=0.0),
        )

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        """Return the weighted sum of the loss so far and the distance to the teacher."""
        temperature = recipe.number("distillation.temperature", 1.0)
        weight = recipe.number("distillation.weight", 0.0)

        def blended(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
            if teacher is None or weight == 0.0:
                return plain(outputs, labels, teacher)
            soft = soft_distance(outputs, teacher, temperature, classes=_stand_for_classes(outputs, labels))
            return (1.0 - weight) * plain(outputs, labels, teacher) + weight * soft

        return blended

    def needs_teacher(self) -> bool:
        """Tell that the teacher's outputs are needed."""
        return True


def soft_distance(outputs: torch.Tensor, teacher: torch.Tensor, temperature: float, *, classes: bool) -> torch.Tensor:
    """Return how far outputs are from the teacher's, a scalar.

    Args:
        outputs: Logits, shape ``(N, ..., C)``.
        teacher: Logits of the same shape.
        temperature: Divides both before the softmax; the divergence is multiplied by its square, so that gradients
            keep their size.
        classes: False for anything but scores of classes that exclude each other: the squared distance.
    """
    if not classes:
        return functional.mse_loss(outputs, teacher)
    student = functional.log_softmax(outputs.flatten(0, -2) / temperature, dim=1)
    wanted = functional.log_softmax(teacher.flatten(0, -2) / temperature, dim=1)
    return functional.kl_div(student, wanted, log_target=True, reduction="batchmean") * temperature**2


def _stand_for_classes(outputs: torch.Tensor, labels: torch.Tensor) -> bool:
    """Tell whether the last dimension of outputs holds a score for each class, and labels the right one."""
    return not labels.is_floating_point() and outputs.dim() == labels.dim() + 1 and outputs.shape[-1] > 1
