"""What every technique keeps to, as tests that the author of a technique runs on it.

Subclass the contract in a test file of yours and give it one pytest fixture::

    class TestMine(TechniqueContract):
        @pytest.fixture
        def technique(self) -> Technique:
            return Mine(Mine.Options())

This module does not import pytest; nothing of paretrim does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from paretrim.spaces.anatomy import LAYER_TYPES, Anatomy, dissect
from paretrim.spaces.dimension import Choice, Dimension, Range, Value, existing
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions

INPUT_SHAPE = (3, 8, 8)
CLASSES = 5
_RECIPES = 6


class SmallNet(nn.Module):
    """Convolutions, batch normalization and a residual addition: ``(N, 3, 8, 8)`` to logits ``(N, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 16, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 3, 8, 8)`` to logits ``(N, 5)``."""
        x = functional.relu(self.norm(self.stem(x)))
        y = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(x + self.norm2(self.conv2(y)))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def small_net(seed: int = 0) -> SmallNet:
    """Return a network in evaluation mode whose batch normalization is not the identity."""
    generator = torch.Generator().manual_seed(seed)
    net = SmallNet()
    with torch.no_grad():
        for parameter in net.parameters():
            bound = 1.0 / math.sqrt(max(1, parameter[0].numel()))
            parameter.uniform_(-bound, bound, generator=generator)
        for norm in (net.norm, net.norm1, net.norm2):
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            statistics = dict(norm.named_buffers())
            statistics["running_mean"].uniform_(-0.3, 0.3, generator=generator)
            statistics["running_var"].uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def small_batch(count: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs ``(count, 3, 8, 8)`` and labels ``(count,)`` that fit `small_net`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn((count, *INPUT_SHAPE), generator=generator)
    return inputs, torch.randint(0, CLASSES, (count,), generator=generator)


@dataclass(frozen=True)
class SmallBatch:
    """Samples for `small_net`, as a technique or recovery training gets them."""

    inputs: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor


def small_schooling(count: int = 24) -> Schooling:
    """Return what is there to train `small_net` with: `count` samples, the uncompressed network as the teacher."""
    inputs, labels = small_batch(count)
    tutor = small_net()

    def batches(size: int, seed: int) -> Iterator[SmallBatch]:
        for index in torch.randperm(count, generator=torch.Generator().manual_seed(seed)).split(size):
            yield SmallBatch(inputs[index], labels[index], index)

    with torch.no_grad():
        taught = tutor(inputs)
    return Schooling(batches, count, taught, _plain, nullcontext, tutor=tutor)


def random_recipe(dimensions: Sequence[Dimension], seed: int) -> Recipe:
    """Return a recipe with a random value for each dimension."""
    source = random.Random(seed)
    return Recipe.of(existing(dimensions, {each.name: _drawn(each, source) for each in dimensions}), seed)


def _drawn(dimension: Dimension, source: random.Random) -> Value:
    if isinstance(dimension, Choice):
        return source.choice(dimension.values)
    low, high = dimension.low, dimension.high
    if dimension.step is not None:
        return min(high, low + dimension.step * source.randint(0, round((high - low) / dimension.step)))
    if dimension.log:
        return min(high, max(low, math.exp(source.uniform(math.log(low), math.log(high)))))
    return source.uniform(low, high)


class TechniqueContract:
    """What a technique keeps to. A subclass gives the pytest fixture ``technique``."""

    def test_options_have_defaults(self, technique: Technique) -> None:
        """``space: {mine: {}}`` in a job file must be enough."""
        kind = type(technique)
        made = kind(kind.Options())
        _require(isinstance(made.options, TechniqueOptions), f"{kind.__name__}.Options() is not an Options")

    def test_dimension_names_are_unique_and_begin_with_the_techniques(self, technique: Technique) -> None:
        """Dimensions of all techniques share one recipe."""
        names = [dimension.name for dimension in technique.dimensions(_anatomy())]
        strange = [name for name in names if not name.startswith(f"{technique.name}.")]
        _require(not strange, f"{strange} must begin with '{technique.name}.'")
        _require(len(set(names)) == len(names), f"names come more than once: {sorted(names)}")

    def test_dimensions_can_be_searched(self, technique: Technique) -> None:
        """A range runs upwards, a choice has something to choose from."""
        for dimension in technique.dimensions(_anatomy()):
            if isinstance(dimension, Range):
                _require(dimension.low < dimension.high, f"{dimension.name} has its ends the wrong way round")
                _require(dimension.low > 0 or not dimension.log, f"{dimension.name}: a log scale starts above 0")
            else:
                _require(len(dimension.values) > 0, f"{dimension.name} has no values")

    def test_neutral_values_leave_the_outputs_unchanged(self, technique: Technique) -> None:
        """The baseline is the recipe of all neutral values."""
        anatomy, inputs = _anatomy(), small_batch()[0]
        recipe = _neutral(technique, anatomy)
        model = small_net()
        technique.reshape(model, recipe, anatomy, small_schooling())
        technique.attach(model, recipe, anatomy, small_schooling())
        technique.bake(model, recipe, anatomy)
        with torch.no_grad():
            difference = float((model.eval()(inputs) - small_net()(inputs)).abs().max())
        _require(difference < 1e-5, f"outputs differ by up to {difference:.3g} at neutral values")
        stored = technique.storage(model, recipe, anatomy)
        _require(not stored, f"neutral values store {sorted(stored)} otherwise than as 32-bit floats")

    def test_random_recipes_build_train_and_bake(self, technique: Technique) -> None:
        """Every point of the space must be a trial that ends well."""
        anatomy = _anatomy()
        for recipe in _recipes(technique, anatomy):
            _check_life(technique, recipe, anatomy)

    def test_the_same_recipe_makes_the_same_model(self, technique: Technique) -> None:
        """A recipe, its seed included, is all that is needed to make a model again."""
        anatomy = _anatomy()
        for recipe in _recipes(technique, anatomy):
            first = _check_life(technique, recipe, anatomy).state_dict()
            second = _check_life(technique, recipe, anatomy).state_dict()
            same = first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
            _require(same, f"two models of the recipe {recipe.to_json()} differ")

    def test_anchors_are_recipes(self, technique: Technique) -> None:
        """Anchors are built, trained and measured as any other recipe."""
        anatomy = _anatomy()
        neutral: dict[str, Value] = {each.name: each.neutral for each in technique.dimensions(anatomy)}
        for kind, values in technique.anchors(anatomy).items():
            unknown = sorted(set(values) - set(neutral))
            _require(not unknown, f"the anchor '{kind}' names {unknown}, which are no dimensions")
            made = existing(technique.dimensions(anatomy), {**neutral, **values})
            _check_life(technique, Recipe.of(made), anatomy)


def _anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0])


def _neutral(technique: Technique, anatomy: Anatomy) -> Recipe:
    dimensions = technique.dimensions(anatomy)
    return Recipe.of(existing(dimensions, {each.name: each.neutral for each in dimensions}))


def _recipes(technique: Technique, anatomy: Anatomy) -> Iterator[Recipe]:
    dimensions = technique.dimensions(anatomy)
    return (random_recipe(dimensions, seed) for seed in range(_RECIPES))


def _check_life(technique: Technique, recipe: Recipe, anatomy: Anatomy) -> nn.Module:
    """Build a model, train it one step, bake it, check it on the way, and return it."""
    model, schooling = small_net(), small_schooling()
    technique.reshape(model, recipe, anatomy, schooling)
    technique.attach(model, recipe, anatomy, schooling)
    _check_answers(model, f"before training, with {recipe.to_json()}")
    penalty = technique.penalty(model, recipe, anatomy, schooling)
    schooling = replace(schooling, loss=technique.loss(_plain, recipe), penalties=() if penalty is None else (penalty,))
    for done in (0.0, 0.5, 1.0):
        technique.advance(model, recipe, anatomy, done)
        _check_step(model, schooling)
    if penalty is not None:
        penalty.close()
    technique.bake(model, recipe, anatomy)
    _check_answers(model, f"after baking, with {recipe.to_json()}")
    _check_storage(model, technique, recipe, anatomy)
    return model


def _check_answers(model: nn.Module, when: str) -> None:
    inputs = small_batch()[0]
    with torch.no_grad():
        outputs = model.eval()(inputs)
    _require(outputs.shape == (len(inputs), CLASSES), f"{when}: the output's shape is {tuple(outputs.shape)}")
    _require(bool(torch.isfinite(outputs).all()), f"{when}: outputs are NaN or infinite")


def _check_step(model: nn.Module, schooling: Schooling) -> None:
    batch = next(iter(schooling.batches(12, 0)))
    teacher = None if schooling.teacher is None else schooling.teacher[batch.index]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    value = schooling.loss(model.train()(batch.inputs), batch.labels, teacher)
    for penalty in schooling.penalties:
        value = value + penalty(batch)
    torch.autograd.backward(value)
    optimizer.step()
    _require(
        value.dim() == 0 and bool(torch.isfinite(value)), f"the loss is {value.detach()}; a finite scalar is needed"
    )
    moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    _require(moved, "a training step changes no parameter: the loss has no gradient")


def _check_storage(model: nn.Module, technique: Technique, recipe: Recipe, anatomy: Anatomy) -> None:
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYER_TYPES)}
    for name, stored in technique.storage(model, recipe, anatomy).items():
        _require(name in layers, f"storage names '{name}', which is no layer of the model")
        _require(1 < stored.bits < 32, f"storage gives {stored.bits} bits for '{name}'")
        kept = isinstance(model.get_submodule(name).weight, nn.Parameter)
        _require(kept, f"after baking, the weight of '{name}' is no parameter, so it could not be stored")


def _plain(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


class FakeOptions(TechniqueOptions):
    """Settings of the fake.

    Attributes:
        most: Largest share by which weights become smaller.
    """

    most: float = 0.5


class FakeTechnique(Technique):
    """Scales each layer's weights down: a technique of a few lines, for tests of what handles techniques."""

    name: ClassVar[str] = "fake"
    Options: ClassVar[type[TechniqueOptions]] = FakeOptions
    options: FakeOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one share for each layer."""
        return tuple(Range(f"fake.shrink.{each.name}", 0.0, self.options.most, 0.0) for each in anatomy.layers)

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Scale the weights."""
        with torch.no_grad():
            for layer in anatomy.layers:
                model.get_parameter(f"{layer.name}.weight").mul_(1.0 - recipe.number(f"fake.shrink.{layer.name}"))
