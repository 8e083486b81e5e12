"""Recovery training on a small task."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from paretrim.errors import TrialError
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.splits import Split
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Choice, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import Recovery, RecoveryOptions, recover
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, small_batch, small_net


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Recovery(RecoveryOptions())


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def blobs(count: int = 96) -> Split:
    """Return three clouds of points, which a small network can tell apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[3.0, 0.0], [-3.0, 2.0], [0.0, -3.0]])
    return Split((centres[labels] + torch.randn((count, 2), generator=generator), labels), "train")


def schooling(split: Split, teacher: torch.Tensor | None = None) -> Schooling:
    return Schooling(
        batches=lambda size, seed: split.batches(size, seed=seed),
        samples=len(split),
        teacher=teacher,
        loss=cross_entropy,
        working=nullcontext,
    )


def recipe_of(epochs: int, batch_size: int = 16, learning_rate: float = 0.05, seed: int = 0) -> Recipe:
    values = {
        "recovery.epochs": epochs,
        "recovery.batch_size": batch_size,
        "recovery.learning_rate": learning_rate,
        "recovery.momentum": 0.9,
        "recovery.weight_decay": 1e-4,
    }
    return Recipe.of(values, seed)


def student(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)).eval()


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


class TestLearning:
    def test_the_loss_falls_and_the_task_is_learned(self) -> None:
        net, split = student(), blobs()
        losses = list(recover(net, recipe_of(epochs=8), schooling(split)))
        batch = split.first(len(split))
        accuracy = float((batch.inputs.through(net).argmax(dim=1) == batch.labels).float().mean())
        assert len(losses) == 8
        assert losses[-1] < 0.5 * losses[0]
        assert accuracy > 0.95

    def test_zero_epochs_change_nothing(self) -> None:
        net = student()
        assert list(recover(net, recipe_of(epochs=0), schooling(blobs()))) == []
        assert same_weights(net, student())

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        one, other = student(dropout=0.3), student(dropout=0.3)
        first = list(recover(one, recipe_of(epochs=2, seed=3), schooling(blobs())))
        torch.manual_seed(99)
        second = list(recover(other, recipe_of(epochs=2, seed=3), schooling(blobs())))
        assert first == second
        assert same_weights(one, other)

    def test_another_seed_gives_other_weights(self) -> None:
        one, other = student(), student()
        list(recover(one, recipe_of(epochs=1, seed=3), schooling(blobs())))
        list(recover(other, recipe_of(epochs=1, seed=4), schooling(blobs())))
        assert not same_weights(one, other)

    def test_each_epoch_has_an_order_of_its_own(self) -> None:
        orders: list[tuple[int, ...]] = []
        split = blobs(24)
        school = replace(schooling(split), batches=lambda size, seed: noted(split, size, seed, orders))
        list(recover(student(), recipe_of(epochs=3), school))
        assert len(set(orders)) == 3
        assert all(sorted(order) == list(range(24)) for order in orders)

    def test_frozen_weights_stay(self) -> None:
        net = student()
        first = next(net.children()).requires_grad_(False)
        before = copy.deepcopy(first)
        list(recover(net, recipe_of(epochs=2), schooling(blobs())))
        assert same_weights(first, before)
        assert not same_weights(net, student())

    def test_the_model_is_in_evaluation_mode_after_the_last_epoch(self) -> None:
        net = student()
        list(recover(net, recipe_of(epochs=1), schooling(blobs())))
        assert not any(module.training for module in net.modules())


def noted(split: Split, size: int, seed: int, orders: list[tuple[int, ...]]) -> Iterator[Batch]:
    batches = list(split.batches(size, seed=seed))
    orders.append(tuple(int(i) for batch in batches for i in batch.index))
    return (Batch(batch.inputs, batch.labels, batch.index) for batch in batches)


@dataclass(frozen=True)
class Batch:
    inputs: Inputs
    labels: torch.Tensor
    index: torch.Tensor


class TestSchedule:
    @pytest.mark.parametrize("steps", range(1, 13))
    def test_any_number_of_steps_can_be_trained(self, steps: int) -> None:
        losses = list(recover(student(), recipe_of(epochs=steps, batch_size=96), schooling(blobs())))
        assert len(losses) == steps

    @pytest.mark.parametrize("samples", [1, 2, 17, 33])
    def test_a_last_batch_of_one_sample_is_no_obstacle(self, samples: int) -> None:
        losses = list(recover(student(), recipe_of(epochs=2), schooling(blobs(samples))))
        assert len(losses) == 2

    def test_each_batch_is_trained_in_the_lane(self) -> None:
        entered: list[str] = []

        @contextmanager
        def working() -> Iterator[None]:
            entered.append("in")
            yield
            entered.append("out")

        list(recover(student(), recipe_of(epochs=2), replace(schooling(blobs()), working=working)))
        assert entered == ["in", "out"] * 2 * (96 // 16)


class TestTeacher:
    def test_each_sample_meets_its_own_teacher(self) -> None:
        split = blobs()
        inputs = split.first(len(split)).inputs.only
        gaps: list[float] = []

        class Echo(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.scale

        def gap(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
            assert teacher is not None
            gaps.append(float((outputs.detach() - teacher).abs().max()))
            return 0.0 * outputs.sum()

        school = replace(schooling(split, teacher=inputs), loss=gap)
        list(recover(Echo(), replace(recipe_of(epochs=1), items=(("recovery.epochs", 1),)), school))
        assert len(gaps) == 2
        assert max(gaps) == 0.0


class TestFailure:
    def test_a_loss_that_is_not_finite_raises_trial_error(self) -> None:
        inputs = torch.full((32, 2), 1e30)
        split = Split((inputs, torch.zeros(32, dtype=torch.int64)))
        net = nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 3))
        with pytest.raises(TrialError, match=r"loss is (nan|inf) in epoch 1 at learning rate 10.*lower the upper end"):
            list(recover(net, recipe_of(epochs=3, learning_rate=10.0), schooling(split)))

    def test_a_learning_rate_that_is_far_too_high_raises_trial_error(self) -> None:
        net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
        with pytest.raises(TrialError, match="learning rate 1e"):
            list(recover(net, recipe_of(epochs=20, learning_rate=1e12), schooling(blobs())))


class TestDimensions:
    anatomy = dissect(small_net(), small_batch(2)[0])

    def test_only_the_learning_rate_is_searched(self) -> None:
        options = RecoveryOptions.model_validate({"epochs": 3, "batch_size": 32, "learning_rate": (0.01, 0.09)})
        found = {dimension.name: dimension for dimension in Recovery(options).dimensions(self.anatomy)}
        rate = found.pop("recovery.learning_rate")
        assert isinstance(rate, Range)
        assert (rate.low, rate.high, rate.log) == (0.01, 0.09, True)
        assert rate.neutral == pytest.approx(0.03)
        assert {name: getattr(d, "values", None) for name, d in found.items()} == {
            "recovery.epochs": (3,),
            "recovery.batch_size": (32,),
            "recovery.momentum": (0.9,),
            "recovery.weight_decay": (1e-4,),
        }

    def test_the_baseline_is_not_trained(self) -> None:
        epochs = Recovery(RecoveryOptions(epochs=(3,))).dimensions(self.anatomy)[0]
        assert epochs == Choice("recovery.epochs", (3,), neutral=0)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"epochs": -1},
            {"batch_size": 0},
            {"learning_rate": (0.1, 0.1)},
            {"learning_rate": (0.0, 0.1)},
            {"momentum": 1.0},
            {"weight_decay": -0.1},
            {"optimizer": "adam"},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            RecoveryOptions.model_validate(wrong)
