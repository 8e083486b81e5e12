"""Another model as the teacher, and its outputs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from paretrim.errors import DataError, UserCodeError
from paretrim.evaluators.splits import Split
from paretrim.search import prepare, teaching
from paretrim.search.cache import Cache

from .conftest import tiny_job

TRAIN = Split((torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3))


class Counted(nn.Module):
    """Counts its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.asked = nn.Linear(4, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        outputs: torch.Tensor = self.inner(x)
        return outputs


class Negated(Counted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


class Twice(nn.Linear):
    """Gives two tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(x), x


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_outputs_are_computed_once(cache: Cache) -> None:
    net = Counted()
    first = teaching.outputs(net, "hash", TRAIN, cache)
    second = teaching.outputs(net, "hash", TRAIN, cache)
    assert net.asked == 1
    assert torch.equal(first, second)
    assert torch.equal(first, TRAIN.first(10).inputs.through(net).detach())


def test_other_weights_other_data_and_other_code_are_computed_anew(cache: Cache) -> None:
    net = Counted()
    teaching.outputs(net, "hash", TRAIN, cache)
    teaching.outputs(net, "other", TRAIN, cache)
    teaching.outputs(net, "hash", TRAIN.part(torch.arange(5)), cache)
    assert net.asked == 3
    other = Negated()
    teaching.outputs(other, "hash", TRAIN, cache)
    assert other.asked == 1


def test_a_file_that_was_cut_short_is_made_anew(cache: Cache) -> None:
    net = Counted()
    wanted = teaching.outputs(net, "hash", TRAIN, cache)
    (kept,) = (path for path in cache.root.rglob("*.kept"))
    kept.write_bytes(kept.read_bytes()[:20])
    assert torch.equal(teaching.outputs(net, "hash", TRAIN, cache), wanted)
    assert net.asked == 2


def test_a_teacher_that_answers_with_nan_is_refused(cache: Cache) -> None:
    net = Counted()
    nn.init.constant_(net.inner.bias, float("nan"))
    with pytest.raises(DataError, match="teacher answers some training samples with NaN"):
        teaching.outputs(net, "hash", TRAIN, cache)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        (nn.Linear(4, 5), r"gives outputs of shape \(2, 5\) for two samples, and the model \(2, 3\)"),
        (nn.Linear(6, 3), r"does not run on inputs \(torch.float32 of shape \(2, 4\)\).*belong together"),
        (Twice(4, 3), "gives outputs 0, 1; say with `output`"),
    ],
)
def test_a_teacher_that_does_not_fit_is_told_early(teacher: nn.Module, told: str) -> None:
    with pytest.raises(UserCodeError, match=f"space.distillation.teacher: mine:teacher {told}"):
        teaching.check_teacher(teacher, nn.Linear(4, 3), TRAIN, "mine:teacher")


def test_a_job_names_its_teacher() -> None:
    subject = prepare.load(tiny_job(space={"distillation": {"teacher": "tiny:faulty_model"}}))
    assert type(subject.teacher).__name__ == "FaultyNet"
    assert not any(p.requires_grad for p in subject.teacher.parameters())  # type: ignore[union-attr]
    assert "teacher" in subject.fingerprints
    assert "teacher" not in prepare.load(tiny_job()).fingerprints


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"distillation": {"teacher": "tiny:nobody"}}, "space.distillation.teacher: the module 'tiny' has no 'nobody'"),
        ({"distillation": {"teacher": "tiny:data"}}, "space.distillation.teacher: tiny:data returned a Splits"),
        ({"recovery": {"augmentation": "tiny:nothing"}}, "space.recovery.augmentation: the module 'tiny' has no"),
    ],
)
def test_functions_that_are_not_there_are_told_before_any_work(space: dict[str, object], told: str) -> None:
    with pytest.raises(UserCodeError, match=told):
        prepare.load(tiny_job(space=space))
