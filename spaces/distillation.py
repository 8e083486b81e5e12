"""Distillation: the uncompressed model, or a larger one, teaches the compressed one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn
from torch.nn import functional

from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range
from paretrim.spaces.importpath import ImportPath
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss, Penalty, Schooling, classes_last
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.spaces.transfer import FeatureTransfer, TransferName, pairs_of

Temperature = Annotated[float, Field(ge=0.5, le=50.0)]
Weight = Annotated[float, Field(ge=0.0, le=1.0)]
TransferWeight = Annotated[float, Field(gt=0.0, le=10_000.0)]
MethodName = Literal["logits", "decoupled"]


class DistillationOptions(TechniqueOptions):
    """Settings of distillation. Where several methods are given, the search chooses among them.

    Attributes:
        temperature: Range of the temperature that softens both outputs.
        weight: Range of the share of the teacher in the loss; the labels have the rest.
        methods: How the outputs are matched: ``logits``, or ``decoupled``, which weighs what the teacher says of the
            wrong classes apart from how sure it is of the right one.
        beta: The weight of the wrong classes in ``decoupled``. More than 1 suits training from scratch; a model that only
            has to recover did worse with it.
        transfers: What of the layers between is matched: ``none``, ``attention`` for where in an image or a sequence
            they are active, ``similarity`` for which samples of a batch they find alike.
        transfer_weight: Range of the weight of that in the loss.
        transfer_layers: At how many layers, spread over the depth.
        teacher: Import path of a function that returns another model, which teaches in place of the uncompressed one;
            its outputs need the same shape.
    """

    temperature: tuple[Temperature, Temperature] = (1.0, 8.0)
    weight: tuple[Weight, Weight] = (0.0, 1.0)
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = ("logits",)
    beta: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    transfers: Annotated[tuple[TransferName, ...], Field(min_length=1)] = ("none",)
    transfer_weight: tuple[TransferWeight, TransferWeight] = (0.1, 10.0)
    transfer_layers: Annotated[int, Field(ge=1, le=1000)] = 3
    teacher: ImportPath | None = None

    @field_validator("methods", "transfers")
    @classmethod
    def _distinct(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(given)) != len(given):
            raise ValueError(f"a value is given twice: {', '.join(given)}")
        return given

    @field_validator("beta")
    @classmethod
    def _when_decoupled(cls, given: float, info: ValidationInfo) -> float:
        idle = "decoupled" not in info.data.get("methods", ("decoupled",))
        return cls.heeded(given, info, idle, "without the method decoupled; name it in methods")

    @field_validator("transfer_weight", "transfer_layers")
    @classmethod
    def _when_transferred(cls, given: object, info: ValidationInfo) -> object:
        idle = info.data.get("transfers") == ("none",)
        return cls.heeded(given, info, idle, "without a transfer; name attention or similarity in transfers")

    @model_validator(mode="after")
    def _ordered(self) -> DistillationOptions:
        for name in ("temperature", "weight", "transfer_weight"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} runs from {low} to {high}; the first must be the smaller")
        return self


class Distillation(Technique):
    """Matches the outputs of a teacher, and features of its layers where that is asked for.

    For outputs that are not class scores, the squared distance to the teacher's outputs takes the place of the
    divergence, and neither temperature nor method has a meaning.
    """

    name: ClassVar[str] = "distillation"
    stage: ClassVar[int] = 70
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = DistillationOptions
    options: DistillationOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the weight, and what has a meaning with one: the temperature, the method; and the same of features."""
        least, most = self.options.weight
        low, high = self.options.temperature
        taught = (Condition("distillation.weight"),)
        found: list[Dimension] = [
            Range("distillation.weight", least, most, neutral=0.0),
            Range("distillation.temperature", low, high, neutral=low, log=True, when=taught),
        ]
        if self.options.methods != ("logits",):
            methods = self.options.methods
            found.append(Choice("distillation.method", methods, neutral=methods[0], when=taught))
        if self.options.transfers != ("none",):
            found += self._transfers()
        return tuple(found)

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        """Return the weighted sum of the loss so far and the distance to the teacher."""
        temperature = recipe.number("distillation.temperature", 1.0)
        weight = recipe.number("distillation.weight", 0.0)
        decoupled = recipe.values.get("distillation.method") == "decoupled"

        def blended(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
            if teacher is None or weight == 0.0:
                return plain(outputs, labels, teacher)
            scores = classes_last(outputs, labels, teacher)
            mine, theirs = scores or (outputs, teacher)
            if decoupled and scores:
                soft = decoupled_distance(mine, theirs, labels, temperature, self.options.beta)
            else:
                soft = soft_distance(mine, theirs, temperature, classes=bool(scores))
            return (1.0 - weight) * plain(outputs, labels, teacher) + weight * soft

        return blended

    def penalty(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> Penalty | None:
        """Return the distance between the features of the model and those of its teacher."""
        method = recipe.values.get("distillation.transfer", "none")
        if schooling.tutor is None or method == "none":
            return None
        pairs = pairs_of(model, schooling.tutor, anatomy, str(method), self.options.transfer_layers)
        weight = recipe.number("distillation.transfer_weight", self.options.transfer_weight[0])
        return FeatureTransfer(model, schooling.tutor, pairs, str(method), weight) if pairs else None

    def needs_teacher(self) -> bool:
        """Tell that the teacher's outputs are needed."""
        return True

    def _transfers(self) -> tuple[Dimension, ...]:
        low, high = self.options.transfer_weight
        methods = tuple(each for each in self.options.transfers if each != "none")
        matched = (Condition("distillation.transfer", methods),)
        return (
            Choice("distillation.transfer", self.options.transfers, neutral="none"),
            Range("distillation.transfer_weight", low, high, neutral=low, log=True, when=matched),
        )


def soft_distance(outputs: torch.Tensor, teacher: torch.Tensor, temperature: float, *, classes: bool) -> torch.Tensor:
    """Return how far outputs are from the teacher's, a scalar (Hinton et al., "Distilling the Knowledge", 2015).

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


def decoupled_distance(
    outputs: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float, beta: float
) -> torch.Tensor:
    """Return how far outputs are from the teacher's, a scalar, the right class apart from the others.

    Zhao et al., "Decoupled Knowledge Distillation", 2022, with alpha 1: the divergence of right against wrong, and beta
    times the divergence among the wrong classes alone, which in `soft_distance` vanishes where the teacher is sure.

    Args:
        outputs: Logits, shape ``(N, ..., C)``.
        teacher: Logits of the same shape.
        labels: The right classes, shape ``(N, ...)``; negative ones are left out.
        temperature: As in `soft_distance`.
        beta: Weight of the wrong classes.
    """
    known = labels >= 0
    if not bool(known.any()):
        return outputs.sum() * 0.0
    right = functional.one_hot(labels[known].long(), outputs.shape[-1]).bool()
    student, wanted = (_split(logits[known] / temperature, right) for logits in (outputs, teacher))
    of_right, among_wrong = (
        functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")
        for mine, theirs in zip(student, wanted, strict=True)
    )
    return (of_right + beta * among_wrong) * temperature**2


def _split(logits: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logarithms of the shares of right and wrong, (N, 2), and of each wrong class among them, (N, C - 1)."""
    wrong = logits[~right].view(len(logits), -1)
    both = torch.stack([logits[right], wrong.logsumexp(dim=1)], dim=1)
    return functional.log_softmax(both, dim=1), functional.log_softmax(wrong, dim=1)
