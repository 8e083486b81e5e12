"""A technique: the largest weights are pulled in before training, so that they do not stretch the grids of the others."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from paretrim.spaces.anatomy import Anatomy, parts_of
from paretrim.spaces.dimension import Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions


class ClippingOptions(TechniqueOptions):
    """Settings of the technique.

    Attributes:
        most: Largest share of each output channel's weights that is pulled in.
    """

    most: Annotated[float, Field(gt=0, le=0.2)] = 0.02


class Clipping(Technique):
    """Clips the largest weights of each layer, by output channel."""

    name: ClassVar[str] = "clipping"
    # After layers have their final shape, before weights are put on grids.
    stage: ClassVar[int] = 35
    by_default: ClassVar[bool] = False
    Options: ClassVar[type[TechniqueOptions]] = ClippingOptions
    options: ClippingOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one knob for all layers: the share that is clipped."""
        return (Range("clipping.share", 0.0, self.options.most, neutral=0.0),)

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Clip, in place."""
        share = recipe.number("clipping.share")
        for part in (part for layer in anatomy.layers for part in parts_of(model, layer.name) if share):
            weight = model.get_parameter(f"{part}.weight").data
            rows = weight.flatten(1).abs()
            bound = rows.kthvalue(max(1, round(rows.shape[1] * (1 - share))), dim=1, keepdim=True).values
            weight.copy_(weight.flatten(1).clamp(-bound, bound).view_as(weight))
