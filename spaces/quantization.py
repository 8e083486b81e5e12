"""Quantization of weights: fewer bits per weight, trained in with fake quantization.

Here weights are put on a grid. Turning the grid into integers, and activations into 8 bits, is the target's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import field_validator
from torch import nn
from torch.nn.utils import parametrize

from paretrim.evaluators.storage import Storage
from paretrim.spaces.anatomy import Anatomy, parts_of
from paretrim.spaces.dimension import Choice, Dimension, Value
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions

FLOAT_BITS = 32
HALF_BITS = 16
# The first and the last layer lose most and weigh least: the field keeps them at 8 bits or more.
_LEAST_AT_ENDS = 8

Bits = Literal[4, 8, 16, "none"]


class QuantizationOptions(TechniqueOptions):
    """Settings of quantization.

    Attributes:
        weight_bits: Widths to choose from for each group of layers; ``none`` keeps 32-bit floats, 16 stores half
            floats that run as floats. Layers of 4 or 8 bits get 8-bit activations and run as integers.
    """

    weight_bits: tuple[Bits, ...] = (4, 8, "none")

    @field_validator("weight_bits", mode="before")
    @classmethod
    def _none_by_name(cls, value: object) -> object:
        # YAML's null, and Python's None, mean the same as the word.
        return tuple("none" if item is None else item for item in value) if isinstance(value, list | tuple) else value

    @field_validator("weight_bits")
    @classmethod
    def _some(cls, value: tuple[Bits, ...]) -> tuple[Bits, ...]:
        if not value:
            raise ValueError("is empty; name at least one of 4, 8, 16 and none, or turn quantization off")
        return value


class WeightQuantization(Technique):
    """Puts weights on a symmetric grid per output channel, with straight-through gradients.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018; the gradient estimator is Bengio et al., 2013.
    """

    name: ClassVar[str] = "quantization"
    stage: ClassVar[int] = 50
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = QuantizationOptions
    options: QuantizationOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one width for each group of layers that share it."""
        return tuple(
            Choice(
                f"quantization.bits.{name}", self._choices(any(layer.first or layer.last for layer in layers)), "none"
            )
            for name, layers in anatomy.layer_groups()
        )

    def anchors(self, anatomy: Anatomy) -> Mapping[str, Mapping[str, Value]]:
        """Return plain float16 and plain int8."""
        names = [f"quantization.bits.{name}" for name, _ in anatomy.layer_groups()]
        return {"float16": dict.fromkeys(names, HALF_BITS), "int8": dict.fromkeys(names, 8)}

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Let each layer compute with weights on its grid, while gradients reach the weights themselves."""
        modules = dict(model.named_modules())
        for name, bits in self._bits(recipe, anatomy, model).items():
            if bits < HALF_BITS:
                parametrize.register_parametrization(modules[name], "weight", OnGrid(bits))

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Replace the weights by those on the grid."""
        for module in list(model.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def storage(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> Mapping[str, Storage]:
        """Return the bits of each layer that is not left at 32."""
        return {name: Storage(bits) for name, bits in self._bits(recipe, anatomy, model).items()}

    def _bits(self, recipe: Recipe, anatomy: Anatomy, model: nn.Module) -> dict[str, int]:
        bits: dict[str, int] = {}
        for name, layers in anatomy.layer_groups():
            width = recipe.values.get(f"quantization.bits.{name}", "none")
            if isinstance(width, int):
                bits |= {part: width for layer in layers for part in parts_of(model, layer.name)}
        return bits

    def _choices(self, at_end: bool) -> tuple[Value, ...]:
        widths = self.options.weight_bits
        if not at_end:
            return widths
        return tuple(dict.fromkeys(w if w == "none" else max(w, _LEAST_AT_ENDS) for w in widths))


class OnGrid(nn.Module):
    """Rounds weights to ``2**(bits - 1) - 1`` levels on each side of zero, per output channel."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.levels = 2 ** (bits - 1) - 1

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights on the grid, shape as given; the gradient passes straight through."""
        peak = weight.detach().abs().flatten(1).amax(dim=1).clamp_min(1e-12)
        scale = (peak / self.levels).view(-1, *[1] * (weight.dim() - 1))
        rounded = torch.round(weight / scale) * scale
        passed: torch.Tensor = weight + (rounded - weight).detach()
        return passed
