"""Where models are trained: on a device that stands in for a GPU, and on the CPU, where nothing is moved."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.errors import TrialError
from paretrim.evaluators import torch_cuda
from paretrim.evaluators.metrics import by_name
from paretrim.evaluators.splits import Split
from paretrim.search.context import score_torch
from paretrim.spaces import device, technique
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.fake_device import fake_device
from paretrim.spaces.group_penalty import GroupPenalty
from paretrim.spaces.importance import take_gradients
from paretrim.spaces.lesson import InProcess, Lesson
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import CPU
from paretrim.spaces.testing import small_batch, small_net, small_schooling
from paretrim.spaces.training import recover

ANATOMY = dissect(small_net(), small_batch(2)[0])


def recipe_of(**more: Value) -> Recipe:
    return Recipe.of({"recovery.epochs": 2, "recovery.batch_size": 8, "recovery.learning_rate": 0.01, **more}, 3)


def places(model: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


TRAININGS = [
    pytest.param("recovery", {}, {}, id="plain"),
    pytest.param("recovery", {}, {"recovery.clip": 1.0, "recovery.accumulation": 2}, id="clip"),
    pytest.param(
        "recovery", {}, {"recovery.augmented_by": "flip+crop+brightness", "recovery.augment": "light"}, id="augment"
    ),
    *(
        pytest.param(
            "distillation",
            {"transfers": ["none", name]},
            {"distillation.transfer": name, "distillation.weight": 0.5, "distillation.temperature": 2.0},
            id=name,
        )
        for name in ("attention", "similarity")
    ),
    *(
        pytest.param("quantization", {}, {"quantization.bits.conv1": 4, "quantization.family": family}, id=family)
        for family in ("uniform", "lsq", "power_of_two")
    ),
    pytest.param(
        "sparsity", {"scope": "balanced"}, {"sparsity.amount.all": 0.5, "sparsity.pattern": "2:4"}, id="zeros"
    ),
]


@pytest.mark.parametrize(("name", "options", "values"), TRAININGS)
def test_training_is_done_on_the_device_alone_and_the_model_comes_back(
    name: str, options: dict[str, Any], values: dict[str, Value]
) -> None:
    kind = technique.find(name)
    part, recipe = kind(kind.Options.model_validate(options)), recipe_of(**values)
    with fake_device() as there:
        net, tutor = small_net(), small_net()
        school = replace(small_schooling(), tutor=tutor, device=there)
        school = replace(school, loss=part.loss(school.loss, recipe))
        part.attach(net, recipe, ANATOMY, school)
        with InProcess().learn(Lesson(net, recipe, ANATOMY, school, (part,))) as losses:
            during = [places(net) | places(tutor) for _ in losses]
        assert during == [{"meta"}] * 2
        assert places(net) == places(tutor) == {"cpu"}


def test_learned_sparsity_is_computed_on_the_device() -> None:
    with fake_device() as there:
        net = small_net()
        penalty = GroupPenalty(net, ANATOMY, [group.name for group in ANATOMY.groups], 0.1, {})
        assert len(list(recover(net, recipe_of(), replace(small_schooling(), device=there, penalties=(penalty,))))) == 2


def test_gradients_of_importances_come_back_with_the_model() -> None:
    with fake_device() as there:
        net = small_net()
        take_gradients(net, replace(small_schooling(), device=there), 0)
        assert places(net) == {each.grad.device.type for each in net.parameters() if each.grad is not None} == {"cpu"}


def test_what_stays_behind_is_found_out() -> None:
    def loss(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        assert teacher is not None
        return functional.mse_loss(outputs, teacher.cpu())

    with fake_device() as there:
        net = small_net()
        with pytest.raises(RuntimeError, match="two devices, meta and cpu"):
            list(recover(net, recipe_of(), replace(small_schooling(), device=there, loss=loss)))
        assert places(net) == {"cpu"}


def test_a_model_whose_training_is_given_up_comes_back() -> None:
    with fake_device() as there:
        net = small_net()
        losses = recover(net, recipe_of(), replace(small_schooling(), device=there))
        next(losses)
        assert places(net) == {"meta"}
        del losses
        assert places(net) == {"cpu"}


def test_a_score_is_computed_on_the_device_and_compared_on_the_cpu() -> None:
    seen: list[str] = []

    def metric(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        seen.extend((outputs.device.type, labels.device.type))
        return 0.5

    split = Split(small_batch(6), "validation")
    with fake_device() as there:
        net = small_net()
        scored = replace(by_name("accuracy"), function=metric)
        assert score_torch(net, split, scored, there) == 0.5
        assert seen == ["cpu", "cpu"]
        assert places(net) == {"cpu"}


def test_nothing_is_moved_where_the_device_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "to", lambda *_: pytest.fail("a model was moved"))
    monkeypatch.setattr(torch_cuda, "give_back", lambda: pytest.fail("a device was asked"))
    net, school = small_net(), small_schooling()
    losses = list(recover(net, recipe_of(), school))
    assert len(losses) == 2
    batch = next(school.batches(4, 0))
    moved = device.moved(batch, CPU)
    assert moved.inputs is batch.inputs
    assert moved.labels is batch.labels


class Full(nn.Module):
    """Runs out of the device's memory with tensors in its hands."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.error, self.held = error, weakref.WeakSet[torch.Tensor]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activations = x * self.weight
        self.held.add(activations)
        raise self.error()


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cublas"],
)
def test_full_memory_says_what_to_do_and_is_let_go(
    error: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[int] = []
    model = Full(error)
    monkeypatch.setattr(torch_cuda, "give_back", lambda: given_back.append(len(model.held)))
    with pytest.raises(
        TrialError, match=r"CUDA.*smaller space.recovery.batch_size.*larger budget.trial_gpus"
    ) as caught:
        list(recover(model, recipe_of(), small_schooling()))
    assert "documentation" not in str(caught.value)
    # The error is still there, and with it the frames that it came through.
    assert given_back == [0]
    assert len(model.held) == 0


def test_another_error_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="too bad"):
        list(recover(Full(lambda: RuntimeError("too bad")), recipe_of(), small_schooling()))


def test_a_process_without_a_gpu_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_cuda, "missing", lambda: "no CUDA device")
    assert device.chosen("auto") == device.chosen("cpu") == CPU
    monkeypatch.setattr(torch_cuda, "missing", lambda: "")
    assert device.chosen("auto") == device.chosen("cuda") == torch.device("cuda", 0)
    assert device.chosen("cpu") == CPU


def test_parents_of_a_gpu_are_told_from_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    assert device.described(CPU) == torch.backends.cpu.get_cpu_capability()
    assert device.described(torch.device("cuda", 0)) == f"{device.described(CPU)} NVIDIA X"
