"""A trial's process and its training workers: what they say to each other, and real ones of Ray Train."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from torch import nn
from torch.nn import functional

from paretrim.errors import LostTrialError, TrialError, UsageError
from paretrim.evaluators import child
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.search import head, hiring, staff
from paretrim.search.api import search
from paretrim.search.parcel import Material, unpacked
from paretrim.search.replay import replay
from paretrim.search.wire import Failed, Over, Trained, Wire, Yielding
from paretrim.search.worker import Place
from paretrim.search.workers import Workers
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.lesson import InProcess, Lesson
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.snapshot import Snapshot
from paretrim.tracking.records import WORKERS

from .conftest import tiny_job

ANATOMY = Anatomy((), (), (), Signature.single((2,)))
EPOCHS = 3


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


def clouds() -> Split:
    labels = torch.arange(96) % 3
    centres = torch.tensor([[3.0, 0.0], [-3.0, 2.0], [0.0, -3.0]])
    return Split((centres[labels] + torch.randn((96, 2), generator=torch.Generator().manual_seed(0)), labels), "train")


MATERIAL = Material(clouds(), None, net())


def lesson(loss: Callable[..., torch.Tensor] = cross_entropy, epochs: int = EPOCHS, rate: float = 0.01) -> Lesson:
    split = MATERIAL.train
    values = {"recovery.epochs": epochs, "recovery.batch_size": 16, "recovery.learning_rate": rate}
    school = Schooling(lambda size, seed: split.batches(size, seed=seed), len(split), None, loss, nullcontext)
    return Lesson(net(), Recipe.of(values, 2), ANATOMY, school)


Script = Callable[[Wire, int], None]


def obedient(wire: Wire, rank: int) -> None:
    """Train as a worker does, but alone."""
    while True:
        given = unpacked(wire.receive().parcel, MATERIAL)
        with InProcess().learn(given) as losses:
            for loss in losses:
                if rank == 0:
                    wire.send(Yielding(begins=True))
                    wire.send(Yielding(begins=False))
                    wire.send(Trained(loss, Snapshot.of(given.model)))
                if not wire.receive().on:
                    break
        wire.send(Over())


class Fakes:
    """Stand for workers: threads, which follow one script or one each."""

    def __init__(self, *scripts: Script) -> None:
        self.starts, self.waits, self.ends = 0, 0, 0
        self._scripts = scripts if len(scripts) == 2 else scripts * 2
        self.made = Workers(2, self._start, MATERIAL, self._waiting)

    def _start(self) -> list[Wire]:
        self.starts += 1
        pairs = [socket.socketpair() for _ in self._scripts]
        for rank, (script, pair) in enumerate(zip(self._scripts, pairs, strict=True)):
            threading.Thread(target=self._run, args=(script, Wire(pair[1]), rank), daemon=True).start()
        return [Wire(ours) for ours, _ in pairs]

    def _run(self, script: Script, wire: Wire, rank: int) -> None:
        try:
            script(wire, rank)
        except (EOFError, OSError):
            self.ends += 1
        wire.close()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self.waits += 1
        yield


def failure_of(made: Workers, given: Lesson | None = None) -> TrialError:
    with pytest.raises(TrialError) as raised, made.learn(given or lesson()) as losses:
        list(losses)
    return raised.value


class TestWords:
    """With threads in the place of workers."""

    def test_each_epoch_gives_its_loss_and_its_weights(self) -> None:
        fakes, here, there = Fakes(obedient), lesson(), lesson()
        with InProcess().learn(here) as expected, fakes.made.learn(there) as losses:
            for loss in losses:
                assert loss == next(expected)
                assert all(
                    torch.equal(a, b) for a, b in zip(here.model.parameters(), there.model.parameters(), strict=True)
                )
            assert next(expected, None) is None
        assert fakes.waits == EPOCHS

    def test_workers_are_kept_for_the_next_lesson(self) -> None:
        fakes = Fakes(obedient)
        for _ in range(3):
            with fakes.made.learn(lesson()) as losses:
                assert len(list(losses)) == EPOCHS
        assert fakes.starts == 1

    def test_a_trial_that_stops_between_epochs_leaves_them_for_the_next(self) -> None:
        fakes = Fakes(obedient)

        def trial() -> Generator[float, None, None]:
            with fakes.made.learn(lesson()) as losses:
                yield from losses

        for _ in range(2):
            stopped = trial()
            first = next(stopped)
            stopped.close()
        with fakes.made.learn(lesson()) as losses:
            assert next(losses) == first
        assert fakes.starts == 1

    def test_nothing_is_started_for_what_is_not_trained(self) -> None:
        fakes, frozen = Fakes(obedient), lesson()
        frozen.model.requires_grad_(False)
        for idle in (lesson(epochs=0), frozen):
            with fakes.made.learn(idle) as losses:
                assert list(losses) == []
        assert fakes.starts == 0

    def test_a_trial_that_fails_between_epochs_does_too(self) -> None:
        fakes = Fakes(obedient)
        with pytest.raises(ValueError, match="of the trial"), fakes.made.learn(lesson()) as losses:
            next(losses)
            raise ValueError("of the trial")
        with fakes.made.learn(lesson()) as losses:
            assert len(list(losses)) == EPOCHS
        assert fakes.starts == 1

    def test_after_an_error_that_all_have_met_alike_they_go_on(self) -> None:
        def diverging(wire: Wire, rank: int) -> None:
            wire.receive()
            wire.send(Failed("the training loss is nan", known=True))
            obedient(wire, rank)

        fakes = Fakes(diverging)
        assert str(failure_of(fakes.made)) == "the training loss is nan"
        with fakes.made.learn(lesson()) as losses:
            assert len(list(losses)) == EPOCHS
        assert fakes.starts == 1

    def test_after_any_other_there_are_others(self) -> None:
        def failing(wire: Wire, rank: int) -> None:
            wire.receive()
            wire.send(Failed("Traceback: ZeroDivisionError in theirs.py", known=False))
            wire.receive()

        fakes = Fakes(failing)
        for starts in (1, 2):
            failure_of(fakes.made)
            assert fakes.starts == starts
        deadline = time.monotonic() + 5
        while fakes.ends < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fakes.ends == 4

    def test_an_error_of_ours_is_told_rather_than_what_it_did_to_others(self) -> None:
        def first(wire: Wire, _: int) -> None:
            wire.receive()
            wire.send(Failed("Traceback: connection closed by peer", known=False))
            wire.receive()

        def second(wire: Wire, _: int) -> None:
            wire.receive()
            wire.send(Failed("the training loss is nan", known=True))
            wire.receive()

        fakes = Fakes(first, second)
        with pytest.raises(TrialError, match="the training loss is nan"), fakes.made.learn(lesson()) as losses:
            next(losses)

    @pytest.mark.parametrize("lost", [True, False])
    def test_whether_the_recipe_is_innocent_is_told(self, lost: bool) -> None:
        def failing(wire: Wire, _: int) -> None:
            wire.receive()
            wire.send(Failed("of ours", known=True, lost=lost))
            wire.receive()

        assert isinstance(failure_of(Fakes(failing).made), LostTrialError) == lost

    def test_the_death_of_one_is_told_in_words_that_have_the_trial_made_again(self) -> None:
        def missing(wire: Wire, _: int) -> None:
            wire.receive()
            wire.send(Failed("Traceback: connection closed by peer", known=False))
            wire.receive()

        fakes = Fakes(missing, lambda wire, _: wire.receive())
        raised = failure_of(fakes.made)
        assert "one of its 2 training workers" in str(raised)
        assert child.killed(str(raised))

    def test_the_error_of_a_users_code_is_told_with_its_traceback(self) -> None:
        def failing(wire: Wire, rank: int) -> None:
            wire.receive()
            if rank == 1:
                wire.send(Failed("Traceback: ZeroDivisionError in theirs.py", known=False))
            wire.receive()

        fakes = Fakes(failing)
        raised = failure_of(fakes.made)
        assert "2 training workers failed:\nTraceback: ZeroDivisionError" in str(raised)
        assert not child.killed(str(raised))


class TestRoom:
    """Trials that find no cores would wait for ever."""

    @pytest.mark.parametrize(
        ("places", "parallel", "size", "advice"),
        [
            ([8], 4, 3, "this machine has 8; give a parallel of 2 at most, or fewer trial_workers"),
            ([4, 4], 2, 5, "the machines have 4, 4; give at most 4 trial_workers"),
            ([3, 3], 3, 2, "the machines have 3, 3; give a parallel of 2 at most"),
        ],
    )
    def test_too_many_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, places: list[int], parallel: int, size: int, advice: str
    ) -> None:
        monkeypatch.setattr(staff, "_processors", lambda: places)
        job = tiny_job(budget={"parallel": parallel, "trial_workers": size})
        with pytest.raises(UsageError, match=advice) as raised:
            staff.check_room(job)
        assert f"need {parallel * size} CPUs" in str(raised.value)

    def test_what_has_room_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(staff, "_processors", lambda: [4, 5])
        staff.check_room(tiny_job(budget={"parallel": 4, "trial_workers": 2}))
        staff.check_room(tiny_job(budget={"parallel": 64}))

    def test_by_default_trials_share_the_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 12)
        assert tiny_job(budget={}).budget.parallel == 8
        assert tiny_job(budget={"trial_workers": 4}).budget.parallel == 3
        assert tiny_job(budget={"trial_workers": 16}).budget.parallel == 1


def dividing_by_zero(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
    return cross_entropy(outputs, labels, teacher) / (1 // 0)


def processes() -> list[int]:
    """Return the ids of this machine's training workers that belong to this user's Ray."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            words = (each / "cmdline").read_bytes() if each.name.isdigit() else b""
        except OSError:
            continue
        found += [int(each.name)] if b"ray::RayTrainWorker" in words else []
    return found


def gone(within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes()


@pytest.mark.slow
class TestReal:
    """With processes of Ray Train."""

    def test_lessons_errors_deaths_and_ends(self, tmp_path: Path) -> None:
        with head.started(tiny_job(budget={"parallel": 1, "trial_workers": 2})):
            place = Place(Path(), ray.put(MATERIAL), 1, (), True)
            made = Workers(2, partial(hiring.start, 2, place, tmp_path), MATERIAL)
            given, here = lesson(), lesson()
            with made.learn(given) as losses:
                there = list(losses)
            with InProcess().learn(here) as losses:
                assert there == pytest.approx(list(losses), rel=1e-5)
            for mine, theirs in zip(here.model.parameters(), given.model.parameters(), strict=True):
                assert torch.allclose(mine, theirs, atol=1e-5)

            assert len(kept := processes()) == 2
            with made.learn(lesson()) as losses:
                next(losses)
            assert processes() == kept

            with pytest.raises(TrialError, match="ZeroDivisionError"), made.learn(lesson(dividing_by_zero)) as losses:
                next(losses)
            assert gone(2.0)

            with pytest.raises(TrialError) as raised, made.learn(lesson(epochs=1000)) as losses:
                next(losses)
                os.kill(processes()[-1], 9)
                list(losses)
            assert child.killed(str(raised.value))
            assert gone(2.0)

            assert "lower the upper end of space.recovery.learning_rate" in str(failure_of(made, lesson(rate=1e30)))
            with made.learn(lesson()) as losses:
                assert list(losses) == there
            made.close()
            assert gone(10.0)

    def test_a_search_with_two_workers_a_trial(self, tmp_path: Path) -> None:
        job = tiny_job(budget={"trials": 4, "parallel": 1, "trial_workers": 2}, space={"recovery": {"epochs": 2}})
        result = search(job, store=tmp_path)
        assert [record.state for record in result.records] == ["complete"] * 4
        baseline, *others = [record.metrics["accuracy"] for record in result.records]
        assert min(others) > baseline - 0.2
        assert gone(2.0)
        again = replay(result, 3, print)
        assert again.same
        assert again.record.environment[WORKERS] == "2"
