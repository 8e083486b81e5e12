"""A model that several processes train together: real ones, connected by gloo."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretrim.spaces.team import Alone, share

Courses = dict[str, dict[str, Any]]

MEMBER = Path(__file__).resolve().parents[1] / "subjects" / "team_member.py"
SIZE = 2


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Courses]:
    """What each process of a team of two has trained."""
    folder = tmp_path_factory.mktemp("team")
    command = [sys.executable, str(MEMBER)]
    running = [subprocess.Popen([*command, str(rank), str(SIZE), str(folder)]) for rank in range(SIZE)]
    assert [each.wait(120) for each in running] == [0] * SIZE
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def alone() -> Courses:
    """The same, trained by one process."""
    courses: Courses = runpy.run_path(str(MEMBER))["all_courses"](Alone())
    return courses


def test_the_gradient_of_two_is_that_of_one(members: list[Courses], alone: Courses) -> None:
    # At a rate of 1, without momentum, the step is the gradient.
    gradients = [each["one step"]["steps"][0] - each["one step"]["steps"][1] for each in (*members, alone)]
    assert float(gradients[-1].abs().max()) > 0.1
    for gradient in gradients[:-1]:
        assert torch.allclose(gradient, gradients[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["many", "half floats"])
def test_a_training_of_two_is_that_of_one(members: list[Courses], alone: Courses, name: str) -> None:
    """With accumulation, clipping, an adaptive optimizer, a schedule, a teacher, and 97 samples in batches of 16."""
    close = 1e-4 if name == "many" else 2e-2
    for each in members:
        assert each[name]["losses"] == pytest.approx(alone[name]["losses"], rel=close)
        assert torch.allclose(each[name]["steps"], alone[name]["steps"], rtol=0, atol=close)
    assert alone[name]["losses"][-1] < 0.9 * alone[name]["losses"][0]


@pytest.mark.parametrize("name", ["one step", "many", "half floats", "wild", "short"])
def test_all_members_are_the_same_to_the_bit_after_each_step(members: list[Courses], name: str) -> None:
    one, other = (each[name] for each in members)
    assert torch.equal(one["steps"], other["steps"])
    assert one["losses"] == other["losses"]
    assert all(torch.equal(a, b) for a, b in zip(one["buffers"], other["buffers"], strict=True))
    assert len(one["steps"].unique(dim=0)) > 1


def test_each_sample_is_seen_by_one_member(members: list[Courses], alone: Courses) -> None:
    for epoch_batch, whole in enumerate(alone["many"]["seen"]):
        parts = [each["many"]["seen"][epoch_batch] for each in members]
        if len(whole) > 1:
            assert torch.equal(torch.cat(parts), whole)
        else:
            # Too little for both; the second one's counts for nothing.
            assert all(torch.equal(part, whole) for part in parts)


def test_what_is_random_differs_between_members(members: list[Courses]) -> None:
    """A batch too small for both is given to both, and counts once; each augments it in its own way."""
    one, other = (each["short"]["seen"] for each in members)
    assert [len(part) for part in one] == [len(part) for part in other] == [3, 3, 3, 3]
    assert all(not torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_running_statistics_are_near_those_of_one(members: list[Courses], alone: Courses) -> None:
    for mine, whole in zip(members[0]["wild"]["buffers"], alone["wild"]["buffers"], strict=True):
        assert torch.allclose(mine.float(), whole.float(), atol=0.3)
    assert int(members[0]["wild"]["buffers"][-1]) == int(alone["wild"]["buffers"][-1])


def test_a_weight_without_a_gradient_is_left_alone(members: list[Courses], alone: Courses) -> None:
    for each in (*members, alone):
        assert torch.equal(each["many"]["steps"][-1][:3], torch.ones(3))


def test_a_loss_that_is_no_number_ends_the_training_of_all(members: list[Courses]) -> None:
    assert all("the training loss is" in each["diverging"]["error"] for each in members)


class Member(Alone):
    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16, 64])
def test_shares_cover_a_batch_once(samples: int, size: int, least: int) -> None:
    shares = [share(Member(rank, size), samples, least) for rank in range(size)]
    counting = [position for each in shares if each.weight for position in range(each.start, each.stop)]
    assert counting == list(range(samples))
    assert sum(each.weight for each in shares) == pytest.approx(1.0)
    assert sum(each.samples for each in shares) == samples
    assert all(each.stop - each.start >= min(least, samples) for each in shares)
