"""Feature transfer: its distances by hand, its pairs of layers, and its hooks."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.distillation import Distillation, DistillationOptions
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.surgery import cut, dependency_graph
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import SmallBatch, TechniqueContract, small_batch, small_net, small_schooling
from paretrim.spaces.training import recover
from paretrim.spaces.transfer import FeatureTransfer, attention_distance, pairs_of, similarity_distance

ALL = DistillationOptions(methods=("logits", "decoupled"), transfers=("none", "attention", "similarity"))
ANATOMY = dissect(small_net(), small_batch(2)[0])
INPUTS, LABELS = small_batch()


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Distillation(ALL)


class Sequences(nn.Module):
    """Linear layers over positions: ``(N, 6, 4)`` to logits ``(N, 5)``."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rise, self.fall, self.head = nn.Linear(4, width), nn.Linear(width, 4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head((x + self.fall(self.rise(x).relu())).mean(dim=1))
        return logits


class Deep(nn.Module):
    """A teacher of another architecture, at half the resolution: ``(N, 3, 8, 8)`` to logits ``(N, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        widths = [3, 12, 12, 20, 20]
        self.body = nn.Sequential(
            *(nn.Conv2d(a, b, 3, 2 if i == 0 else 1, 1) for i, (a, b) in enumerate(pairwise(widths)))
        )
        self.top = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.top(self.body(x).mean(dim=(2, 3)))
        return logits


def pruned() -> nn.Module:
    net = small_net()
    cut(dependency_graph(net, Inputs.of(INPUTS)), net.conv1, range(0, 24, 2))
    return net


class TestDistances:
    def test_attention_by_hand(self) -> None:
        student = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])  # two channels, all at the first of two places
        teacher = torch.tensor([[[[3.0, 3.0]]]])  # one channel, both places alike
        # (1, 0) against (1, 1) / sqrt(2)
        wanted = (1 - 0.5**0.5) ** 2 + 0.5
        assert float(attention_distance(student, teacher, False, False)) == pytest.approx(wanted)

    def test_channels_of_a_linear_layer_are_its_last_dimension(self) -> None:
        image = torch.rand(3, 5, 7)
        assert float(attention_distance(image, image.transpose(1, 2), False, True)) == pytest.approx(0.0, abs=1e-9)

    def test_the_finer_of_two_maps_is_averaged(self) -> None:
        coarse = torch.rand(2, 3, 2, 2)
        fine = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        assert float(attention_distance(fine, coarse, False, False)) == pytest.approx(0.0, abs=1e-9)

    def test_similarity_by_hand(self) -> None:
        student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # nothing in common: rows (1, 0) and (0, 1)
        teacher = torch.tensor([[1.0], [1.0]])  # alike: both rows (1, 1) / sqrt(2)
        wanted = (1 - 0.5**0.5) ** 2 + 0.5
        assert float(similarity_distance(student, teacher)) == pytest.approx(wanted)

    @pytest.mark.parametrize("scale", [0.1, 10.0])
    def test_neither_minds_the_scale_of_the_activations(self, scale: float) -> None:
        some = torch.randn(4, 3, 5, 5)
        assert float(attention_distance(some, scale * some, False, False)) == pytest.approx(0.0, abs=1e-9)
        assert float(similarity_distance(some, scale * some)) == pytest.approx(0.0, abs=1e-9)

    def test_dead_activations_have_finite_gradients(self) -> None:
        dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
        alive = torch.rand(2, 3, 4, 4)
        distance = attention_distance(dead, alive, False, False) + similarity_distance(dead, alive)
        torch.autograd.backward(distance)
        assert dead.grad is not None
        assert bool(torch.isfinite(dead.grad).all())


class TestPairs:
    def test_pairs_spread_over_the_depth_up_to_the_last_layer_before_the_output(self) -> None:
        assert pairs_of(small_net(), small_net(), ANATOMY, "attention", 2) == (("conv1", "conv1"), ("conv2", "conv2"))
        every = pairs_of(small_net(), small_net(), ANATOMY, "similarity", 9)
        assert every == (("stem", "stem"), ("conv1", "conv1"), ("conv2", "conv2"))

    def test_a_layer_that_is_gone_is_left_out(self) -> None:
        net = small_net()
        net.conv1 = nn.Identity()  # type: ignore[assignment]
        net.norm1, net.conv2 = nn.BatchNorm2d(16).eval(), nn.Conv2d(16, 16, 3, padding=1)
        assert [mine for mine, _ in pairs_of(net, small_net(), ANATOMY, "attention", 9)] == ["stem", "conv2"]

    def test_a_layer_in_factors_is_met_at_what_they_give_together(self) -> None:
        net = small_net()
        net.conv1 = nn.Sequential(nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(4, 24, 1))  # type: ignore[assignment]
        assert ("conv1", "conv1") in pairs_of(net, small_net(), ANATOMY, "attention", 9)

    def test_a_teacher_of_another_architecture_is_met_at_the_same_depth(self) -> None:
        pairs = pairs_of(small_net(), Deep().eval(), ANATOMY, "attention", 3)
        assert pairs == (("stem", "body.0"), ("conv1", "body.2"), ("conv2", "body.3"))

    def test_positions_of_a_sequence_can_be_attended_to(self) -> None:
        anatomy = dissect(Sequences(), torch.zeros(2, 6, 4))
        assert len(pairs_of(Sequences(3), Sequences(), anatomy, "attention", 3)) == 2

    def test_without_places_there_is_no_attention(self) -> None:
        flat = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
        anatomy = dissect(flat, torch.zeros(2, 4))
        assert pairs_of(flat, flat, anatomy, "attention", 3) == ()
        assert pairs_of(flat, flat, anatomy, "similarity", 3) == (("0", "0"),)

    def test_the_mode_of_every_module_stays(self) -> None:
        net = small_net().train()
        net.norm1.eval()
        before = [module.training for module in net.modules()]
        pairs_of(net, small_net(), ANATOMY, "attention", 3)
        assert [module.training for module in net.modules()] == before


class TestPenalty:
    @pytest.fixture(params=["attention", "similarity"])
    def method(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_the_uncompressed_model_is_at_no_distance(self, method: str) -> None:
        net = small_net()
        penalty = FeatureTransfer(net, small_net(), (("conv1", "conv1"),), method, 3.0)
        net(INPUTS)
        assert float(penalty(SmallBatch(Inputs.of(INPUTS), LABELS, LABELS)).detach()) == pytest.approx(0.0, abs=1e-6)

    def test_training_brings_a_pruned_model_nearer(self, method: str) -> None:
        net, tutor = pruned(), small_net()
        penalty = FeatureTransfer(net, tutor, pairs_of(net, tutor, ANATOMY, method, 3), method, 1.0)
        optimizer, distances = torch.optim.SGD(net.parameters(), lr=0.3), []
        for _ in range(8):
            net(INPUTS)
            distance = penalty(SmallBatch(Inputs.of(INPUTS), LABELS, LABELS))
            distances.append(float(distance.detach()))
            optimizer.zero_grad()
            torch.autograd.backward(distance)
            optimizer.step()
        assert distances[0] > 1e-5
        assert distances[-1] < 0.9 * distances[0]
        assert all(p.grad is None for p in tutor.parameters())

    def test_closing_takes_every_hook_away(self, method: str) -> None:
        net, tutor = small_net(), small_net()
        penalty = FeatureTransfer(net, tutor, (("stem", "stem"), ("conv2", "conv2")), method, 1.0)
        assert hooks(net) == 2
        assert hooks(tutor) == 3
        penalty.close()
        assert hooks(net) == hooks(tutor) == 0

    def test_a_model_can_be_copied_while_it_is_trained(self, method: str) -> None:
        net = small_net()
        FeatureTransfer(net, small_net(), (("conv1", "conv1"),), method, 1.0)
        assert torch.equal(copy.deepcopy(net)(INPUTS), net(INPUTS))

    def test_a_tutor_that_has_answered_the_batch_is_not_asked_again(self, method: str) -> None:
        net, tutor, asked = small_net(), small_net(), []
        tutor.register_forward_hook(lambda *_: asked.append(1))
        penalty = FeatureTransfer(net, tutor, (("conv1", "conv1"),), method, 1.0)
        for _ in range(2):
            net(INPUTS)
            tutor(INPUTS)
            penalty(SmallBatch(Inputs.of(INPUTS), LABELS, LABELS))
        assert len(asked) == 2
        net(INPUTS)
        penalty(SmallBatch(Inputs.of(INPUTS), LABELS, LABELS))
        assert len(asked) == 3


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class TestInTraining:
    def trained(self, **more: Value) -> nn.Module:
        net, school = pruned(), small_schooling()
        values = {"recovery.epochs": 2, "recovery.batch_size": 12, "recovery.learning_rate": 0.02}
        recipe = Recipe.of({**values, **more})
        penalty = Distillation(ALL).penalty(net, recipe, ANATOMY, school)
        list(recover(net, recipe, replace(school, penalties=(penalty,) if penalty else ())))
        if penalty:
            penalty.close()
        return net

    def test_transfer_changes_what_is_learnt(self) -> None:
        more: dict[str, Value] = {"distillation.transfer": "attention", "distillation.transfer_weight": 5.0}
        plain, led = self.trained().state_dict(), self.trained(**more).state_dict()
        assert any(not torch.equal(plain[name], led[name]) for name in plain)

    def test_it_goes_with_mixed_precision_and_with_augmentation(self) -> None:
        more: dict[str, Value] = {
            "recovery.precision": "bf16",
            "recovery.augment": "full",
            "recovery.augmented_by": "flip+shift",
        }
        more |= {"distillation.transfer": "similarity", "distillation.transfer_weight": 1.0}
        net = self.trained(**more)
        assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())

    def test_without_a_tutor_there_is_no_penalty(self) -> None:
        recipe = Recipe.of({"distillation.transfer": "attention", "distillation.transfer_weight": 1.0})
        assert Distillation(ALL).penalty(small_net(), recipe, ANATOMY, replace(small_schooling(), tutor=None)) is None

    def test_a_model_without_places_gets_none_from_attention(self) -> None:
        flat = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
        recipe = Recipe.of({"distillation.transfer": "attention", "distillation.transfer_weight": 1.0})
        school = replace(small_schooling(), tutor=copy.deepcopy(flat))
        assert Distillation(ALL).penalty(flat, recipe, dissect(flat, torch.zeros(2, 4)), school) is None
