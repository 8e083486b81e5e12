"""Crash-only: one search, and SIGKILL at random moments to everything that takes part in it, and a disk that is full.

The search is a real one of the bundled example, with short trainings. Killed in turn, in a random order: the driver
(after which `paretrim resume` goes on), the processes of trials, the processes that measure, and Ray's own gcs_server
and raylet; now and then the store's disk is filled up. When all kills are dealt, the search goes on to its end, and the
study, MLflow, the front, the artifacts and the processes are looked through: what must hold is in chaos_checks.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import gettempdir, mkdtemp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts as a script

import yaml

from benchmarks.chaos_checks import broken, written
from benchmarks.chaos_disk import Disk, small_disk
from benchmarks.chaos_processes import ACTOR, GCS, MEASURING, RAYLET, Herd, Process, kill
from paretrim.evaluators import machine
from paretrim.search.jobfile import EXAMPLE

DRIVER, CTRL_C, DISK = "driver", "ctrl-c", "disk"
# How often each is hit, of 12 kills.
_SHARES = {DRIVER: 3, ACTOR: 2, MEASURING: 2, GCS: 1, RAYLET: 1, DISK: 2, CTRL_C: 1}
_WORDS = {
    DRIVER: "the driver",
    ACTOR: "a trial's process",
    MEASURING: "a measuring process",
    GCS: "Ray's gcs_server",
    RAYLET: "Ray's raylet",
    DISK: "full disk",
    CTRL_C: "Ctrl-C",
}
_POLL_S, _GONE_S = 0.25, 30.0
# SIGKILL for the driver, and Ctrl-C, which is late when Python is still starting.
_DEATHS = {DRIVER: (-signal.SIGKILL,), CTRL_C: (130, -signal.SIGINT)}


@dataclass(frozen=True)
class Plan:
    """What is done to one search.

    Attributes:
        kinds: What is hit, in this order.
        trials: The search's budget, the last phase left out.
        delay_s: Each comes at a random moment within so many seconds after the one before it took effect.
        patience_s: When nothing happens for so long, the search is said to hang.
        seed: Of the moments.
    """

    kinds: tuple[str, ...]
    trials: int
    delay_s: float
    patience_s: float
    seed: int


@dataclass(frozen=True)
class Blow:
    """What was hit, and what the search did.

    Attributes:
        kind: What was hit.
        at_s: When, since the beginning.
        ended: Trials that had ended by then.
        victim: The process.
        effect: What the search did.
        after_s: Seconds until that was seen.
    """

    kind: str
    at_s: float
    ended: int
    victim: str
    effect: str
    after_s: float


@dataclass
class Chaos:
    """One search, and all that happens to it.

    Attributes:
        job: Its job file.
        folder: A folder for its processes' temporary files and output.
        disk: Where its store lies.
        plan: What is done to it.
    """

    job: Path
    folder: Path
    disk: Disk
    plan: Plan
    blows: list[Blow] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    runs: int = 0
    left: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.store = self.disk.folder / "store"
        self._herd, self._seen = Herd(), dict[int, str]()
        self._random, self._began = random.Random(self.plan.seed), time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._expected = 0

    def run(self) -> list[str]:
        """Deal all blows, let the search come to its end, and return what is not as it must be."""
        try:
            for kind in self.plan.kinds:
                self._deal(kind)
            self._finish()
        finally:
            for process in self._herd.look():
                kill(process)
        # Killed processes leave what they had among the temporary files; Ray's own left out.
        self.left = tuple(sorted(path.name for path in self.folder.glob("*paretrim-*") if not path.is_symlink()))
        return [*self.wrong, *broken(self.store, self._seen, self.plan.trials)]

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def _deal(self, kind: str) -> None:
        delay_s = self._random.uniform(0, self.plan.delay_s)
        if kind not in (DRIVER, CTRL_C, DISK):
            self._victim(kind)  # it comes late in a run; some time after that
        self._wait(delay_s)
        victim = self._victim(kind)
        if victim is None:
            kind, victim = DRIVER, self._driver()
        ended, since = len(self._look()), time.monotonic()
        at_s = self.elapsed
        if kind == DISK:
            effect = self._without_room()
        else:
            kill(victim, signal.SIGINT if kind == CTRL_C else signal.SIGKILL)
            effect = self._effect(ended, _DEATHS.get(kind, ()))
        blow = Blow(kind, at_s, ended, f"{victim.pid} {victim.command[:60]}", effect, time.monotonic() - since)
        self.blows.append(blow)
        print(f"{at_s:6.0f} s  {ended:3} trials  {_WORDS[kind]:<20} {effect} ({blow.after_s:.1f} s)", flush=True)

    def _victim(self, kind: str) -> Process | None:
        """Return one of a kind as soon as there is one; None when the search ends before."""
        if kind in (DRIVER, CTRL_C, DISK):
            return self._driver()
        deadline = time.monotonic() + self.plan.patience_s
        while time.monotonic() < deadline:
            self._driver()
            found = self._herd.of(kind)
            if found:
                return self._random.choice(found)
            time.sleep(_POLL_S / 5)
        return None

    def _driver(self) -> Process:
        """Return the driver; start it, or let it go on, when it does not run."""
        while True:
            if self._process is None or self._process.poll() is not None:
                self._start()
            found = [p for p in self._herd.look() if self._process is not None and p.pid == self._process.pid]
            if found:
                return found[0]
            time.sleep(_POLL_S)

    def _start(self) -> None:
        if self._process is not None and self._process.returncode not in (0, self._expected) and not self._in_order():
            self.wrong.append(f"a run ended with code {self._process.returncode}: {self._last_words()}")
        self._expected = 0
        begun = any((self.store / "jobs").glob("*/started"))
        what = ["resume"] if begun else ["search", str(self.job)]
        self.runs += 1
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background jobs, and inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        environment = {**os.environ, "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "paretrim", *what, "--store", str(self.store)],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._herd.add(self._process.pid)

    @property
    def _output(self) -> Path:
        return self.folder / f"run-{self.runs}.txt"

    def _effect(self, ended: int, deaths: tuple[int, ...]) -> str:
        """Wait until a trial ends or the run does, and say which."""
        code, more = self._await_trial(ended)
        if code is not None:
            self._expected = code if code in deaths else 0
            if code == 1 and not self._in_order():
                self.wrong.append(f"a run ended with code 1, and not in order: {self._last_words()}")
            if code in deaths:
                return "ended; resumed"
            return "the search had come to its end" if code == 0 else f"ended with code {code}: {self._last_words()}"
        if not more:
            self.wrong.append(f"nothing happened for {self.plan.patience_s:.0f} s: {self._last_words()}")
            self._give_up()
            return "hung"
        said = [
            line
            for line in self._output.read_text().splitlines()
            if line.startswith(("Ray's", "trial ")) and "again" in line
        ]
        return f"went on: {said[-1].strip()}" if said else "went on"

    def _without_room(self) -> str:
        """Fill the disk up until the run ends, and make room again."""
        pids = [p.pid for p in self._herd.look() if p.kind not in (GCS, RAYLET)]
        with self.disk.full(pids):
            code, _ = self._await(lambda: False)
            words = self._last_words()
        if code is None:
            self.wrong.append(f"with a full disk nothing happened for {self.plan.patience_s:.0f} s: {words}")
            self._give_up()
            return "hung"
        self._expected = code
        if code == 0:
            return "the search came to its end"
        if "cannot be written" not in words or not self._in_order():
            self.wrong.append(f"with a full disk a run ended with code {code}, and not in order: {words}")
        return f"ended with code {code}: {words}"

    def _await_trial(self, ended: int) -> tuple[int | None, bool]:
        """Wait until more trials have ended."""
        return self._await(lambda: len(self._look()) > ended)

    def _await(self, done: Callable[[], bool]) -> tuple[int | None, bool]:
        deadline, size = time.monotonic() + self.plan.patience_s, 0
        while time.monotonic() < deadline:
            if size < (size := self._output.stat().st_size):
                deadline = time.monotonic() + self.plan.patience_s  # it still has something to say
            code = None if self._process is None else self._process.poll()
            if code is not None:
                return code, False
            if done():
                return None, True
            self._herd.look()
            time.sleep(_POLL_S)
        return None, False

    def _give_up(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGABRT)  # it writes where each of its threads is
            self._expected = self._process.wait()
            shutil.copy(self._output, Path(gettempdir(), f"{self.folder.name}-hung-{self.runs}.txt"))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._driver()
        while time.monotonic() < deadline:
            self._look()
            self._herd.look()
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def _look(self) -> dict[int, str]:
        """Return the trials that ended, and remember their records as they were first seen."""
        now = written(self.store)
        self._seen = {**now, **self._seen}
        return now

    def _finish(self) -> None:
        """Let the search come to its end, and its processes go."""
        for _ in range(2):
            self._driver()
            while self._process is not None and self._process.poll() is None:
                code, more = self._await_trial(len(self._look()))
                if code is None and not more:
                    self.wrong.append(f"nothing happened for {self.plan.patience_s:.0f} s: {self._last_words()}")
                    self._give_up()
            if self._process is not None and self._process.returncode == 0:
                break
        else:
            self.wrong.append(f"the search did not come to its end: {self._last_words()}")
        deadline = time.monotonic() + _GONE_S
        while self._herd.look() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.wrong += [f"a process is left: {p.pid} {p.command[:100]}" for p in self._herd.look()]

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._output.read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("Error: ")]
        return (told or lines or [""])[-1][:300]

    def _in_order(self) -> bool:
        """Tell whether the last run ended with a clear message.

        When its raylet dies while a driver joins it, Ray's own library ends the process from C++, which no Python can catch.
        """
        words = self._last_words()
        return (words.startswith("Error: ") and "fault of paretrim" not in words) or "core_worker_process" in words


def write_job(folder: Path, trials: int) -> Path:
    """Write the bundled example's job with short trainings, and return its path."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document |= {
        "name": "chaos",
        "folder": str(EXAMPLE.parent),
        "space": {"recovery": {"epochs": 2}},
        "budget": {"trials": trials, "parallel": 2, "trial_minutes": 10},
        "search": {"finals": {"points": 2, "seeds": 2}},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def kinds(count: int, seed: int) -> tuple[str, ...]:
    """Return what is hit, each kind in its share, in random order."""
    whole = sum(_SHARES.values())
    numbers = {kind: count * share // whole for kind, share in _SHARES.items()}
    left = count - sum(numbers.values())
    for kind in list(_SHARES)[:left]:
        numbers[kind] += 1
    found = [kind for kind, number in numbers.items() for _ in range(number)]
    random.Random(seed).shuffle(found)
    return tuple(found)


def unleash(plan: Plan, job: Path | None = None) -> tuple[Chaos, list[str], str]:
    """Run one search and do to it what is planned.

    Args:
        plan: What to do.
        job: A job file; by default the bundled example's with short trainings.

    Returns:
        All that happened, what is not as it must be, and how the disk is filled up.
    """
    folder = Path(mkdtemp(prefix="chaos-", dir=gettempdir()))
    # The measuring lane is that of all searches of this machine, also where temporary files lie elsewhere.
    lane = f"paretrim-{os.getuid()}"
    Path(gettempdir(), lane).mkdir(mode=0o700, exist_ok=True)
    (folder / lane).symlink_to(Path(gettempdir(), lane))
    try:
        with small_disk(folder / "disk") as disk:
            chaos = Chaos(job or write_job(folder, plan.trials), folder, disk, plan)
            return chaos, chaos.run(), disk.how
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Kill, print, and return 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer kills: under five minutes")
    parser.add_argument("--kills", type=int, help="how many; by default 36, and 8 with --quick")
    parser.add_argument("--seed", type=int, default=0, help="of kinds and moments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that happened")
    parser.add_argument("--no-bar", action="store_true", help="only print")
    options = parser.parse_args()
    count = options.kills or (8 if options.quick else 36)
    trials = max(6, 5 * count // 4)  # so that the search outlives them
    plan = Plan(kinds(count, options.seed), trials, 8.0 if options.quick else 20.0, 300.0, options.seed)
    chaos, wrong, how = unleash(plan)
    facts = machine.describe()
    print(
        f"\n{facts.get('cpu', '')}, {facts.get('cpu_cores', '')} cores; {len(chaos.blows)} blows, {chaos.runs} runs, ",
        end="",
    )
    print(f"{chaos.elapsed:.0f} s; disk: {how}\n")
    _print_table(chaos.blows)
    print(f"\ntemporary folders that killed processes left: {len(chaos.left)}")
    print("\n".join(["", *wrong]) if wrong else "\nall holds that must hold")
    if options.json:
        document = {
            "machine": facts,
            "disk": how,
            "runs": chaos.runs,
            "left": chaos.left,
            "blows": [asdict(b) for b in chaos.blows],
        }
        options.json.write_text(json.dumps({**document, "seconds": chaos.elapsed, "wrong": wrong}, indent=2))
    return 1 if wrong and not options.no_bar else 0


def _print_table(blows: list[Blow]) -> None:
    print("| hit | times | what the search did |\n|---|---|---|")
    for kind in _SHARES:
        own = [blow for blow in blows if blow.kind == kind]
        effects = Counter(" ".join(w for w in blow.effect.split() if not w.isdigit()) for blow in own)
        told = "; ".join(f"{effect} ({count})" for effect, count in effects.most_common())
        print(f"| {_WORDS[kind]} | {len(own)} | {told} |")


if __name__ == "__main__":
    sys.exit(main())
