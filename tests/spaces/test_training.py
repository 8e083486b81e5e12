"""The options of recovery training: optimizers, schedules, precision, augmentation, and what guards them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from paretrim.errors import TrialError, UsageError
from paretrim.evaluators.splits import Split
from paretrim.spaces import optimizers, schedules
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Choice, Dimension, Range, Value, exists
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import Recovery, RecoveryOptions, recover, smoothed
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallBatch, TechniqueContract, small_batch, small_net

IMAGES = dissect(small_net(), small_batch(2)[0])


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        options = {
            "epochs": [0, 1, 2],
            "optimizer": ["sgd", "adamw", "rmsprop"],
            "schedule": ["onecycle", "cosine", "step", "constant"],
            "label_smoothing": [0.0, 0.2],
            "augment": ["flip", "crop"],
            "augment_strength": ["none", "light", "full"],
            "precision": "bf16",
        }
        return Recovery(RecoveryOptions.model_validate(options))


class Transformer(nn.Module):
    """Two positions of four numbers: ``(N, 2, 4)`` to logits ``(N, 3)``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.encoder(x).mean(dim=1))
        return logits


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def clouds(count: int = 96) -> Split:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[3.0, 0.0], [-3.0, 2.0], [0.0, -3.0]])
    return Split((centres[labels] + torch.randn((count, 2), generator=generator), labels), "train")


def schooling(split: Split) -> Schooling:
    return Schooling(lambda size, seed: split.batches(size, seed=seed), len(split), None, cross_entropy, nullcontext)


def student(norm: bool = False) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(2, 16), nn.BatchNorm1d(16) if norm else nn.ReLU(), nn.ReLU(), nn.Linear(16, 3)
    ).eval()


def recipe_of(**more: Value) -> Recipe:
    values = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "momentum": 0.9, **more}
    return Recipe.of({f"recovery.{name}": value for name, value in values.items()})


def trained(net: nn.Module, split: Any = None, **more: Any) -> list[float]:
    return list(recover(net, recipe_of(**more), schooling(split or clouds())))


def knobs(anatomy: Any = IMAGES, **options: Any) -> dict[str, Dimension]:
    made = Recovery(RecoveryOptions.model_validate(options)).dimensions(anatomy)
    return {each.name.removeprefix("recovery."): each for each in made}


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
    @pytest.mark.parametrize("schedule", schedules.SCHEDULES)
    def test_every_one_learns_on_every_schedule(self, optimizer: str, schedule: str) -> None:
        losses = trained(student(), optimizer=optimizer, schedule=schedule)
        assert losses[-1] < 0.8 * losses[0]

    def test_the_rate_of_the_chosen_optimizer_counts(self) -> None:
        one, other = student(), student()
        trained(one, optimizer="adamw", learning_rate=0.01)
        rates: dict[str, Value] = {"learning_rate.adamw": 0.01, "learning_rate.sgd": 9.0}
        trained(other, optimizer="adamw", **rates)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    def test_unknown_names_are_refused(self) -> None:
        with pytest.raises(UsageError, match="unknown optimizer 'lion'; allowed: sgd, adamw, rmsprop"):
            trained(student(), optimizer="lion")
        with pytest.raises(UsageError, match="unknown schedule 'zigzag'; allowed: onecycle"):
            trained(student(), schedule="zigzag")

    @pytest.mark.parametrize(
        ("schedule", "rates"),
        [("constant", [1.0, 1.0, 1.0, 1.0]), ("step", [1.0, 1.0, 0.1, 0.01]), ("cosine", [1.0, 0.854, 0.5, 0.146])],
    )
    def test_the_rate_runs_as_scheduled(self, schedule: str, rates: list[float]) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        plan, found = schedules.build(schedule, optimizer, 4), []
        for _ in rates:
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plan.step()
        assert found == pytest.approx(rates, abs=1e-3)


class TestKnobs:
    def test_a_convolutional_network_gets_what_it_always_had(self) -> None:
        found = knobs()
        assert list(found) == ["epochs", "batch_size", "momentum", "weight_decay", "learning_rate"]
        rate = found["learning_rate"]
        assert isinstance(rate, Range)
        assert (rate.low, rate.high, rate.when) == (0.003, 0.1, ())

    def test_a_transformer_gets_adamw_and_small_rates(self) -> None:
        found = knobs(dissect(Transformer().eval(), torch.zeros(2, 2, 4)))
        assert found["optimizer"] == Choice("recovery.optimizer", ("adamw",), neutral="adamw")
        rate = found["learning_rate"]
        assert isinstance(rate, Range)
        assert (rate.low, rate.high) == (0.0001, 0.003)

    def test_each_of_several_optimizers_has_a_rate_of_its_own(self) -> None:
        found = knobs(optimizer=["sgd", "adamw"], learning_rate={"adamw": [0.001, 0.01]})
        rate = found["learning_rate.adamw"]
        assert isinstance(rate, Range)
        assert (rate.low, rate.high) == (0.001, 0.01)
        assert exists(rate, {"recovery.optimizer": "adamw"})
        assert not exists(found["learning_rate.sgd"], {"recovery.optimizer": "adamw"})

    def test_without_epochs_there_is_no_rate(self) -> None:
        found = knobs(epochs=[0, 4])
        assert not exists(found["learning_rate"], {"recovery.epochs": 0})
        assert exists(found["learning_rate"], {"recovery.epochs": 4})

    def test_what_is_asked_for_stands_in_the_recipe(self) -> None:
        asked = {"precision": "bf16", "channels_last": True, "clip": 1.0, "accumulation": 2, "early_stop": 3}
        found = knobs(**asked, dropout=[0.0, 0.3], label_smoothing=0.1)
        assert {
            name: each.values[0] for name, each in found.items() if isinstance(each, Choice) and name in asked
        } == asked
        assert found["label_smoothing"].neutral == 0.0
        assert "dropout" not in found  # this network has none
        told = Recovery(RecoveryOptions(dropout=0.2)).left_out(IMAGES)
        assert "no dropout layer" in told["dropout"]

    def test_augmentation_is_named_in_the_recipe(self) -> None:
        found = knobs(augment=["flip", "shift"], augmentation="mine:noise", augment_strength=["none", "full"])
        assert found["augment"] == Choice("recovery.augment", ("none", "full"), neutral="none")
        assert isinstance(found["augmented_by"], Choice)
        assert found["augmented_by"].values == ("flip+shift+mine:noise",)

    def test_images_are_needed_for_what_is_done_to_images(self) -> None:
        anatomy = dissect(student(), torch.zeros(2, 2))
        with pytest.raises(UsageError, match=r"flip are for images.*\(2,\).*space.recovery.augmentation"):
            knobs(anatomy, augment=["flip"])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"optimizer": []},
            {"optimizer": ["sgd", "sgd"]},
            {"epochs": [1001]},
            {"schedule": "zigzag"},
            {"label_smoothing": [0.3, 0.1]},
            {"dropout": 1.0},
            {"precision": "8"},
            {"clip": 0.0},
            {"augment": ["blur"]},
            {"augmentation": "no path"},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            RecoveryOptions.model_validate(wrong)

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            (
                {"optimizer": ["sgd", "adamw"], "learning_rate": [0.1, 0.2]},
                r"one range for 2 optimizers.*sgd: \[..., ...\]",
            ),
            (
                {"optimizer": "sgd", "learning_rate": {"adamw": [0.1, 0.2]}},
                "for adamw, which is not among the optimizers",
            ),
        ],
    )
    def test_rates_that_fit_no_optimizer_are_refused(self, wrong: dict[str, object], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            RecoveryOptions.model_validate(wrong)

    def test_they_read_back_from_json(self) -> None:
        options = RecoveryOptions.model_validate({"precision": 32, "epochs": 3, "learning_rate": [0.1, 0.2]})
        assert RecoveryOptions.model_validate(options.model_dump(mode="json")) == options


class TestSteps:
    def test_accumulated_batches_are_one_large_batch(self) -> None:
        one, other = student(), student()
        trained(one, batch_size=32, schedule="constant", epochs=2)
        trained(other, batch_size=8, accumulation=4, schedule="constant", epochs=2)
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)

    def test_what_is_left_over_at_the_end_of_an_epoch_makes_a_step(self) -> None:
        one, other = student(), student()
        trained(one, split=clouds(16), batch_size=16, schedule="constant", epochs=1)
        trained(other, split=clouds(16), batch_size=8, accumulation=5, schedule="constant", epochs=1)
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)

    def test_clipped_gradients_move_the_weights_less(self) -> None:
        free, held, start = student(), student(), student()
        for net, more in ((free, {}), (held, {"clip": 1e-3})):
            trained(net, schedule="constant", epochs=1, **more)
        moved = [
            float(nn.utils.parameters_to_vector(n.parameters()).sub(vector(start)).norm().detach())
            for n in (free, held)
        ]
        assert 0 < moved[1] < 0.05 * moved[0]

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_mixed_precision_learns_as_well_and_leaves_32_bits(self, precision: str) -> None:
        whole = trained(student(), epochs=8)
        net = student()
        assert trained(net, epochs=8, precision=precision)[-1] == pytest.approx(whole[-1], rel=0.1, abs=0.02)
        assert all(p.dtype is torch.float32 for p in net.parameters())

    def test_images_pixel_by_pixel_give_the_same_model(self) -> None:
        nets = [small_net(), small_net()]
        inputs, labels = small_batch(24)
        for net, flag in zip(nets, (False, True), strict=True):
            trained(net, split=Split((inputs, labels)), epochs=1, channels_last=flag)
        for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-4)
            assert b.is_contiguous()

    def test_training_stops_when_the_loss_no_longer_falls(self) -> None:
        # At a rate of next to nothing and without weight decay, the loss stays where it is.
        assert 3 <= len(trained(student(), epochs=30, learning_rate=1e-12, schedule="constant", early_stop=2)) < 30
        assert len(trained(student(), epochs=6, learning_rate=1e-12, schedule="constant")) == 6


def vector(net: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.parameters())


class TestGuards:
    def test_single_samples_train_a_model_without_batch_normalization(self) -> None:
        assert trained(student(), batch_size=1)[-1] < 0.5

    def test_single_samples_are_refused_with_batch_normalization(self) -> None:
        with pytest.raises(TrialError, match=r"batch_size is 1, and batch normalization cannot train.*at least 2"):
            trained(student(norm=True), batch_size=1)

    def test_a_model_that_is_frozen_whole_is_left_as_it_is(self) -> None:
        net = student().requires_grad_(False)
        assert trained(net) == []
        assert torch.equal(vector(net), vector(student()))

    def test_a_loss_that_depends_on_no_parameter_is_told(self) -> None:
        class Cut(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = student()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.no_grad():
                    outputs: torch.Tensor = self.inner(x)
                return outputs

        with pytest.raises(TrialError, match="depends on no parameter that could be trained"):
            trained(Cut())


class TestAugmented:
    def test_the_tutor_answers_what_the_model_sees(self) -> None:
        seen: list[bool] = []

        def alike(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
            assert teacher is not None
            seen.append(torch.equal(outputs.detach(), teacher))
            return outputs.sum() * 0.0

        tutor, net = Echo(), Echo()
        inputs, labels = small_batch(24)
        school = replace(schooling(Split((inputs, labels))), teacher=inputs, tutor=tutor, loss=alike)
        recipe = recipe_of(epochs=1, batch_size=8, augment="full", augmented_by="flip+crop", learning_rate=1e-9)
        list(recover(net, recipe, school))
        assert seen == [True] * 3

    def test_the_strength_none_shows_every_sample_as_it_is(self) -> None:
        nets = [small_net(), small_net(), small_net()]
        split = Split(small_batch(24))
        trained(nets[0], split=split, epochs=1)
        trained(nets[1], split=split, epochs=1, augment="none", augmented_by="flip+crop")
        trained(nets[2], split=split, epochs=1, augment="full", augmented_by="flip+crop")
        assert torch.equal(vector(nets[0]), vector(nets[1]))
        assert not torch.equal(vector(nets[0]), vector(nets[2]))


class Echo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.scale / self.scale)


class TestSmoothing:
    def test_it_is_that_of_cross_entropy(self) -> None:
        outputs, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
        wanted = functional.cross_entropy(outputs, labels, label_smoothing=0.2)
        assert float(smoothed(cross_entropy, 0.2)(outputs, labels, None)) == pytest.approx(float(wanted), rel=1e-5)

    def test_tokens_without_a_label_are_left_out(self) -> None:
        outputs, labels = torch.randn(2, 3, 4), torch.tensor([[0, 1, -100], [-100, -100, 2]])

        def plain(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
            return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())

        wanted = functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), label_smoothing=0.3)
        assert float(smoothed(plain, 0.3)(outputs, labels, None)) == pytest.approx(float(wanted), rel=1e-5)

    def test_numbers_are_not_smoothed(self) -> None:
        outputs, labels = torch.randn(6, 4), torch.randn(6, 4)
        loss = smoothed(lambda o, y, t: functional.mse_loss(o, y), 0.3)
        assert torch.equal(loss(outputs, labels, None), functional.mse_loss(outputs, labels))

    def test_a_technique_without_smoothing_gives_the_loss_as_it_was(self) -> None:
        assert Recovery(RecoveryOptions()).loss(cross_entropy, recipe_of()) is cross_entropy


def test_dropout_is_set_in_all_its_layers() -> None:
    net = Transformer()
    anatomy = dissect(net.eval(), torch.zeros(2, 2, 4))
    technique = Recovery(RecoveryOptions(dropout=(0.0, 0.5)))
    (knob,) = [each for each in technique.dimensions(anatomy) if each.name == "recovery.dropout"]
    assert isinstance(knob, Range)
    inputs = torch.randn(3, 2, 4)
    before = net(inputs)
    technique.attach(net, recipe_of(dropout=0.25), anatomy, schooling(clouds()))
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert net.encoder.self_attn.dropout == 0.25
    assert torch.equal(net(inputs), before)


def test_a_batch_is_what_penalties_get() -> None:
    asked: list[int] = []

    class Counted:
        def __call__(self, batch: SmallBatch) -> torch.Tensor:
            asked.append(len(batch.index))
            return torch.zeros(())

        def close(self) -> None:
            asked.clear()

    school = replace(schooling(clouds(24)), penalties=(Counted(),))  # type: ignore[arg-type]
    list(recover(student(), recipe_of(epochs=1, batch_size=16), school))
    assert asked == [16, 8]
