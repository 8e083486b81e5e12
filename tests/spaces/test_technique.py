"""Techniques in general: how they are found, and that their contract catches what breaks it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from paretrim.errors import UsageError
from paretrim.evaluators.storage import Storage
from paretrim.spaces import technique as techniques
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Loss, Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.spaces.testing import FakeOptions, FakeTechnique, TechniqueContract


class Idle(Technique):
    """Overrides nothing."""

    name = "idle"


class TestFake(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return FakeTechnique(FakeOptions())


class TestIdle(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Idle(TechniqueOptions())


class TestFinding:
    def test_the_built_in_techniques_are_installed(self) -> None:
        installed = techniques.installed()
        assert {"pruning", "quantization", "distillation", "recovery"} <= installed.keys()
        assert all(kind.name == name for name, kind in installed.items())

    def test_a_technique_is_found_by_name(self) -> None:
        assert techniques.find("pruning") is techniques.installed()["pruning"]

    def test_an_unknown_name_gets_a_suggestion(self) -> None:
        with pytest.raises(UsageError, match=r"unknown technique 'prunning'; allowed: .*did you mean 'pruning'"):
            techniques.find("prunning")

    @pytest.mark.parametrize("name", ["pruning", "quantization", "distillation", "recovery"])
    def test_settings_are_frozen_and_known(self, name: str) -> None:
        options = techniques.find(name).Options()
        with pytest.raises(ValidationError):
            type(options).model_validate({"no_such_setting": 1})
        with pytest.raises(ValidationError):
            setattr(options, next(iter(type(options).model_fields)), 1)


class Stranger(FakeTechnique):
    """Names its dimension after another technique."""

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        return (Range("pruning.ratio", 0.0, 1.0, neutral=0.0),)


class Repeating(FakeTechnique):
    """Has a dimension twice."""

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        return super().dimensions(anatomy) * 2


class Upside(FakeTechnique):
    """Has a range that runs downwards."""

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        return (Range("fake.shrink.stem", 1.0, 0.0, neutral=0.0),)


class Bottomless(FakeTechnique):
    """Has nothing to choose from."""

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        return (Choice("fake.kind", (), neutral=None),)


class Meddling(FakeTechnique):
    """Changes the model at neutral values."""

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        with torch.no_grad():
            next(model.parameters()).mul_(1.5)


class Widening(FakeTechnique):
    """Changes the shape of the output."""

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        model.add_module("head", nn.Linear(16, 7))


class Exploding(FakeTechnique):
    """Bakes NaN into the model."""

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)


class Flat(FakeTechnique):
    """Has a loss without a gradient to the model."""

    def loss(self, plain: Loss, recipe: Recipe) -> Loss:
        return lambda outputs, labels, teacher: torch.ones((), requires_grad=True) * 2


class Random(FakeTechnique):
    """Does not follow the seed of the recipe."""

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)


class Pointing(FakeTechnique):
    """Tells bits for a layer that is not there."""

    def storage(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> dict[str, Storage]:
        return {"tail": Storage(8)} if any(recipe.values.values()) else {}


class Always8(FakeTechnique):
    """Stores 8 bits at neutral values."""

    def storage(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> dict[str, Storage]:
        return {"head": Storage(8)}


class Anchored(FakeTechnique):
    """Has an anchor with an unknown dimension."""

    def anchors(self, anatomy: Anatomy) -> dict[str, dict[str, int]]:
        return {"half": {"fake.shrink.tail": 1}}


class TestContractHasTeeth:
    @pytest.mark.parametrize(
        ("broken", "check", "complaint"),
        [
            (Stranger, "dimension_names_are_unique_and_begin_with_the_techniques", "must begin with 'fake.'"),
            (Repeating, "dimension_names_are_unique_and_begin_with_the_techniques", "more than once"),
            (Upside, "dimensions_can_be_searched", "wrong way round"),
            (Bottomless, "dimensions_can_be_searched", "no values"),
            (Meddling, "neutral_values_leave_the_outputs_unchanged", "outputs differ"),
            (Always8, "neutral_values_leave_the_outputs_unchanged", "otherwise than as 32-bit floats"),
            (Widening, "random_recipes_build_train_and_bake", r"output's shape is \(12, 7\)"),
            (Exploding, "random_recipes_build_train_and_bake", "NaN"),
            (Flat, "random_recipes_build_train_and_bake", "no gradient"),
            (Pointing, "random_recipes_build_train_and_bake", "'tail', which is no layer"),
            (Random, "the_same_recipe_makes_the_same_model", "differ"),
            (Anchored, "anchors_are_recipes", "no dimensions"),
        ],
    )
    def test_a_broken_technique_is_caught(self, broken: type[FakeTechnique], check: str, complaint: str) -> None:
        with pytest.raises(AssertionError, match=complaint):
            getattr(TechniqueContract(), f"test_{check}")(broken(FakeOptions()))


def test_neither_the_package_nor_its_contracts_need_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import paretrim; paretrim.Splits; "
    code += "import paretrim.spaces.testing, paretrim.evaluators.testing; print('imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr
