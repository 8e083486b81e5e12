"""Depth: whole blocks are removed that change the model's answers least."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from paretrim.errors import TrialError
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.blocks import Block, drop
from paretrim.spaces.dimension import Choice, Dimension
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions

_BATCH_SIZE = 32
# With fewer blocks each is half the model or a third.
_ENOUGH_BLOCKS = 4


class DepthOptions(TechniqueOptions):
    """Settings of the removal of blocks.

    Attributes:
        most: Largest share of the removable blocks that goes.
        batches: How many batches of 32 training samples rank the blocks.
    """

    most: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    batches: Annotated[int, Field(ge=1, le=1000)] = 4


class Depth(Technique):
    """Removes the blocks of least influence, which is how far the model's outputs move without the block.

    As for the layers of language models in Men et al., "ShortGPT: Layers in Large Language Models are More Redundant
    Than You Expect", 2024, but by the change of the outputs rather than of what the block itself passes on.
    """

    name: ClassVar[str] = "depth"
    stage: ClassVar[int] = 5
    by_default: ClassVar[bool] = False
    Options: ClassVar[type[TechniqueOptions]] = DepthOptions
    options: DepthOptions

    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        """Return the defaults where the model has enough blocks for one to be spared."""
        return cls.Options() if len(anatomy.blocks) >= _ENOUGH_BLOCKS else None

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return how many blocks go, where there are any that could."""
        most = int(len(anatomy.blocks) * self.options.most + 1e-9)
        return (Choice("depth.blocks", tuple(range(most + 1)), neutral=0),) if most else ()

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return the blocks that stay in any case, with the reasons."""
        return dict(anatomy.fixed_blocks)

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Remove as many blocks as the recipe says.

        Raises:
            TrialError: The model does not run without them all.
        """
        count = int(recipe.number("depth.blocks"))
        if not count:
            return
        moved = influences(model, anatomy.blocks, schooling, self.options.batches, recipe.seed)
        # Where two are equal, the later one goes: what stands first is read by all that follows.
        ranked = sorted(zip(moved, range(len(moved)), strict=True), key=lambda pair: (pair[0], -pair[1]))
        example = anatomy.example()
        with torch.no_grad():
            before = example.through(model).shape
        for _, position in ranked[:count]:
            drop(model, anatomy.blocks[position])
        try:
            with torch.no_grad():
                after = example.through(model).shape
        except Exception as error:
            raise TrialError(
                f"the model does not run without {count} blocks: {type(error).__name__}: {error}; lower space.depth.most"
            ) from error
        if after != before:
            raise TrialError(f"without {count} blocks the model's output has another shape; lower space.depth.most")


def influences(
    model: nn.Module, blocks: Sequence[Block], schooling: Schooling, batches: int, seed: int = 0
) -> list[float]:
    """Return how far the model's outputs move without each block: mean squared difference over the outputs' variance.

    Args:
        model: In evaluation mode; it is not changed.
        blocks: Its blocks.
        schooling: Gives the samples.
        batches: How many batches of 32.
        seed: Of the samples' order.
    """
    samples = [batch.inputs for batch in islice(schooling.batches(_BATCH_SIZE, seed), batches)]
    twin = copy.deepcopy(model).eval()

    def outputs(of: nn.Module) -> torch.Tensor:
        answers = []
        for inputs in samples:
            with schooling.working(), torch.no_grad():
                answers.append(inputs.through(of))
        return torch.cat(answers)

    whole = outputs(twin)
    spread = float(whole.var()) + 1e-12
    moved = []
    for block in blocks:
        without = copy.deepcopy(twin)
        drop(without, block)
        moved.append(float((outputs(without) - whole).square().mean()) / spread)
    return moved
