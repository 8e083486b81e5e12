"""The space of one job: its techniques on its model, as one list of dimensions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from paretrim.search.job import Job
from paretrim.spaces import technique
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Dimension, Value, existing
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import Recovery
from paretrim.spaces.technique import TRAINING, Technique
from paretrim.tracking.records import BASELINE


@dataclass(frozen=True)
class Space:
    """What can be tried on a model.

    Attributes:
        techniques: In the order in which they act.
        anatomy: The model's layers and groups.
        dimensions: All knobs.
    """

    techniques: tuple[Technique, ...]
    anatomy: Anatomy
    dimensions: tuple[Dimension, ...]

    @property
    def constants(self) -> dict[str, Value]:
        """The values of the knobs that have only one."""
        return {d.name: d.values[0] for d in self.dimensions if isinstance(d, Choice) and len(d.values) == 1}

    @property
    def searched(self) -> tuple[Dimension, ...]:
        """The knobs with more than one value."""
        return tuple(d for d in self.dimensions if d.name not in self.constants)

    def recipe(self, values: dict[str, Value], seed: int) -> Recipe:
        """Return the recipe of sampled values, the constants added."""
        return Recipe.of(existing(self.dimensions, {**self.constants, **values}), seed)

    @property
    def anchored(self) -> frozenset[str]:
        """The kinds of the recipes that stand in every table, whatever they cost."""
        return frozenset({BASELINE, *(kind for part in self.techniques for kind in part.anchors(self.anatomy))})

    def anchors(self, seed: int) -> dict[str, Recipe]:
        """Return the recipes that stand in every table: the baseline, plain float16 and plain int8."""
        neutral: dict[str, Value] = {d.name: d.neutral for d in self.dimensions}
        found = {BASELINE: Recipe.of(existing(self.dimensions, neutral), seed)}
        for part in self.techniques:
            for kind, values in part.anchors(self.anatomy).items():
                found[kind] = Recipe.of(existing(self.dimensions, {**neutral, **values}), seed)
        return found

    def fingerprint(self) -> str:
        """Return a hash of the dimensions and of the techniques' settings."""
        settings = [f"{part.name} {part.options.model_dump_json()}" for part in self.techniques]
        return hashlib.sha256("\n".join([*settings, *map(repr, self.dimensions)]).encode()).hexdigest()


def _ruled_out(name: str, kind: type[Technique], before: list[Technique]) -> bool:
    """Tell whether a technique would be of no use, or does not go together with one that acts before it.

    A job that asks for two that exclude each other is refused; here one gives way that nobody asked for by name.
    """
    idle = kind.stage >= TRAINING and kind is not Recovery and not any(isinstance(part, Recovery) for part in before)
    return idle or any(part.name in kind.excludes or name in part.excludes for part in before)


def build(job: Job, anatomy: Anatomy) -> Space:
    """Build the space of a job on a model."""
    techniques: list[Technique] = []
    for name, kind in sorted(technique.installed().items(), key=lambda item: (item[1].stage, item[0])):
        options = kind.suited(anatomy) if isinstance(job.space, str) else job.space[name]
        if options is None and kind is WeightQuantization:
            # Nothing of it is searched, but float16 and int8 of the uncut model stand in every table.
            options = QuantizationOptions(weight_bits=("none",))
        if options is not None and not _ruled_out(name, kind, techniques):
            techniques.append(kind(options))
    dimensions = tuple(d for part in techniques for d in part.dimensions(anatomy))
    return Space(tuple(techniques), anatomy, dimensions)
