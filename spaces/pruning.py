"""Structured pruning: whole output channels are cut, so that the exported model is smaller and faster."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from paretrim.errors import TrialError
from paretrim.spaces.anatomy import Anatomy, Group
from paretrim.spaces.dimension import Choice, Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.surgery import coupled, cut, dependency_graph
from paretrim.spaces.technique import Technique, TechniqueOptions

Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class PruningOptions(TechniqueOptions):
    """Settings of structured pruning.

    Attributes:
        ratio: Smallest and largest share of a group's channels to cut.
        step: Distance between the ratios that are tried.
        importance: Norm by which channels are ranked: ``l1`` or ``l2``.
        round_to: Channel counts are multiples of this; runtimes compute channels in blocks.
    """

    ratio: tuple[Share, Share] = (0.0, 0.75)
    step: Annotated[float, Field(gt=0.0, le=0.5)] = 0.125
    importance: Literal["l1", "l2"] = "l2"
    round_to: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _ordered(self) -> PruningOptions:
        if self.ratio[0] >= self.ratio[1]:
            raise ValueError(f"ratio runs from {self.ratio[0]} to {self.ratio[1]}; the first must be the smaller")
        return self


class StructuredPruning(Technique):
    """Cuts the least important channels of each group of coupled layers.

    Importance is the magnitude of all weights that would go with a channel (Li et al., "Pruning Filters for Efficient
    ConvNets", 2017): its filters in the layers of its group, their normalization, and what reads it, averaged as in
    Torch-Pruning, whose dependency graph finds them (Fang et al., "DepGraph", 2023).
    """

    name: ClassVar[str] = "pruning"
    stage: ClassVar[int] = 10
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = PruningOptions
    options: PruningOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one ratio for each group that can lose at least one block of channels."""
        low, high = self.options.ratio
        # The upper end is put on the grid of steps that starts at the lower one.
        steps = math.floor((high - low) / self.options.step + 1e-9)
        top = low + steps * self.options.step
        names = [
            f"pruning.ratio.{name}"
            for name, groups in anatomy.cut_groups()
            if any(self._kept(g, high) < g.channels for g in groups)
        ]
        if steps == 0:
            return tuple(Choice(name, (low,), neutral=0.0) for name in names)
        return tuple(Range(name, low, top, neutral=0.0, step=self.options.step) for name in names)

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Cut the channels that the recipe names, and check that the model still runs."""
        import torch_pruning

        cuts = {
            g: g.channels - self._kept(g, recipe.number(f"pruning.ratio.{anatomy.knob(g.name)}"))
            for g in anatomy.groups
        }
        if not any(cuts.values()):
            return
        example = anatomy.example()
        before = _output_shape(model, example)
        graph = dependency_graph(model, example)
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=1 if self.options.importance == "l1" else 2)
        modules = dict(model.named_modules())
        for group, count in cuts.items():
            if count:
                root = modules[group.name]
                ranks = importance(coupled(graph, root, range(group.channels)))
                cut(graph, root, torch.argsort(ranks)[:count].tolist())
        if _output_shape(model, example) != before:
            raise TrialError("pruning changed the shape of the model's output; this structure is not supported")

    def _kept(self, group: Group, ratio: float) -> int:
        """Return how many channels stay: a multiple of `round_to`, at least one block, at most all."""
        block = self.options.round_to
        wanted = group.channels * (1.0 - ratio)
        # Halves round up, keeping channels; a guard against float noise such as 23.999999.
        rounded = math.floor(wanted / block + 0.5 + 1e-9) * block
        return group.channels if ratio == 0 else min(group.channels, max(block, rounded))


def _output_shape(model: nn.Module, example: torch.Tensor) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            return tuple(model(example).shape)
    except Exception as error:
        raise TrialError(f"the pruned model does not run: {type(error).__name__}: {error}") from error
