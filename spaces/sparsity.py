"""Sparsity: single weights become zero, so that the packed file is smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from paretrim.spaces.anatomy import Anatomy, Layer, parts_of
from paretrim.spaces.dimension import Choice, Condition, Dimension
from paretrim.spaces.grid import stepped
from paretrim.spaces.masks import (
    Pattern,
    cubic,
    first_mask,
    largest,
    largest_of_all,
    largest_of_each,
    magnitudes_behind,
    mask_of,
    put_on,
    take_off,
)
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions

AMOUNT = "sparsity.amount."
UNSTRUCTURED = "unstructured"
# How often masks are computed anew while zeros are added: often enough for small steps, seldom enough to cost nothing.
_UPDATES = 40
# Layers whose weights are all small keep these, or they would cut the model in two.
_LEAST = 0.01

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
PatternName = Literal["unstructured", "2:4", "4:8", "1:4"]


class SparsityOptions(TechniqueOptions):
    """Settings of sparsity.

    Attributes:
        amount: Smallest and largest share of the weights that become zero.
        step: Distance between the shares that are tried.
        scope: Who shares an amount: ``group``, each group of layers has one of its own; ``balanced``, all layers lose
            the same share; ``global``, one amount for the model, whose weights are ranked by magnitude across layers.
        patterns: Where zeros may stand: ``unstructured``, anywhere; ``N:M``, the N largest of each M weights along the
            input dimension stay. Such a pattern fixes how many weights are zero, and an amount above 0 turns it on.
        until: Share of the training after which the zeros are final.
    """

    amount: tuple[Share, Share] = (0.0, 0.9)
    step: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    scope: Literal["group", "balanced", "global"] = "group"
    patterns: tuple[PatternName, ...] = ("unstructured",)
    until: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75

    @model_validator(mode="after")
    def _ordered(self) -> SparsityOptions:
        if self.amount[0] >= self.amount[1]:
            raise ValueError(f"amount runs from {self.amount[0]} to {self.amount[1]}; the first must be the smaller")
        return self

    @field_validator("patterns")
    @classmethod
    def _some(cls, value: tuple[PatternName, ...]) -> tuple[PatternName, ...]:
        if not value:
            raise ValueError("is empty; name at least one of unstructured, 2:4, 4:8 and 1:4, or turn sparsity off")
        return tuple(dict.fromkeys(value))


class Sparsity(Technique):
    """Sets the smallest weights to zero, more and more of them in the course of training.

    The reward is size: zeros take almost no bytes in the packed file. Nothing becomes faster: the targets compute with
    zeros as with other numbers (a model of 97% zeros was measured as fast as one of none in ONNX Runtime), and N:M
    patterns only gain on GPUs with kernels for them. Amounts are shares of the weights that pruning and factorization
    have left. Biases and normalization keep their values.

    Source: Zhu and Gupta, "To prune, or not to prune", 2017, for magnitudes and the cubic schedule; N:M patterns are
    those of Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021.
    """

    name: ClassVar[str] = "sparsity"
    stage: ClassVar[int] = 45
    Options: ClassVar[type[TechniqueOptions]] = SparsityOptions
    options: SparsityOptions

    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        """Return one share of zeros for all layers: it makes the file smaller on any target."""
        return SparsityOptions(amount=(0.0, 0.8), step=0.2, scope="balanced")

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the amounts, and the pattern, which exists where an amount is above 0."""
        low, high = self.options.amount
        knobs = [knob for knob, layers in self._knobs(anatomy).items() if any(map(self._fits, layers))]
        amounts: list[Dimension] = [stepped(AMOUNT + k, low, high, self.options.step, neutral=0.0) for k in knobs]
        if UNSTRUCTURED not in self.options.patterns:
            # A pattern fixes the amount: it is there, or it is not.
            amounts = [Choice(AMOUNT + knob, (0.0, high), neutral=0.0) for knob in knobs]
        when = tuple(Condition(each.name) for each in amounts)
        return (*amounts, Choice("sparsity.pattern", self.options.patterns, UNSTRUCTURED, when)) if amounts else ()

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return the layers with fewer inputs than the smallest block of the patterns, and those tied to an embedding."""
        reason = f"has too few input channels for a block of {', '.join(self.options.patterns)}"
        narrow = {layer.name: reason for layer in anatomy.layers if not self._fits(layer)}
        tied = {each.tied: f"its weights are also those of {each.name}" for each in anatomy.weight_only}
        return narrow | {layer.name: tied[layer.name] for layer in anatomy.layers if layer.name in tied}

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Put a mask on each layer that shall get zeros."""
        for layer in chain.from_iterable(self._parts(model, recipe, anatomy).values()):
            put_on(layer)

    def advance(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, done: float) -> None:
        """Compute the masks anew, from time to time until they are final."""
        update = _UPDATES if done >= self.options.until else int(_UPDATES * done / self.options.until)
        any_mask = first_mask(model)
        if any_mask is None or any_mask.updates >= update:
            return
        pattern = Pattern.of(str(recipe.values.get("sparsity.pattern", UNSTRUCTURED)))
        ramp = cubic(done, self.options.until)
        for knob, layers in self._parts(model, recipe, anatomy).items():
            masked = [(layer, mask) for layer in layers if (mask := mask_of(layer))]
            found = self._kept([layer for layer, _ in masked], pattern, recipe.number(AMOUNT + knob), ramp)
            for (_, mask), kept in zip(masked, found, strict=True):
                mask.renew(kept, update)

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Write the zeros into the weights."""
        for layer in list(model.modules()):
            if mask_of(layer) is not None:
                take_off(layer)

    def _kept(
        self, layers: Sequence[nn.Module], pattern: Pattern | None, amount: float, ramp: float
    ) -> list[torch.Tensor]:
        """Return the masks of layers that share an amount, a share `ramp` of which is in force."""
        magnitudes = [magnitudes_behind(layer) for layer in layers]
        if pattern is not None:
            return [largest_of_each(each, pattern.early(ramp)) for each in magnitudes]
        if self.options.scope == "global" and magnitudes:
            return largest_of_all(magnitudes, amount * ramp, _LEAST)
        return [largest(each, max(1, each.numel() - round(each.numel() * amount * ramp))) for each in magnitudes]

    def _knobs(self, anatomy: Anatomy) -> dict[str, tuple[Layer, ...]]:
        """Return the layers that share an amount, by its name. Zeros of a layer would be an embedding's that has its weights."""
        tied = {each.tied for each in anatomy.weight_only}
        groups = anatomy.layer_groups() if self.options.scope == "group" else (("all", anatomy.layers),)
        return {name: tuple(layer for layer in layers if layer.name not in tied) for name, layers in groups}

    def _parts(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> dict[str, list[nn.Module]]:
        """Return the layers that shall get zeros, by knob."""
        return {
            knob: [model.get_submodule(part) for layer in layers for part in parts_of(model, layer.name)]
            for knob, layers in self._knobs(anatomy).items()
            if recipe.number(AMOUNT + knob) > 0
        }

    def _fits(self, layer: Layer) -> bool:
        patterns = [Pattern.of(each) for each in self.options.patterns]
        return any(each is None or not layer.shape or layer.shape[1] >= each.block for each in patterns)
