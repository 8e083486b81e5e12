"""The measuring lane, with processes that really wait for each other."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from paretrim.evaluators.lane import Lane

# Enters the lane, says so, and leaves it when it is told to.
OCCUPANT = """
import sys
from pathlib import Path
from paretrim.evaluators.lane import Lane
lane = Lane(Path(sys.argv[1]), patience_s=float(sys.argv[3]), gpus=sys.argv[4].split()).measuring_on(sys.argv[5].split())
print("ready", flush=True)
sys.stdin.readline()
with getattr(lane, sys.argv[2])() as alone:
    print(f"in {alone}", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""
_SOON_S = 20.0
_WHILE_S = 0.3


class Occupant:
    """A process that works or measures in a lane."""

    def __init__(
        self, folder: Path, role: str, patience_s: float = 60.0, gpus: Sequence[str] = (), measured: Sequence[str] = ()
    ) -> None:
        given = [str(folder), role, str(patience_s), " ".join(gpus), " ".join(measured)]
        command = [sys.executable, "-c", OCCUPANT, *given]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.expect("ready")

    def ask(self) -> None:
        """Ask the lane to let it in."""
        self._pipe(self.process.stdin).write(b"\n")
        self._pipe(self.process.stdin).flush()

    def enter(self, alone: bool | None = None) -> None:
        self.ask()
        self.expect(f"in {alone}")

    def leave(self) -> None:
        self.ask()
        self.expect("out")

    def expect(self, word: str) -> None:
        assert self.says(_SOON_S), f"nothing was said; expected {word!r}"
        assert self._pipe(self.process.stdout).readline().decode().strip() == word

    def says(self, within_s: float = _WHILE_S) -> bool:
        return bool(select.select([self._pipe(self.process.stdout)], [], [], within_s)[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            self._pipe(pipe).close()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe


Start = Callable[..., Occupant]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts an occupant of one lane."""
    with contextlib.ExitStack() as stack:

        def started(role: str, patience_s: float = 60.0, **gpus: Sequence[str]) -> Occupant:
            occupant = Occupant(tmp_path, role, patience_s, **gpus)
            stack.callback(occupant.close)
            return occupant

        yield started


def test_a_measurement_waits_for_work_under_way(start: Start) -> None:
    worker, measurer = start("working"), start("measuring")
    worker.enter()
    measurer.ask()
    assert not measurer.says()
    worker.leave()
    measurer.expect("in True")


def test_a_waiting_measurement_keeps_new_work_out(start: Start) -> None:
    first, second, measurer = start("working"), start("working"), start("measuring")
    first.enter()
    measurer.ask()
    assert not measurer.says()
    second.ask()
    assert not second.says()
    first.leave()
    measurer.expect("in True")
    assert not second.says()
    measurer.leave()
    second.expect("in None")


def test_measurements_come_one_after_the_other(start: Start) -> None:
    one, other = start("measuring"), start("measuring")
    one.enter(alone=True)
    other.ask()
    assert not other.says()
    one.leave()
    other.expect("in True")


def test_workers_do_not_wait_for_each_other(start: Start) -> None:
    one, other = start("working"), start("working")
    one.enter()
    other.enter()
    one.leave()
    other.leave()
    assert one.process.wait(_SOON_S) == other.process.wait(_SOON_S) == 0


@pytest.mark.parametrize("role", ["working", "measuring"])
def test_a_killed_holder_frees_the_lane(start: Start, role: str) -> None:
    holder, measurer = start(role), start("measuring")
    holder.enter(alone=True if role == "measuring" else None)
    measurer.ask()
    assert not measurer.says()
    holder.kill()
    measurer.expect("in True")


def test_a_killed_measurement_that_waits_lets_work_in(start: Start) -> None:
    worker, measurer, late = start("working"), start("measuring"), start("working")
    worker.enter()
    measurer.ask()
    assert not measurer.says()
    measurer.kill()
    late.enter()
    assert worker.process.poll() is None


def test_a_measurement_without_patience_goes_ahead_and_says_so(start: Start, tmp_path: Path) -> None:
    worker = start("working")
    worker.enter()
    started = time.monotonic()
    with Lane(tmp_path, patience_s=0.2).measuring() as alone:
        assert not alone
    assert 0.2 <= time.monotonic() - started < _SOON_S
    worker.leave()
    with Lane(tmp_path, patience_s=0.2).measuring() as alone:
        assert alone


def test_an_error_while_measuring_frees_the_lane(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="died"), Lane(tmp_path).measuring():
        raise RuntimeError("died")
    with Lane(tmp_path, patience_s=0.2).measuring() as alone:
        assert alone
    with Lane(tmp_path).working():
        assert {path.name for path in tmp_path.iterdir()} == {"gate", "room"}


def test_the_lane_of_a_user_is_closed_to_others(tmp_path: Path) -> None:
    Lane(tmp_path / "lane")
    with Lane(tmp_path / "lane").working():
        modes = [path.stat().st_mode & 0o077 for path in (tmp_path / "lane", *(tmp_path / "lane").iterdir())]
    assert modes == [0, 0, 0]


def test_work_on_cores_of_its_own_does_not_wait_for_a_measurement(tmp_path: Path) -> None:
    with Lane(tmp_path).measuring() as alone, Lane(tmp_path, yielding=False).working():
        assert alone


def test_a_measurement_is_alone_beside_work_on_other_cores(tmp_path: Path) -> None:
    with Lane(tmp_path, yielding=False).working(), Lane(tmp_path, patience_s=0.0).measuring() as alone:
        assert alone


def test_work_on_the_measuring_cores_waits_whatever_cores_other_work_has(tmp_path: Path) -> None:
    with (
        Lane(tmp_path, yielding=False).working(on_measuring_cores=True),
        Lane(tmp_path, patience_s=0.1).measuring() as alone,
    ):
        assert not alone


def test_measurements_wait_for_each_other_whatever_cores_work_has(tmp_path: Path) -> None:
    with (
        Lane(tmp_path, yielding=False).measuring() as first,
        Lane(tmp_path, patience_s=0.1, yielding=False).measuring() as second,
    ):
        assert (first, second) == (True, False)


def test_waiting_is_told_so_that_no_time_limit_counts_it(tmp_path: Path) -> None:
    told: list[str] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        told.append("waits")
        yield
        told.append("goes on")

    lane = Lane(tmp_path, patience_s=0.1, waiting=waiting)
    with lane.working():
        assert told == []
        with lane.measuring() as alone:
            assert not alone
    assert told == ["waits", "goes on"]


class TestGpus:
    """Each GPU has a lane as well, which training on it and measurements on it share."""

    def test_a_measurement_on_a_gpu_waits_for_training_there_whatever_cores_that_has(self, tmp_path: Path) -> None:
        training = Lane(tmp_path, yielding=False, gpus=["a"])
        with training.working():
            with Lane(tmp_path, patience_s=0.1).measuring_on(["a"]).measuring() as alone:
                assert not alone
            with Lane(tmp_path, patience_s=0.1).measuring_on(["b"]).measuring() as alone:
                assert alone
            with Lane(tmp_path, patience_s=0.1).measuring() as alone:
                assert alone

    def test_training_waits_for_a_measurement_on_its_gpu(self, start: Start, tmp_path: Path) -> None:
        # The occupant works on two GPUs, of which one is measured.
        worker = start("working", gpus=["b", "a"])
        with Lane(tmp_path).measuring_on(["a"]).measuring() as alone:
            assert alone
            worker.ask()
            assert not worker.says()
        worker.expect("in None")

    def test_a_waiting_measurement_keeps_new_training_off_its_gpu(self, start: Start) -> None:
        first, second = start("working", gpus=["a"]), start("working", gpus=["a"])
        measurer = start("measuring", measured=["a"])
        first.enter()
        measurer.ask()
        assert not measurer.says()
        second.ask()
        assert not second.says()
        first.leave()
        measurer.expect("in True")
        measurer.leave()
        second.expect("in None")

    def test_a_measurement_on_the_processor_lets_training_on_other_cores_go_on(self, tmp_path: Path) -> None:
        with Lane(tmp_path).measuring() as alone, Lane(tmp_path, yielding=False, gpus=["a"]).working():
            assert alone

    def test_measurements_on_two_gpus_come_one_after_the_other(self, tmp_path: Path) -> None:
        # They share the processor, which launches what a GPU computes.
        with Lane(tmp_path).measuring_on(["a"]).measuring() as first:
            assert first
            with Lane(tmp_path, patience_s=0.1).measuring_on(["b"]).measuring() as second:
                assert not second

    def test_a_killed_measurement_frees_the_gpu(self, start: Start, tmp_path: Path) -> None:
        measurer = start("measuring", measured=["a"])
        measurer.enter(alone=True)
        measurer.kill()
        with Lane(tmp_path, patience_s=0.2).measuring_on(["a"]).measuring() as alone:
            assert alone

    def test_there_are_files_for_each_gpu(self, tmp_path: Path) -> None:
        with Lane(tmp_path, gpus=["GPU-1"]).working():
            names = {path.name for path in tmp_path.iterdir()}
        assert names == {"gate", "room", "gpu-GPU-1-gate", "gpu-GPU-1-room"}
