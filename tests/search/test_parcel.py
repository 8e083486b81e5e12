"""Lessons as bytes: what is hooked onto a model survives, and what all lessons share is not sent along."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.splits import Split
from paretrim.search.parcel import Material, packed, unpacked
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.distillation import Distillation, DistillationOptions
from paretrim.spaces.factors import soothe
from paretrim.spaces.lesson import InProcess, Lesson
from paretrim.spaces.masks import mask_of
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.snapshot import Snapshot
from paretrim.spaces.sparsity import Sparsity, SparsityOptions
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import small_batch, small_net


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


GRIDS = {"uniform": "Uniform", "lsq": "LearnedSteps", "codebook": "Codebook", "noise": "Noise"}


class Case:
    """A lesson with all that techniques hook onto a model."""

    def __init__(self, family: str) -> None:
        inputs, labels = small_batch(24)
        self.split = Split((inputs, labels), "train")
        self.tutor = small_net()
        self.anatomy: Anatomy = dissect(self.tutor, inputs[:2])
        self.techniques: tuple[Technique, ...] = (
            Sparsity(SparsityOptions(scope="balanced")),
            WeightQuantization(QuantizationOptions.model_validate({"families": [family]})),
            Distillation(DistillationOptions(transfers=("attention",))),
        )
        bits: dict[str, Value] = {f"quantization.bits.{name}": 4 for name, _ in self.anatomy.layer_groups()}
        more: dict[str, Value] = {
            "quantization.family": family,
            "sparsity.amount.all": 0.5,
            "distillation.transfer": "attention",
        }
        plain: dict[str, Value] = {"recovery.epochs": 2, "recovery.batch_size": 8, "recovery.learning_rate": 0.01}
        self.recipe = Recipe.of({**plain, **more, **bits, "distillation.transfer_weight": 0.5}, 3)
        self.material = Material(self.split, torch.zeros(24, 3), self.tutor)

    def lesson(self) -> Lesson:
        model = small_net()
        split, lane = self.split, Unsendable()
        school = Schooling(
            lambda size, seed: split.batches(size, seed=seed),
            len(split),
            self.material.teacher,
            cross_entropy,
            lane.working,
            self.tutor,
        )
        for part in self.techniques:
            part.attach(model, self.recipe, self.anatomy, school)
        return Lesson(model, self.recipe, self.anatomy, school, self.techniques)


class Unsendable:
    """Makes room for measurements, and belongs to one process."""

    def working(self) -> Any:
        return nullcontext()

    def __reduce__(self) -> Any:
        raise TypeError("it belongs to one process")


def losses_of(lesson: Lesson) -> list[float]:
    with InProcess().learn(lesson) as losses:
        return list(losses)


@pytest.mark.parametrize("family", ["uniform", "lsq", "codebook", "noise"])
def test_a_lesson_that_was_sent_is_learned_as_if_it_had_not_been(family: str) -> None:
    case = Case(family)
    here = case.lesson()
    there = unpacked(packed(here, case.material), case.material)
    assert there.model is not here.model
    assert {type(each).__name__ for each in there.model.modules()} >= {"Mask", GRIDS[family]}
    assert losses_of(there) == losses_of(here)
    state, sent = here.model.state_dict(), there.model.state_dict()
    assert state.keys() == sent.keys()
    assert all(torch.equal(state[name], sent[name]) for name in state)


def test_what_all_lessons_share_is_not_sent() -> None:
    case = Case("uniform")
    sent = packed(case.lesson(), case.material)
    lesson = unpacked(sent, case.material)
    assert lesson.schooling.tutor is case.tutor
    assert lesson.schooling.teacher is case.material.teacher
    other = Material(Split((torch.zeros(7, 3, 8, 8), torch.zeros(7)), "train"), None, small_net())
    assert [len(batch.index) for batch in unpacked(sent, other).schooling.batches(4, 0)] == [4, 3]


def test_a_recurrent_layer_and_a_table_are_sent_with_their_grids() -> None:
    case = Case("noise")
    model, twin = texts(), texts()
    anatomy = dissect(model, torch.zeros((2, 6), dtype=torch.int64))
    widths: dict[str, Value] = {f"quantization.bits.{name}": 4 for name, _ in anatomy.weight_only_groups()}
    recipe = Recipe.of({**case.recipe.values, **widths}, 3)
    split = Split((torch.arange(144).view(24, 6) % 40, torch.arange(24) % 3), "train")
    schooling = Schooling(lambda size, seed: split.batches(size, seed=seed), 24, None, cross_entropy, nullcontext)
    case.techniques[1].attach(model, recipe, anatomy, schooling)
    case.techniques[1].attach(twin, recipe, anatomy, schooling)
    here = Lesson(model, recipe, anatomy, schooling)
    there = unpacked(packed(here, case.material), case.material)
    assert losses_of(there) == losses_of(here)
    assert losses_of(Lesson(texts(), recipe, anatomy, schooling)) != losses_of(there)
    # What a worker has trained comes back as a snapshot.
    Snapshot.of(there.model).give(twin)
    tokens = split.first(4).inputs
    assert torch.equal(tokens.through(twin.eval()), tokens.through(there.model.eval()))


class Texts(nn.Module):
    """Tokens that an LSTM reads: ids ``(N, 6)`` to logits ``(N, 3)``."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.memory, self.head = nn.Embedding(40, 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.memory(self.table(x))[0][:, -1])  # type: ignore[no-any-return]


def texts() -> nn.Module:
    torch.manual_seed(0)
    return Texts().eval()


def test_hooks_on_weights_are_sent() -> None:
    case = Case("uniform")
    pair = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        for layer in pair:
            layer.weight.mul_(10.0)  # type: ignore[operator]
    soothe(list(pair))
    lesson = Lesson(pair, case.recipe, case.anatomy, case.lesson().schooling)
    there = unpacked(packed(lesson, case.material), case.material)
    for model in (pair, there.model):
        model(torch.ones(2, 4)).sum().backward()
    gradients = [[each.grad for each in model.parameters()] for model in (pair, there.model)]
    assert all(mine is not None and torch.equal(mine, theirs) for mine, theirs in zip(*gradients, strict=True))
    bare = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    bare.load_state_dict(pair.state_dict())
    bare(torch.ones(2, 4)).sum().backward()
    assert not torch.equal(bare[0].weight.grad, gradients[0][0])  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["asymmetric", "lsq", "power_of_two", "codebook", "noise"])
def test_a_snapshot_gives_a_copy_all_that_training_changed(family: str) -> None:
    case = Case(family)
    trained, fresh = case.lesson(), case.lesson()
    losses_of(trained)
    Snapshot.of(trained.model).give(fresh.model)
    inputs, _ = small_batch(8)
    for model in (trained.model, fresh.model):
        model.eval()
        for part in case.techniques:
            part.bake(model, case.recipe, case.anatomy)
    with torch.no_grad():
        assert torch.equal(trained.model(inputs), fresh.model(inputs))


def test_a_snapshot_holds_what_modules_count_but_not_their_mode() -> None:
    case = Case("noise")
    lesson, other = case.lesson(), case.lesson()
    losses_of(lesson)
    lesson.model.eval()
    Snapshot.of(lesson.model).give(other.model.train())
    updates = [mask.updates for layer in other.model.modules() if (mask := mask_of(layer))]
    assert updates
    assert min(updates) > 0
    assert other.model.training
