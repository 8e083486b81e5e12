"""Structured pruning: whole output channels and attention heads are cut, so that the model is smaller and faster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from paretrim.errors import TrialError
from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.attention import Heads, cut_heads
from paretrim.spaces.cutting import Cutter, Rounding, even_counts, ranked_counts
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value
from paretrim.spaces.group_penalty import GroupPenalty
from paretrim.spaces.importance import IMPORTANCES, Importance, head_scores, seed_of, take_gradients
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import recover
from paretrim.spaces.rewriting import frozen_kept, rewrite
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Epochs = Annotated[int, Field(ge=0, le=1000)]


class PruningOptions(TechniqueOptions):
    """Settings of structured pruning.

    Attributes:
        ratio: Smallest and largest share of a group's channels to cut.
        step: Distance between the ratios that are tried.
        importance: How channels are ranked, see `paretrim.spaces.importance.channel_scores`; of several names, one is
            chosen in each trial.
        scope: ``group`` has a ratio for each group of coupled layers, ``balanced`` one ratio for all; ``global`` ranks
            the channels of all groups together, and cuts a share of them all.
        round_to: Channel counts are multiples of this, since runtimes compute channels in blocks; ``auto`` for the
            target's blocks.
        least_kept: Share of its channels that each group keeps; one channel, and one block, at least.
        heads: Whether heads of attentions are cut too.
        steps: In how many steps channels are cut.
        step_epochs: Epochs of training between two steps.
        sparsity_epochs: Epochs of training before the cut that press channels towards zero.
        sparsity_strength: How hard they press.
    """

    ratio: tuple[Share, Share] = (0.0, 0.75)
    step: Annotated[float, Field(gt=0.0, le=0.5)] = 0.125
    importance: Importance | Annotated[tuple[Importance, ...], Field(min_length=1)] = "l2"
    scope: Literal["group", "balanced", "global"] = "group"
    round_to: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    least_kept: Share = 0.05
    heads: bool = True
    steps: Annotated[int, Field(ge=1, le=64)] = 1
    step_epochs: Epochs = 1
    sparsity_epochs: Epochs = 0
    sparsity_strength: Annotated[float, Field(gt=0.0, le=10.0)] = 1e-3

    @field_validator("importance", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        # Of a choice between a name and a list of names, pydantic would tell of both what is wrong.
        if value in ([], ()):
            raise ValueError(f"is empty; name at least one of {', '.join(IMPORTANCES)}")
        for name in value if isinstance(value, list | tuple) else [value]:
            if name not in IMPORTANCES:
                raise ValueError(f"input should be one of {', '.join(IMPORTANCES)}; given {name!r:.40}")
        return value

    @field_validator("importance")
    @classmethod
    def _different(cls, value: Importance | tuple[Importance, ...]) -> Importance | tuple[Importance, ...]:
        return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value

    @field_validator("step_epochs")
    @classmethod
    def _between_steps(cls, value: int, info: ValidationInfo) -> int:
        return cls.heeded(value, info, info.data.get("steps") == 1, "with one step; give steps of 2 or more")

    @field_validator("sparsity_strength")
    @classmethod
    def _in_sparsity_epochs(cls, value: float, info: ValidationInfo) -> float:
        idle = info.data.get("sparsity_epochs") == 0
        return cls.heeded(value, info, idle, "without epochs in which to press; give sparsity_epochs of 1 or more")

    @model_validator(mode="after")
    def _ordered(self) -> PruningOptions:
        if self.ratio[0] >= self.ratio[1]:
            raise ValueError(f"ratio runs from {self.ratio[0]} to {self.ratio[1]}; the first must be the smaller")
        return self

    @property
    def importances(self) -> tuple[Importance, ...]:
        """The importances to choose from."""
        return self.importance if isinstance(self.importance, tuple) else (self.importance,)


class StructuredPruning(Technique):
    """Cuts the least important channels of each group of coupled layers, and heads of attentions.

    The groups are found by Torch-Pruning's dependency graph (Fang et al., "DepGraph: Towards Any Structural Pruning",
    2023). Cutting in steps with training between them is as in Molchanov et al., "Pruning Convolutional Neural Networks
    for Resource Efficient Inference", 2017.
    """

    name: ClassVar[str] = "pruning"
    stage: ClassVar[int] = 10
    by_default: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = PruningOptions
    options: PruningOptions

    def needs_costs(self) -> bool:
        """Tell that learned sparsity presses those channels hardest that cost most time."""
        return self.options.sparsity_epochs > 0

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return the ratios of channels and heads, then what matters only where some ratio is above 0."""
        ratios = (*self._channel_ratios(anatomy), *self._head_ratios(anatomy))
        some = tuple(Condition(each.name) for each in ratios)
        options, further = self.options, []
        if len(options.importances) > 1:
            further.append(Choice("pruning.importance", options.importances, options.importances[0], some))
        for name, value, neutral in self._constants():
            further.append(Choice(f"pruning.{name}", (value,), neutral, some))
        return (*ratios, *(further if ratios else ()))

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return the layers whose channels stay, and the attentions whose heads do, with the reasons."""
        blocks = self._rounding(anatomy)
        narrow = {
            layer: f"has {group.channels} channels, of which none can go in blocks of {blocks.of(group)}"
            for group in anatomy.groups
            if blocks.kept(group, self.options.ratio[1]) == group.channels
            for layer in group.layers
        }
        return {**dict(anatomy.left_out), **narrow, **dict(anatomy.whole_attentions)}

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Cut the channels and heads that the recipe names, and check that the model still runs.

        Raises:
            TrialError: The model does not run afterwards.
        """
        heads = {each: self._heads_gone(each, recipe, anatomy) for each in anatomy.heads}
        ratios = {group.name: self._ratio(group.name, recipe, anatomy) for group in anatomy.groups}
        if not any(self._cuts_channels(ratios, anatomy)) and not any(heads.values()):
            return
        before = _output_shape(model, anatomy.example())
        rewrite(model, anatomy.example())
        self._learn_sparsity(model, recipe, anatomy, schooling, [name for name, ratio in ratios.items() if ratio > 0])
        steps = int(recipe.number("pruning.steps", 1))
        for step in range(1, steps + 1):
            with frozen_kept(model):
                self._cut(model, recipe, anatomy, schooling, ratios, heads, step / steps)
            if _output_shape(model, anatomy.example()) != before:
                raise TrialError("pruning changed the shape of the model's output; this structure is not supported")
            if step < steps:
                _train(model, recipe, schooling, int(recipe.number("pruning.step_epochs", 0)))

    def _cut(
        self,
        model: nn.Module,
        recipe: Recipe,
        anatomy: Anatomy,
        schooling: Schooling,
        ratios: Mapping[str, float],
        heads: Mapping[Heads, int],
        done: float,
    ) -> None:
        kind = str(recipe.values.get("pruning.importance", self.options.importances[0]))
        if kind == "taylor":
            take_gradients(model, schooling, recipe.seed)
        # Before the channels, whose graph would hold the layers of heads as they were.
        for group, gone in heads.items():
            _cut_heads(model, group, round(gone * done), kind, recipe.seed)
        cutter = Cutter(model, anatomy, kind, recipe.seed)
        rounding = self._rounding(anatomy)
        if self.options.scope == "global":
            share = recipe.number("pruning.ratio.all") * done
            cutter.cut(ranked_counts(cutter.parts, cutter.scores(), share, rounding))
        else:
            cutter.cut(even_counts(cutter.parts, ratios, rounding, done))
        model.zero_grad(set_to_none=True)

    def _learn_sparsity(
        self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling, groups: list[str]
    ) -> None:
        epochs = int(recipe.number("pruning.sparsity_epochs", 0))
        if epochs and groups:
            strength = recipe.number("pruning.sparsity_strength")
            penalty = GroupPenalty(model, anatomy, groups, strength, schooling.channel_ms)
            try:
                _train(model, recipe, replace(schooling, penalties=(*schooling.penalties, penalty)), epochs)
            finally:
                penalty.close()

    def _channel_ratios(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        low, high = self.options.ratio
        rounding = self._rounding(anatomy)
        names = [
            name for name, groups in anatomy.cut_groups() if any(rounding.kept(g, high) < g.channels for g in groups)
        ]
        if self.options.scope != "group":
            names = ["all"] if names else []
        # The upper end is put on the grid of steps that starts at the lower one.
        steps = math.floor((high - low) / self.options.step + 1e-9)
        if steps == 0:
            return tuple(Choice(f"pruning.ratio.{name}", (low,), neutral=0.0) for name in names)
        top = low + steps * self.options.step
        return tuple(Range(f"pruning.ratio.{name}", low, top, neutral=0.0, step=self.options.step) for name in names)

    def _head_ratios(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return a share of heads for each knob; its steps are the heads of the attention that has most."""
        most: dict[str, int] = {}
        for each in anatomy.heads if self.options.heads else ():
            name = self._knob(each.name, anatomy)
            most[name] = max(most.get(name, 1), each.heads)
        tops = {name: min(count - 1, math.floor(self.options.ratio[1] * count + 1e-9)) for name, count in most.items()}
        return tuple(
            Range(f"pruning.heads.{name}", 0.0, tops[name] / count, neutral=0.0, step=1 / count)
            for name, count in most.items()
            if tops[name] > 0
        )

    def _constants(self) -> list[tuple[str, Value, Value]]:
        """Return (name, value, neutral value) of what is constant within a job but belongs to the recipe."""
        options = self.options
        found: list[tuple[str, Value, Value]] = []
        if options.steps > 1:
            found += [("steps", options.steps, 1), ("step_epochs", options.step_epochs, 0)]
        if options.sparsity_epochs:
            strength = options.sparsity_strength
            found += [("sparsity_epochs", options.sparsity_epochs, 0), ("sparsity_strength", strength, strength)]
        return found

    def _knob(self, name: str, anatomy: Anatomy) -> str:
        return anatomy.knob(name) if self.options.scope == "group" else "all"

    def _ratio(self, name: str, recipe: Recipe, anatomy: Anatomy) -> float:
        return recipe.number(f"pruning.ratio.{self._knob(name, anatomy)}")

    def _heads_gone(self, group: Heads, recipe: Recipe, anatomy: Anatomy) -> int:
        share = recipe.number(f"pruning.heads.{self._knob(group.name, anatomy)}")
        return min(group.heads - 1, math.floor(group.heads * share + 0.5 + 1e-9) if share else 0)

    def _cuts_channels(self, ratios: Mapping[str, float], anatomy: Anatomy) -> list[bool]:
        rounding = self._rounding(anatomy)
        if self.options.scope == "global":
            return [ratio > 0 for ratio in ratios.values()]
        return [rounding.kept(each, ratios[each.name]) < each.channels for each in anatomy.groups]

    def _rounding(self, anatomy: Anatomy) -> Rounding:
        block = self.options.round_to
        return Rounding(anatomy.abilities.channel_multiple if block == "auto" else block, self.options.least_kept)


def _cut_heads(model: nn.Module, group: Heads, gone: int, kind: str, seed: int) -> None:
    """Cut heads until so many are gone, the least important first; an attention that is gone itself has none."""
    attention = dict(model.named_modules()).get(group.name)
    now = getattr(attention, group.count, None)
    if not isinstance(now, int) or now <= group.heads - gone:
        return
    scores = head_scores(kind, model, group, seed_of(seed, group.name))
    cut_heads(model, group, torch.argsort(scores, stable=True)[: now - (group.heads - gone)].tolist())


def _train(model: nn.Module, recipe: Recipe, schooling: Schooling, epochs: int) -> None:
    for _ in recover(model, recipe, schooling, epochs=epochs):
        pass  # only the course of the last training is recorded


def _output_shape(model: nn.Module, example: Inputs) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            return tuple(example.through(model).shape)
    except Exception as error:
        raise TrialError(f"the pruned model does not run: {type(error).__name__}: {error}") from error
