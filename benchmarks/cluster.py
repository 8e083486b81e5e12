"""A cluster on one machine: a search whose nodes are killed, and how throughput grows with the workers.

1. A search of 40 trials on four nodes of Ray's, of which one is killed every 20 seconds and another joins. Nothing may be lost,
   made twice, or logged otherwise than in the study.
2. Trials that sleep, in 1 to 64 workers that hold no torch: at least 90% of the ideal throughput up to where this machine
   itself has no processor time left.
3. A simulation of up to 1,000 workers: the driver, one thread, serves trials in the time that it was measured to take for
   each; trials last as long as recorded ones.

    python benchmarks/cluster.py [--quick] [--only kills scaling simulation] [--json FILE] [--no-bar]
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from benchmarks.chaos_checks import disagreeing
from benchmarks.overhead import Place
from benchmarks.sleeper import Sleeper
from paretrim.search.jobfile import EXAMPLE
from paretrim.search.result import open_result
from paretrim.search.store import Store
from paretrim.tracking.records import TrialRecord

PARTS = ("kills", "scaling", "simulation")
ROOT = Path(__file__).resolve().parent.parent
NODES, TRIALS, EVERY_S, LIMIT_S = 4, 40, 20.0, 1800.0
SHARE = 0.9
# Trials that last as long as recorded ones, and so many times as long.
FACTORS = (1.0, 10.0, 100.0)
# A machine that is this busy is what limits, not paretrim.
SATURATED = 0.9
_SAMPLE_S = 0.25


@dataclass(frozen=True)
class Scaled:
    """How much was done in how many workers, while all of them were there and had something to do.

    Attributes:
        workers: Their number.
        trial_s: How long each trial slept.
        trials: Trials that ended.
        share: Of the ideal throughput.
        rate: Trials a second.
        busy: Share of this machine's processor time that was used.
        driver: Processor seconds of the driver a second.
    """

    workers: int
    trial_s: float
    trials: int
    share: float
    rate: float
    busy: float
    driver: float


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 trials with two kills, and 1 to 4 workers")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--no-bar", action="store_true")
    given = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, for the time of this script
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # for workers
    found: dict[str, Any] = {"missed": [], "scaling": []}
    with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
        for part in given.only:
            _PARTS[part](Path(folder), given, found)
            if given.json:
                given.json.write_text(json.dumps(found, indent=2))
    print("\n".join(found["missed"]) if found["missed"] else "the bar is met")
    return 1 if found["missed"] and not given.no_bar else 0


def _kills(folder: Path, given: argparse.Namespace, found: dict[str, Any]) -> None:
    trials, every_s = (12, 10.0) if given.quick else (TRIALS, EVERY_S)
    found["missed"] += killed(folder, trials, every_s, given.seed)


def _scaling(folder: Path, given: argparse.Namespace, found: dict[str, Any]) -> None:
    for workers in (1, 2, 4) if given.quick else (1, 2, 4, 8, 64):
        each, wrong = scaled(folder, workers)
        found["scaling"].append(asdict(each))
        found["missed"] += wrong
        if each.share < SHARE and each.busy < SATURATED:
            found["missed"].append(
                f"{workers} workers had {each.share:.0%} of the ideal throughput on a machine {each.busy:.0%} busy"
            )
    Console(width=110).print(_scaling_table([Scaled(**each) for each in found["scaling"]]))


def _simulation(folder: Path, given: argparse.Namespace, found: dict[str, Any]) -> None:  # noqa: ARG001 - as the others
    """Simulate many workers, with what a trial takes of the driver as found by the scaling."""
    rows = [Scaled(**each) for each in found["scaling"]]
    if len(rows) < 2:
        print("the simulation needs the scaling before it: leave --only out")
        return
    # The slope: what the driver takes with no trial at all is not a trial's.
    driver_s = max(1e-4, float(np.polyfit([row.rate for row in rows], [row.driver for row in rows], 1)[0]))
    table, simulation = _simulation_table(driver_s, recorded(folder))
    Console(width=110).print(table)
    found["simulation"] = {"driver_ms": driver_s * 1e3, "shares": simulation}


_PARTS = {"kills": _kills, "scaling": _scaling, "simulation": _simulation}


def killed(folder: Path, trials: int, every_s: float, seed: int) -> list[str]:
    """Run a search while nodes are killed; return what is wrong in the end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    store, chance, kills, since = folder / "killed", random.Random(seed), 0, time.monotonic()
    driver: subprocess.Popen[bytes] | None = None
    try:
        nodes = [_node(cluster) for _ in range(NODES)]
        log = (folder / "driver.log").open("ab")
        words = ["search", str(EXAMPLE), "--trials", str(trials), "--parallel", str(NODES)]
        driver = subprocess.Popen(
            [sys.executable, "-m", "paretrim", *words],
            env={**os.environ, "RAY_ADDRESS": cluster.address, "PARETRIM_STORE": str(store)}, stdout=log, stderr=log,
        )  # fmt: skip
        while driver.poll() is None and time.monotonic() - since < LIMIT_S:
            time.sleep(1.0)
            if (time.monotonic() - since) // every_s > kills:
                cluster.remove_node(nodes.pop(chance.randrange(len(nodes))), allow_graceful=False)
                nodes.append(_node(cluster))
                kills += 1
    finally:
        code = _ended(driver)
        cluster.shutdown()
    taken = time.monotonic() - since
    said = (folder / "driver.log").read_text(errors="replace")
    print(f"{trials} trials on {NODES} nodes, {kills} of which were killed and replaced, in {taken:.0f} s;", end=" ")
    print(f"{said.count('made again: ')} times a trial was made again")
    if code != 0:
        return [f"the driver ended with {code}: {said[-2000:]}"]
    result = open_result(None, Store(store))
    # A trial may fail by its own fault; one that was lost with its machine may not.
    lost = [f"trial {r.number} failed: {r.cause}" for r in result.records if r.state == "failed" and "died" in r.cause]
    return lost + disagreeing(result, trials)


def _ended(driver: subprocess.Popen[bytes] | None) -> int | None:
    """Return how the driver ended; one that has not is ended."""
    if driver is None:
        return None
    if driver.poll() is None:
        driver.kill()
    return driver.wait()


def _node(cluster: Cluster) -> Any:
    """Add a node; once more where the machine is too busy to start it in time."""
    for left in (1, 0):
        try:
            return cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        except TimeoutError:
            if not left:
                raise
    raise AssertionError("one of the two returns or raises")


def scaled(folder: Path, workers: int) -> tuple[Scaled, list[str]]:
    """Return how much is done in a number of workers, and what makes that worth nothing."""
    # Longer with many workers, which on so few cores take their time to start.
    trial_s, rounds = (5.0, 6) if workers < 16 else (20.0, 6)
    place = Place(folder / f"scaling-{workers}", workers)
    actor = type("Sleeping", (Sleeper,), {"seconds": trial_s})
    with _Meter() as meter:
        study, _ = place.search(rounds * workers, actor, "random")
    records = [r for r in study.records() if r.complete]
    spans = _spans(records)
    window = max(own[0][0] for own in spans.values()), min(own[-1][1] for own in spans.values())
    done = sum(max(0.0, min(b, window[1]) - max(a, window[0])) for own in spans.values() for a, b in own)
    length = max(window[1] - window[0], 1e-9)
    rate = done / trial_s / length
    wrong = []
    if len(spans) < workers or len(records) < rounds * workers:
        wrong.append(f"{len(records)} of {rounds * workers} trials ended, in {len(spans)} of {workers} workers")
    if any(r.environment["torch"] == "True" for r in records):
        wrong.append("workers hold torch")
    busy, driver = meter.between(*window)
    return Scaled(workers, trial_s, len(records), done / (workers * length), rate, busy, driver), wrong


def _spans(records: Sequence[TrialRecord]) -> dict[str, list[tuple[float, float]]]:
    """Return when each worker's trials began and ended, in their order."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        span = float(record.environment["began"]), float(record.environment["ended"])
        found.setdefault(record.environment["worker"], []).append(span)
    return {worker: sorted(spans) for worker, spans in found.items()}


class _Meter:
    """Reads, all the time, how much of the machine is idle and what this process takes."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        own = psutil.Process()
        while not self._over.wait(_SAMPLE_S):
            taken = own.cpu_times()
            self._samples.append((time.time(), psutil.cpu_times().idle, taken.user + taken.system))

    def between(self, start: float, end: float) -> tuple[float, float]:
        """Return the share of the machine that was busy, and the processor seconds of this process a second."""
        inside = [each for each in self._samples if start <= each[0] <= end] or self._samples
        first, last = inside[0], inside[-1]
        length = max(last[0] - first[0], 1e-9)
        return 1.0 - (last[1] - first[1]) / (length * (os.cpu_count() or 1)), (last[2] - first[2]) / length


def simulated(workers: int, durations: Sequence[float], driver_s: float, each: int = 30) -> float:
    """Return the share of the workers' time that goes into trials when one driver serves them in turn.

    Counted is the time when all have begun and none has run out of trials.

    Args:
        workers: Their number.
        durations: How long recorded trials took, in seconds; they are drawn from at random.
        driver_s: What a trial takes of the driver, in seconds.
        each: Trials a worker, in the mean.
    """
    chance = random.Random(workers)
    free = [(0.0, worker) for worker in range(workers)]
    heapq.heapify(free)
    driver, spans = 0.0, dict[int, list[tuple[float, float]]]()
    for _ in range(each * workers):
        asked, worker = heapq.heappop(free)
        driver = max(driver, asked) + driver_s
        spans.setdefault(worker, []).append((driver, driver + chance.choice(durations)))
        heapq.heappush(free, (spans[worker][-1][1], worker))
    start, end = max(own[0][0] for own in spans.values()), min(own[-1][1] for own in spans.values())
    done = sum(max(0.0, min(b, end) - max(a, start)) for own in spans.values() for a, b in own)
    return done / (workers * max(end - start, 1e-9))


def _scaling_table(rows: Sequence[Scaled]) -> Table:
    table = Table("workers", "a trial", "trials", "of the ideal throughput", "machine busy", "driver, of a core")
    for row in rows:
        table.add_row(
            str(row.workers), f"{row.trial_s:.0f} s", str(row.trials), f"{row.share:.1%}", f"{row.busy:.0%}",
            f"{row.driver:.1%}",
        )  # fmt: skip
    return table


def recorded(folder: Path) -> list[float]:
    """Return how long the trials of a search of the bundled example took, in seconds; search if none is there."""
    store = Store(folder / "killed")
    if not store.names():
        command = [sys.executable, "-m", "paretrim", "search", "--trials", "12", "--store", str(store.root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Those that were stopped early too: they are what keeps a driver busy.
    taken = [sum(record.seconds.values()) for record in open_result(None, store).records if record.state != "failed"]
    return [seconds for seconds in taken if seconds > 0]


def _simulation_table(driver_s: float, durations: Sequence[float]) -> tuple[Table, dict[str, list[float]]]:
    head = [f"of {fmean(durations) * factor:.0f} s" for factor in FACTORS]
    table = Table(f"workers (driver: {driver_s * 1e3:.0f} ms a trial)", *head)
    found = {}
    for workers in (8, 64, 256, 1000):
        shares = [simulated(workers, [factor * s for s in durations], driver_s) for factor in FACTORS]
        table.add_row(str(workers), *(f"{share:.1%}" for share in shares))
        found[str(workers)] = shares
    return table, found


if __name__ == "__main__":
    sys.exit(main())
