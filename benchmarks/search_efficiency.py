"""How much front for how much training: paretrim against random search and Optuna's TPE, NSGA-II and Gaussian process.

All choose among the same recipes, make the same trials one after the other, and are measured by the hypervolume of the
same four objectives in the same box, which the baseline fixes beforehand. Training seconds count all training: paretrim's
look at what each knob does, teachers' outputs, trials that were stopped, and the last phase; each run begins cold.

The bar: on each subject paretrim reaches the best other's final hypervolume with at most a fifth of its training seconds,
both in the mean over the seeds.

    python benchmarks/search_efficiency.py [--data DIR] [--quick] [--json FILE] [--no-bar]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts as a script

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.race import OURS, RIVALS, Run, Track, ours, rival
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.tracking.progress import Step

SHARE = 0.2


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST, for LeNet-300-100; without it digits alone")
    parser.add_argument("--quick", action="store_true", help="one seed, few trials, two methods (under 5 minutes)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=43, help="of each search, the three anchors among them")
    parser.add_argument("--methods", nargs="*", default=[OURS, *RIVALS], choices=[OURS, *RIVALS])
    parser.add_argument(
        "--without", choices=["preview", "halving", "warm_start", "share", "finals"], nargs="*", default=[]
    )
    parser.add_argument("--workers", type=int, default=2, help="searches that run at the same time, each on one core")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--no-bar", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.trials, given.methods = 1, 13, [OURS, "tpe"]
    runs = list(_runs(given))
    if given.json:
        given.json.write_text(json.dumps([asdict(run) for run in runs]))
    console = Console(width=130)
    console.print(_table(runs))
    verdict = _verdict(runs)
    console.print(verdict[1])
    return 0 if verdict[0] or given.no_bar else 1


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    plan = [(method, seed) for seed in range(given.seeds) for method in given.methods]
    with ProcessPoolExecutor(given.workers) as pool:
        pending = {pool.submit(_one, method, seed, given.trials, tuple(given.without)) for method, seed in plan}
        for done in as_completed(pending):
            run = done.result()
            last = run.steps[-1]
            print(
                f"{run.method} {run.seed}: {last.hypervolume:.4f} after {last.training_seconds:.1f} s of training, "
                f"{len(run.steps)} trials, {run.wall_seconds:.0f} s in all",
                flush=True,
            )
            yield run


def _one(method: str, seed: int, trials: int, without: Sequence[str]) -> Run:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        track = Track(_job(seed, without), Path(folder))
        return ours(track, seed, trials) if method == OURS else rival(track, method, seed, trials)


def _job(seed: int, without: Sequence[str]) -> Job:
    off: dict[str, Any] = {"preview": False, "halving": "off", "warm_start": False, "share": False}
    chosen: dict[str, Any] = {name: off.get(name, {"points": 0}) for name in without}
    return Job(**{**load(EXAMPLE).model_dump(), "seed": seed, "search": chosen})


def _table(runs: Sequence[Run]) -> Table:
    table = Table("method", "seeds", "trials", "hypervolume", "training s", "wall s")
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == method]
        volumes = [run.steps[-1].hypervolume for run in mine]
        spread = f" ±{stdev(volumes):.4f}" if len(volumes) > 1 else ""
        table.add_row(
            method,
            str(len(mine)),
            f"{mean(len(run.steps) for run in mine):.0f}",
            f"{mean(volumes):.4f}{spread}",
            f"{mean(run.steps[-1].training_seconds for run in mine):.1f}",
            f"{mean(run.wall_seconds for run in mine):.0f}",
        )
    return table


def _verdict(runs: Sequence[Run]) -> tuple[bool, str]:
    """Return whether the bar is met, and how near it was."""
    mine = [run for run in runs if run.method == OURS]
    others = {run.method: [r for r in runs if r.method == run.method] for run in runs if run.method != OURS}
    if not mine or not others:
        return True, "nothing to compare"
    best = max(others, key=lambda name: mean(run.steps[-1].hypervolume for run in others[name]))
    goal = mean(run.steps[-1].hypervolume for run in others[best])
    spent = mean(run.steps[-1].training_seconds for run in others[best])
    reached = _seconds_to(mine, goal)
    if reached is None:
        return False, f"{OURS} did not reach the {goal:.4f} of {best}"
    share = reached / spent
    text = (
        f"{OURS} reaches the {goal:.4f} of {best} after {reached:.1f} s of training, {share:.0%} of its {spent:.1f} s"
    )
    return share <= SHARE, f"{text}; at most {SHARE:.0%} is asked for"


def _seconds_to(runs: Sequence[Run], goal: float) -> float | None:
    """Return the training seconds at which the mean hypervolume of some runs reaches a goal."""
    moments = sorted({step.training_seconds for run in runs for step in run.steps})
    return next((at for at in moments if mean(_at(run.steps, at) for run in runs) >= goal), None)


def _at(steps: Sequence[Step], seconds: float) -> float:
    return max((step.hypervolume for step in steps if step.training_seconds <= seconds), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
