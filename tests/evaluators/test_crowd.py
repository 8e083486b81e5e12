"""Who else used the machine, from an account that the test writes and from this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paretrim.evaluators.crowd import Crowd, Watch

SECOND = os.sysconf("SC_CLK_TCK")
WHILE_S = 0.1
Account = Callable[..., None]


@pytest.fixture
def stat(tmp_path: Path) -> Path:
    return tmp_path / "stat"


@pytest.fixture
def account(stat: Path) -> Account:
    """Give a function that writes an account, in ticks."""

    def written(
        user: int = 0, nice: int = 0, system: int = 0, idle: int = 0, wait: int = 0, soft: int = 0, steal: int = 0
    ) -> None:
        # The last two, the time of guests, are counted in the first two already.
        numbers = (1000 + user, nice, 500 + system, 9000 + idle, 10 + wait, 0, soft, 7 + steal, 55 * user, nice)
        stat.write_text(f"cpu  {' '.join(map(str, numbers))}\ncpu0 1 2 3\nbtime 1\n")

    written()
    return written


class Between:
    """Watches while it takes bounds of the seconds and the processor time that the watch can have seen."""

    def __init__(self, computing: bool, stat: Path) -> None:
        self._outer = (time.perf_counter(), time.process_time())
        self._watch = Watch(computing, stat)
        self._inner = (time.perf_counter(), time.process_time())

    def look(self) -> tuple[Crowd, tuple[float, float], tuple[float, float]]:
        """Return what was seen, and the least and the most seconds and processor time."""
        least = (time.perf_counter() - self._inner[0], time.process_time() - self._inner[1])
        seen = self._watch.look()
        most = (time.perf_counter() - self._outer[0], time.process_time() - self._outer[1])
        return seen, (least[0], most[0]), (least[1], most[1])


def worked(seconds: float) -> None:
    """Use so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class TestAccount:
    def test_what_the_processors_did_beyond_this_process_is_foreign(self, stat: Path, account: Account) -> None:
        between = Between(False, stat)
        time.sleep(WHILE_S)
        account(user=3 * SECOND, nice=SECOND, system=SECOND, soft=SECOND, idle=500, wait=100)
        crowd, wall, own = between.look()
        assert crowd.foreign_cores is not None
        assert (6 - own[1]) / wall[1] <= crowd.foreign_cores <= (6 - own[0]) / wall[0]
        assert crowd.present()

    def test_what_this_process_does_is_not_foreign(self, stat: Path, account: Account) -> None:
        watch = Watch(False, stat)
        worked(WHILE_S)
        account(user=int(WHILE_S * SECOND), idle=1000)
        crowd = watch.look()
        assert crowd.foreign_cores == 0.0
        assert not crowd.present()

    def test_idle_processors_are_no_crowd(self, stat: Path, account: Account) -> None:
        watch = Watch(False, stat)
        time.sleep(WHILE_S)
        account(idle=10_000, wait=10_000)
        assert watch.look() == Crowd(0.0, 0.0, 0.0)

    def test_stolen_time_is_a_share_of_all_time(self, stat: Path, account: Account) -> None:
        watch = Watch(False, stat)
        account(idle=97, steal=3)
        crowd = watch.look()
        assert crowd.steal_share == 0.03
        assert crowd.foreign_cores == 0.0
        assert crowd.present()

    def test_a_look_between_two_ticks_is_no_error(self, stat: Path, account: Account) -> None:
        assert Watch(False, stat).look() == Crowd(0.0, 0.0, 0.0)

    @pytest.mark.parametrize(
        "text", [None, "", "cpu  1 2 3\n", "cpu  one two three four five six seven eight\n", "intr 5\n"]
    )
    def test_an_account_that_cannot_be_read_tells_nothing(self, stat: Path, text: str | None) -> None:
        if text is not None:
            stat.write_text(text)
        crowd = Watch(False, stat).look()
        assert (crowd.foreign_cores, crowd.steal_share) == (None, None)
        assert not crowd.present()

    def test_an_account_that_goes_away_tells_nothing(self, stat: Path, account: Account) -> None:
        watch = Watch(True, stat)
        stat.unlink()
        time.sleep(WHILE_S)
        crowd = watch.look()
        assert (crowd.foreign_cores, crowd.steal_share) == (None, None)
        assert crowd.waiting_share > 0.5


class TestWaiting:
    def test_a_thread_that_should_compute_and_does_not_is_waiting(self, stat: Path, account: Account) -> None:
        between = Between(True, stat)
        worked(WHILE_S / 2)
        time.sleep(WHILE_S)
        crowd, wall, own = between.look()
        assert 1 - own[1] / wall[0] <= crowd.waiting_share <= 1 - own[0] / wall[1]
        assert crowd.present()

    def test_more_processor_time_than_time_is_no_waiting(self, stat: Path, account: Account) -> None:
        between = Between(True, stat)
        worked(WHILE_S)
        crowd, wall, own = between.look()
        assert max(0.0, 1 - own[1] / wall[0]) <= crowd.waiting_share <= max(0.0, 1 - own[0] / wall[1])

    def test_a_process_that_does_not_compute_all_the_while_is_not_waiting(self, stat: Path, account: Account) -> None:
        watch = Watch(False, stat)
        time.sleep(WHILE_S)
        assert watch.look().waiting_share == 0.0


class TestPresence:
    @pytest.mark.parametrize(
        ("crowd", "present"),
        [
            (Crowd(0.0, 0.0, 0.0), False),
            (Crowd(None, None, 0.0), False),
            (Crowd(0.2, 0.005, 0.02, 0), False),
            (Crowd(0.3, 0.0, 0.0), True),
            (Crowd(0.0, 0.02, 0.0), True),
            (Crowd(0.0, 0.0, 0.04), True),
            (Crowd(None, None, 0.04), True),
            (Crowd(0.0, 0.0, 0.0, 1), True),
        ],
    )
    def test_any_one_sign_is_enough(self, crowd: Crowd, present: bool) -> None:
        assert crowd.present() == present


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system does not tell what its processors do")
def test_a_busy_neighbour_on_this_machine_is_seen() -> None:
    code = "print('busy', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as neighbour:
        try:
            assert neighbour.stdout is not None
            neighbour.stdout.readline()
            watch = Watch(False)
            time.sleep(0.5)
            crowd = watch.look()
        finally:
            neighbour.kill()
    assert crowd.foreign_cores is not None
    assert 0.25 < crowd.foreign_cores < (os.cpu_count() or 1) + 0.5
    assert crowd.present()
