"""The settings of recovery training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from paretrim.spaces.augment import AugmentName
from paretrim.spaces.importpath import ImportPath
from paretrim.spaces.optimizers import OptimizerName
from paretrim.spaces.schedules import ScheduleName
from paretrim.spaces.technique import TechniqueOptions

Precision = Literal["32", "bf16", "fp16"]
Strength = Literal["none", "light", "full"]


def _several(given: Any) -> Any:
    """Take one value as a list of it."""
    return given if given is None or isinstance(given, list | tuple) else (given,)


def _text(given: Any) -> Any:
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


def _within(low: int, high: int) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    def check(given: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [str(each) for each in given if not low <= each <= high]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} given; from {low} to {high} is allowed")
        return given

    return check


Counts = Annotated[tuple[int, ...], BeforeValidator(_several), Field(min_length=1)]
Rate = Annotated[float, Field(gt=0.0, le=10.0)]
Rates = tuple[Rate, Rate]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class RecoveryOptions(TechniqueOptions):
    """Settings of recovery training. Where several values are given, the search chooses among them.

    Attributes:
        epochs: Passes over the training split; one number, or several.
        batch_size: Samples per step; one number, or several.
        optimizer: Of ``sgd``, ``adamw`` and ``rmsprop``, one or several; by default ``adamw`` for what looks like a
            transformer, and ``sgd`` for anything else.
        learning_rate: Range of the peak learning rate; by default what suits the optimizer. With several optimizers, a
            mapping from their names to such ranges.
        momentum: Of stochastic gradient descent and ``rmsprop``; how slowly ``adamw`` forgets the gradients' mean.
        weight_decay: On all weights.
        schedule: How the learning rate runs: ``onecycle``, ``cosine``, ``step`` or ``constant``, one or several.
        clip: Largest norm of the gradient, or None for any.
        accumulation: Batches of which the gradients are summed up for one step of the optimizer.
        label_smoothing: Share of the right class that is given to all classes alike; a number, or a range.
        dropout: Probability that the model's dropout layers get in training, a number or a range; None for their own.
        precision: What training computes with: ``32``, or ``bf16`` or ``fp16`` where that loses nothing (mixed
            precision); weights are 32-bit floats in any case.
        channels_last: Whether images lie in memory pixel by pixel, which is faster on many processors.
        early_stop: Epochs without a lower training loss after which training ends, or None. The validation split has
            no say in it, since the search compares its points on that.
        augment: What is done to images in training: ``flip``, ``shift``, ``crop``, ``rotate``, ``brightness``.
        augmentation: Import path of a function of yours, from a batch of inputs to one of the same shape and type.
        augment_strength: Which share of the samples is augmented: ``none``, ``light`` for half, or ``full``; one or
            several.
    """

    epochs: Annotated[Counts, AfterValidator(_within(0, 1000))] = (4,)
    batch_size: Annotated[Counts, AfterValidator(_within(1, 65536))] = (64,)
    optimizer: Annotated[tuple[OptimizerName, ...], BeforeValidator(_several), Field(min_length=1)] | None = None
    learning_rate: Rates | dict[OptimizerName, Rates] | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-4
    schedule: Annotated[tuple[ScheduleName, ...], BeforeValidator(_several), Field(min_length=1)] = ("onecycle",)
    clip: Annotated[float, Field(gt=0.0)] | None = None
    accumulation: Annotated[int, Field(ge=1, le=65536)] = 1
    label_smoothing: Share | tuple[Share, Share] = 0.0
    dropout: Share | tuple[Share, Share] | None = None
    precision: Annotated[Precision, BeforeValidator(_text)] = "32"
    channels_last: bool = False
    early_stop: Annotated[int, Field(ge=1)] | None = None
    augment: tuple[AugmentName, ...] = ()
    augmentation: ImportPath | None = None
    augment_strength: Annotated[tuple[Strength, ...], BeforeValidator(_several), Field(min_length=1)] = ("full",)

    @field_validator("epochs", "batch_size", "optimizer", "schedule", "augment", "augment_strength")
    @classmethod
    def _distinct(cls, given: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if given is not None and len(set(given)) != len(given):
            raise ValueError(f"a value is given twice: {', '.join(map(str, given))}")
        return given

    @field_validator("augment_strength")
    @classmethod
    def _when_augmented(cls, given: tuple[Strength, ...], info: ValidationInfo) -> tuple[Strength, ...]:
        idle = not info.data.get("augment", True) and not info.data.get("augmentation", True)
        return cls.heeded(given, info, idle, "without augmentation; name what is done in augment or augmentation")

    @model_validator(mode="after")
    def _ordered(self) -> RecoveryOptions:
        for name, low, high in self._ranges():
            if low >= high:
                raise ValueError(f"{name} runs from {low} to {high}; the first must be the smaller")
        return self

    @model_validator(mode="after")
    def _rates_for_all(self) -> RecoveryOptions:
        rates, names = self.learning_rate, self.optimizer or ()
        if isinstance(rates, dict):
            unused = sorted(set(rates) - set(names))
            if unused:
                raise ValueError(
                    f"learning_rate has a range for {', '.join(unused)}, which is not among the optimizers"
                )
        elif rates is not None and len(names) > 1:
            form = ", ".join(f"{name}: [..., ...]" for name in names)
            raise ValueError(f"learning_rate is one range for {len(names)} optimizers; give each its own: {{{form}}}")
        return self

    def _ranges(self) -> Iterable[tuple[str, float, float]]:
        rates: Mapping[Any, Rates] = self.learning_rate if isinstance(self.learning_rate, dict) else {}
        for optimizer, pair in rates.items():
            yield (f"learning_rate.{optimizer}", *pair)
        for name in ("learning_rate", "label_smoothing", "dropout"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                yield (name, *value)
