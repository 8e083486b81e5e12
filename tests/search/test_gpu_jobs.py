"""Jobs whose trials reserve GPUs: where they train, whose lanes they enter, and what is refused; without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretrim.errors import JobError, UsageError
from paretrim.evaluators import cuda_driver, evaluator, torch_cuda
from paretrim.evaluators.fakes import FakeTarget
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.signature import INPUT, Signature
from paretrim.evaluators.target import LoweringRequest, TargetAddress, TargetSettings
from paretrim.evaluators.testing import INPUT_SHAPE, random_inputs, small_mlp
from paretrim.search import hiring, prepare
from paretrim.search.cache import Cache
from paretrim.search.head import ADDRESS
from paretrim.search.parents import Nursery
from paretrim.search.sections import Budget
from paretrim.search.store import JobFolder
from paretrim.search.worker import Place
from paretrim.spaces.schooling import CPU

from .conftest import tiny_job

CUDA = torch.device("cuda", 0)
REASON = "torch 0 is built without CUDA"


class OnADevice(FakeTarget):
    """A target whose device has memory of its own."""

    def device_peak(self) -> tuple[int, int] | None:
        return 1, 2


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_cuda, "missing", lambda: REASON)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "cpu"),
        ({"device": "cpu"}, "cpu"),
        ({"trial_gpus": 0.25}, "auto"),
        ({"trial_gpus": 1, "device": "cpu"}, "cpu"),
        ({"trial_gpus": 1, "device": "cuda"}, "cuda"),
    ],
)
def test_trials_train_on_a_gpu_where_they_reserve_one(given: dict[str, object], wanted: str) -> None:
    assert Budget.model_validate(given).wanted == wanted


def test_a_gpu_that_nobody_reserves_is_refused() -> None:
    with pytest.raises(JobError, match=r"trials reserve no GPU; give trial_gpus, such as 0.25"):
        tiny_job(budget={"device": "cuda"})


@pytest.mark.usefixtures("without_cuda")
def test_a_machine_without_cuda_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job(budget={"device": "cuda", "trial_gpus": 1})
    with pytest.raises(UsageError, match=f"budget.device is cuda, and trials cannot train there: {REASON}"):
        prepare.load(job)
    monkeypatch.setenv(ADDRESS, "somewhere:6379")  # whose other machines may have it
    assert prepare.load(job).splits is not None


@pytest.mark.usefixtures("without_cuda")
def test_a_search_without_cuda_trains_on_the_processor_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "visible", lambda: pytest.fail("a GPU was asked for"))
    job = tiny_job(budget={"trial_gpus": 0.5})
    (tmp_path / "jobs").mkdir()
    context = prepare.prepare(job, prepare.load(job), JobFolder("tiny", tmp_path), {}, lambda _: None)
    assert (context.device, context.place, context.gpus) == ("auto", CPU, ())


class TestLanes:
    address = TargetAddress("anything", TargetSettings("fake"))

    def test_a_target_on_a_gpu_is_measured_alone_on_that_gpu(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cuda_driver, "visible", lambda: ("first", "second"))
        monkeypatch.setattr(TargetAddress, "build", lambda self: OnADevice(self.settings))
        target = OnADevice(self.address.settings)
        baseline = target.lower(small_mlp(), LoweringRequest(Signature.single(INPUT_SHAPE)), tmp_path)
        lane = Lane(tmp_path / "lane", patience_s=0.1)
        bench = evaluator.set_up(self.address, baseline, {INPUT: random_inputs(4)}, tmp_path / "bench", lane)
        assert bench.on_device
        training, elsewhere = (Lane(tmp_path / "lane", yielding=False, gpus=[name]) for name in ("first", "second"))
        with training.working(), bench.lane.measuring() as alone:
            assert not alone
        with elsewhere.working(), bench.lane.measuring() as alone:
            assert alone

    def test_a_target_on_the_processor_takes_no_gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_driver, "visible", lambda: pytest.fail("a GPU was asked for"))
        monkeypatch.setattr(TargetAddress, "build", lambda self: FakeTarget(self.settings))
        target = FakeTarget(self.address.settings)
        baseline = target.lower(small_mlp(), LoweringRequest(Signature.single(INPUT_SHAPE)), tmp_path)
        bench = evaluator.set_up(
            self.address, baseline, {INPUT: random_inputs(4)}, tmp_path / "bench", Lane(tmp_path / "lane")
        )
        assert not bench.on_device


def test_parents_of_another_device_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    nursery = Nursery(Cache(tmp_path), "model")
    assert nursery.where({}) == nursery.where({}, 1, CPU) != nursery.where({}, 1, CUDA)
    assert "NVIDIA X" in nursery.where({}, 1, CUDA).subject


class TestTrainingWorkers:
    place = Place(Path(), None, 1, (), True)

    def test_they_see_what_the_trial_sees(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert hiring._seeing_the_same() is None
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        assert hiring._seeing_the_same() == {"env_vars": {"CUDA_VISIBLE_DEVICES": "2,3"}}

    @pytest.mark.parametrize(("devices", "backend"), [(1, "gloo"), (2, "cpu:gloo,cuda:nccl")])
    def test_they_exchange_by_nccl_where_each_has_a_gpu(
        self, devices: int, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        assert hiring._backend(2, replace(self.place, gpus=("a", "b"))) == backend
        assert hiring._backend(2, self.place) == "gloo"
