"""Low rank: a layer becomes two thin ones, where these have fewer weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn

from paretrim.errors import TrialError
from paretrim.spaces.anatomy import Anatomy, Layer, parts_of
from paretrim.spaces.dimension import Dimension
from paretrim.spaces.factors import Thrift, factorized, soothe
from paretrim.spaces.grid import stepped
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.stiffness import PLAIN, replace
from paretrim.spaces.technique import Technique, TechniqueOptions

# From here on all is kept: 0.7 + 6 * 0.05 is a little less than 1.
_ALL = 1.0 - 1e-6
# A matrix with both sides of this many is worth a second call.
_WIDE = 256

Energy = Annotated[float, Field(gt=0.0, le=1.0)]


class LowRankOptions(TechniqueOptions):
    """Settings of low rank.

    Attributes:
        energy: Smallest and largest share of the squared singular values that a layer keeps; 1 leaves it whole.
        step: Distance between the shares that are tried.
        gain: A layer is factorized only where its factors have at most this share of its weights.
    """

    energy: tuple[Energy, Energy] = (0.7, 1.0)
    step: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    gain: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9

    @model_validator(mode="after")
    def _ordered(self) -> LowRankOptions:
        if self.energy[0] >= self.energy[1]:
            raise ValueError(f"energy runs from {self.energy[0]} to {self.energy[1]}; the first must be the smaller")
        return self


class LowRank(Technique):
    """Replaces a layer by its truncated singular value decomposition.

    The rank is the smallest that keeps the wanted energy, rounded up to whole blocks of channels. Where the factors
    would save too little, in this layer as pruning has left it, the layer stays as it is. Fewer weights do not mean
    less time: there is one more layer to call. Time is measured on the artifact, so a recipe whose factors are slower
    loses there; nothing here foresees it.

    Source: linear layers as in Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient
    Evaluation", 2014; convolutions as a k x k to few channels and a 1 x 1 as in Zhang et al., "Accelerating Very Deep
    Convolutional Networks for Classification and Detection", 2016, whose rank is chosen by energy too, but which
    decomposes the responses where this decomposes the weights. Jaderberg et al., "Speeding up Convolutional Neural
    Networks with Low Rank Expansions", 2014, split a kernel into columns and rows instead, which is not done here.
    """

    name: ClassVar[str] = "lowrank"
    stage: ClassVar[int] = 30
    Options: ClassVar[type[TechniqueOptions]] = LowRankOptions
    options: LowRankOptions

    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        """Return the defaults where large matrices make up half of the model: there factors are worth a second call."""
        whole = sum(layer.weights for layer in anatomy.layers)
        wide = sum(each.weights for each in anatomy.layers if len(each.shape) == 2 and min(each.shape) >= _WIDE)
        return cls.Options() if 2 * wide >= whole else None

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one share of energy for each group of layers of which one at least can become smaller."""
        low, high = self.options.energy
        return tuple(
            stepped(f"lowrank.energy.{name}", low, high, self.options.step, neutral=1.0)
            for name, layers in anatomy.layer_groups()
            if not all(self._obstacle(layer, anatomy) for layer in layers)
        )

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return the layers that are never factorized."""
        reasons = {layer.name: self._obstacle(layer, anatomy) for layer in anatomy.layers}
        return {name: reason for name, reason in reasons.items() if reason}

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Factorize the layers that the recipe names, and check that the model still runs."""
        changed = []
        for name, layers in anatomy.layer_groups():
            energy = recipe.number(f"lowrank.energy.{name}", 1.0)
            if energy < _ALL:
                changed += [layer.name for layer in layers if self._factorize(model, layer, energy, anatomy)]
        if changed:
            _try(model, anatomy, changed)

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Let the factors learn no faster than the layer that they stand for would."""
        for layer in anatomy.layers:
            soothe([model.get_submodule(part) for part in parts_of(model, layer.name)])

    def _factorize(self, model: nn.Module, layer: Layer, energy: float, anatomy: Anatomy) -> bool:
        """Factorize a layer where that can be done and saves enough; tell whether it was."""
        module = dict(model.named_modules()).get(layer.name)  # gone where its block was removed
        if module is None or type(module) not in PLAIN or self._obstacle(layer, anatomy):
            return False
        pair = factorized(module, energy, self._thrift(anatomy))
        if pair is not None:
            replace(model, layer.name, pair)
        return pair is not None

    def _thrift(self, anatomy: Anatomy) -> Thrift:
        return Thrift(anatomy.abilities.channel_multiple, self.options.gain)

    def _obstacle(self, layer: Layer, anatomy: Anatomy) -> str:
        """Return why a layer is never factorized, or nothing."""
        if layer.rigid:
            return layer.rigid
        if len(layer.shape) < 2:
            return "the shape of its weights is not known"
        thrift = self._thrift(anatomy)
        least = thrift.rank(1, layer.shape)
        if thrift.pays(least, layer.shape):
            return ""
        return f"is too small: factors of rank {least} would have more than {self.options.gain:.0%} of its weights"


def _try(model: nn.Module, anatomy: Anatomy, changed: list[str]) -> None:
    try:
        with torch.no_grad():
            anatomy.example().through(model)
    except Exception as error:
        raise TrialError(
            f"the model does not run with {', '.join(changed)} factorized: {type(error).__name__}: {error}; turn lowrank off"
        ) from error
