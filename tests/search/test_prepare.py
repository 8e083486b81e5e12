"""What is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretrim.errors import DataError, UsageError
from paretrim.evaluators import machine
from paretrim.evaluators.splits import Splits
from paretrim.search import prepare, usercode
from paretrim.search.job import Job
from paretrim.search.store import JobFolder

from .conftest import SUBJECTS, tiny_job


@pytest.mark.parametrize(
    "targets", [{"target": {"runtime": "torch-compile-cuda"}}, {"also": [{"runtime": "torch-compile-cuda"}]}]
)
def test_a_runtime_that_cannot_run_here_is_refused_before_the_model_is_loaded(
    targets: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as it is here, unless there is a device
    job = Job(model="nowhere:model", data="nowhere:data", folder=tmp_path, **targets)
    with pytest.raises(UsageError, match=r"'torch-compile-cuda' cannot run on this machine: .*CUDA"):
        prepare.load(job)


def test_more_folds_than_validation_samples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    usercode.use_folder(SUBJECTS)
    data = usercode.load_data(tiny_job())
    kept = data.search
    three = kept.validation.part(torch.arange(3))
    few = Splits(train=kept.train, calibration=kept.calibration, validation=three, test=data.test.unseal())
    monkeypatch.setattr(usercode, "load_data", lambda job: few)
    with pytest.raises(DataError, match="the validation split has 3 samples, which do not make 4 folds"):
        prepare.load(tiny_job(cross_validation=4))
    assert prepare.load(tiny_job(cross_validation=3)).splits is few


@pytest.mark.parametrize(("precision", "gpus", "told"), [("bf16", 0, True), ("bf16", 0.5, False), ("32", 0, False)])
def test_a_precision_that_the_processor_emulates_is_warned_of(
    precision: str, gpus: float, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "emulates", lambda precision: precision != "32")
    space = {"recovery": {"epochs": 1, "precision": precision}}
    job = tiny_job(space=space, budget={"trials": 3, "parallel": 1, "trial_gpus": gpus})
    folder, said = JobFolder("tiny", tmp_path), list[str]()
    prepare.prepare(job, prepare.load(job), folder, {}, said.append)
    assert [f"precision is {precision}" in words for words in said if "instructions" in words] == [True] * told
