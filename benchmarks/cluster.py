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
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

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

PARTS = ("kills", "scaling", "simulation")
NODES, TRIALS, EVERY_S, LIMIT_S = 4, 40, 20.0, 1800.0
SHARE = 0.9
# Trials that last as long as recorded ones, and so many times as long.
FACTORS = (1.0, 10.0, 100.0)
# A machine that is this busy is what limits, not paretrim.
SATURATED = 0.9


@dataclass(frozen=True)
class Scaled:
    """How much was done in how many workers.

    Attributes:
        workers: Their number.
        trial_s: How long each trial slept.
        trials: Trials that ended.
        share: Of the ideal throughput, from the moment when all workers are there.
        busy: Share of this machine's processor time that was used.
        driver_ms: Processor time of the driver for each trial.
    """

    workers: int
    trial_s: float
    trials: int
    share: float
    busy: float
    driver_ms: float


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 trials with two kills, and 1 to 4 workers")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--no-bar", action="store_true")
    given = parser.parse_args()
    missed: list[str] = []
    scaled: list[Scaled] = []
    os.environ["RAY_AUTH_MODE"] = "disabled"  # on loopback, for the time of this script
    with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
        if "kills" in given.only:
            missed += killed(Path(folder), 12 if given.quick else TRIALS, 10.0 if given.quick else EVERY_S, given.seed)
        if "scaling" in given.only or "simulation" in given.only:
            counts = (1, 2, 4) if given.quick else (1, 2, 4, 8, 64)
            scaled = list(scaling(Path(folder), counts))
            Console(width=110).print(_scaling_table(scaled))
            durations = recorded(Path(folder)) if "simulation" in given.only else []
            missed += [
                f"{each.workers} workers had {each.share:.0%} of the ideal throughput on a machine {each.busy:.0%} busy"
                for each in scaled
                if each.share < SHARE and each.busy < SATURATED
            ]
    if "simulation" in given.only:
        Console(width=110).print(_simulation_table(scaled[-1].driver_ms / 1e3, durations))
    print("\n".join(missed) if missed else "the bar is met")
    if given.json:
        given.json.write_text(json.dumps({"missed": missed, "scaling": [asdict(each) for each in scaled]}, indent=2))
    return 1 if missed and not given.no_bar else 0


def killed(folder: Path, trials: int, every_s: float, seed: int) -> list[str]:
    """Run a search while nodes are killed; return what is wrong in the end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    nodes = [_node(cluster) for _ in range(NODES)]
    store, chance, kills = folder / "killed", random.Random(seed), 0
    log = (folder / "driver.log").open("ab")
    driver = subprocess.Popen(
        [sys.executable, "-m", "paretrim", "search", str(EXAMPLE), "--trials", str(trials), "--parallel", str(NODES)],
        env={**os.environ, "RAY_ADDRESS": cluster.address, "PARETRIM_STORE": str(store)}, stdout=log, stderr=log,
    )  # fmt: skip
    since = time.monotonic()
    while driver.poll() is None and time.monotonic() - since < LIMIT_S:
        time.sleep(1.0)
        if (time.monotonic() - since) // every_s > kills:
            cluster.remove_node(nodes.pop(chance.randrange(len(nodes))), allow_graceful=False)
            nodes.append(_node(cluster))
            kills += 1
    cluster.shutdown()
    print(
        f"{trials} trials on {NODES} nodes, {kills} of which were killed and replaced, in {time.monotonic() - since:.0f} s"
    )
    if driver.poll() != 0:
        driver.kill()
        return [f"the driver ended with {driver.returncode}: {(folder / 'driver.log').read_text()[-2000:]}"]
    result = open_result(None, Store(store))
    failed = [f"trial {r.number} failed: {r.cause}" for r in result.records if r.state == "failed"]
    return failed + disagreeing(result, trials)


def _node(cluster: Cluster) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 << 20)


def scaling(folder: Path, counts: Sequence[int]) -> Iterator[Scaled]:
    """Yield how much is done in some numbers of workers."""
    for workers in counts:
        # Longer with many workers, which on so few cores take their time to start.
        trial_s, rounds = (5.0, 6) if workers < 16 else (20.0, 6)
        place = Place(folder / f"scaling-{workers}", workers)
        actor = type("Sleeping", (Sleeper,), {"seconds": trial_s})
        own, machine, since = psutil.Process().cpu_times(), psutil.cpu_times(), time.monotonic()
        study, _ = place.search(rounds * workers, actor, "random")
        done, now = psutil.Process().cpu_times(), psutil.cpu_times()
        records = study.records()
        yield Scaled(
            workers,
            trial_s,
            len(records),
            _share(records, workers, trial_s),
            1.0 - (now.idle - machine.idle) / ((time.monotonic() - since) * (os.cpu_count() or 1)),
            (done.user + done.system - own.user - own.system) / len(records) * 1e3,
        )


def _share(records: Sequence[Any], workers: int, trial_s: float) -> float:
    """Return the share of the ideal throughput between the moment when all are at work and that when the first is done."""
    spans = sorted((float(r.environment["began"]), float(r.environment["ended"])) for r in records)
    start, end = spans[workers - 1][0], spans[-workers][1]
    done = sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans)
    return done / (workers * max(end - start, trial_s))


def simulated(workers: int, durations: Sequence[float], driver_s: float, trials: int) -> float:
    """Return the share of the workers' time that goes into trials when one driver serves them in turn.

    Args:
        workers: Their number.
        durations: How long recorded trials took, in seconds; they are drawn from at random.
        driver_s: What a trial takes of the driver, in seconds.
        trials: How many to simulate.
    """
    chance = random.Random(workers)
    free = [0.0] * workers
    heapq.heapify(free)
    driver, busy = 0.0, 0.0
    for _ in range(trials):
        asked = heapq.heappop(free)
        driver = max(driver, asked) + driver_s
        lasts = chance.choice(durations)
        busy += lasts
        heapq.heappush(free, driver + lasts)
    return busy / (workers * max(free))


def _scaling_table(scaled: Sequence[Scaled]) -> Table:
    table = Table("workers", "a trial", "trials", "of the ideal throughput", "machine busy", "driver, ms a trial")
    for each in scaled:
        table.add_row(
            str(each.workers), f"{each.trial_s:.0f} s", str(each.trials), f"{each.share:.1%}", f"{each.busy:.0%}",
            f"{each.driver_ms:.0f}",
        )  # fmt: skip
    return table


def recorded(folder: Path) -> list[float]:
    """Return how long the trials of a search of the bundled example took, in seconds; search if none is there."""
    store = folder / "killed"
    if not store.exists():
        command = [sys.executable, "-m", "paretrim", "search", "--trials", "12", "--store", str(store)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [sum(record.seconds.values()) for record in open_result(None, Store(store)).records if record.complete]


def _simulation_table(driver_s: float, durations: Sequence[float]) -> Table:
    head = [f"of {fmean(durations) * factor:.0f} s" for factor in FACTORS]
    table = Table(f"workers (driver: {driver_s * 1e3:.0f} ms a trial)", *head)
    for workers in (8, 64, 256, 1000):
        shares = [simulated(workers, [factor * s for s in durations], driver_s, 20 * workers) for factor in FACTORS]
        table.add_row(str(workers), *(f"{share:.1%}" for share in shares))
    return table


if __name__ == "__main__":
    sys.exit(main())
