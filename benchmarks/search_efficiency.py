"""How much front for how much training: paretrim against random search, Optuna's samplers and Syne Tune's MOASHA.

All choose among the same recipes, make the same trials one after the other, and are measured by the hypervolume of the
same four objectives in the same box, which the baseline fixes beforehand. Training seconds count all training: paretrim's
look at what each knob does, teachers' outputs, trials that were stopped, and the last phase; each run begins cold.

Subjects: the bundled digits; with ``--data`` also LeNet-300-100 and LeNet-5 with MNIST (`benchmarks.trained`); and with
``--replay`` the trials that an earlier run kept by ``--records``, through models fitted to them, so that a trial costs no
training and many seeds are cheap.

The bar: on digits and LeNet-300-100 paretrim reaches the best other's final hypervolume with at most a fifth of its
training seconds, both in the mean over the seeds.

    python benchmarks/search_efficiency.py [--subject NAME] [--data DIR] [--quick] [--json FILE] [--no-bar]
        [--records FILE] [--runs FILE] [--replay FILE] [--plot FILE.svg] [--methods ...] [--without ...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts as a script

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.kept import FOLDER
from benchmarks.race import MOASHA, OURS, RIVALS, Run, ours, rival
from benchmarks.race_plot import at, draw
from benchmarks.race_replay import Replayed, fitted
from benchmarks.race_track import RealTrack
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.tracking.progress import Step

SHARE = 0.2
PARTS = ("preview", "halving", "warm_start", "share", "finals")
_MNIST: dict[str, Any] = {
    "constraints": ["accuracy >= baseline - 0.02"],
    "space": "auto",
    "folder": Path(__file__).resolve().parents[1],
}
SUBJECTS: dict[str, dict[str, Any]] = {
    "digits": {},
    "lenet300": {**_MNIST, "model": "benchmarks.trained:lenet300", "data": "benchmarks.trained:few_mnist_images"},
    "lenet5": {**_MNIST, "model": "benchmarks.trained:lenet5", "data": "benchmarks.trained:few_mnist_images"},
}


@dataclass(frozen=True)
class Entry:
    """One search of a race.

    Attributes:
        subject: What is compressed.
        method: Who chooses.
        seed: Of the search.
        trials: Of the search.
        without: Parts of paretrim's search that are off.
        replay: File of recorded trials that stand for real ones.
    """

    subject: str
    method: str
    seed: int
    trials: int
    without: tuple[str, ...]
    replay: Path | None


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=list(SUBJECTS), default="digits")
    parser.add_argument("--data", type=Path, help="folder of MNIST, for LeNet-300-100 and LeNet-5")
    parser.add_argument("--quick", action="store_true", help="one seed, few trials, two methods (under 5 minutes)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=43, help="of each search, the three anchors among them")
    parser.add_argument("--methods", nargs="*", default=[OURS, *RIVALS], choices=[OURS, *RIVALS])
    parser.add_argument("--without", choices=PARTS, nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2, help="searches that run at the same time, each on one core")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--records", type=Path, metavar="FILE", help="add all trials to it, one JSON a line")
    parser.add_argument(
        "--runs", type=Path, metavar="FILE", help="add each search to it, and take those it has from it"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="trials kept by --records that stand for real ones")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the hypervolume, as SVG or PNG")
    parser.add_argument("--no-bar", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.trials, given.methods = 1, 13, [OURS, "tpe"]
    if given.data:
        os.environ[FOLDER] = str(given.data.resolve())
    elif given.subject != "digits":
        parser.error(f"--subject {given.subject} needs --data, the folder of MNIST")
    if given.replay:
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            print(fitted(given.replay, RealTrack(_job(given.subject, 0, ()), Path(folder))).errors())
    if MOASHA in given.methods and find_spec("syne_tune") is None:
        parser.error("the method moasha needs Syne Tune: pip install --no-deps syne-tune==0.16.0")
    runs = list(_runs(given))
    _keep(runs, given)
    console = Console(width=130)
    console.print(_table(runs))
    verdict = _verdict(runs)
    console.print(verdict[1])
    return 0 if verdict[0] or given.no_bar else 1


def _keep(runs: Sequence[Run], given: argparse.Namespace) -> None:
    if given.json:
        brief = [_brief(run) for run in runs]
        given.json.write_text(json.dumps({"subject": given.subject, "without": given.without, "runs": brief}))
    if given.plot:
        draw(runs, given.plot)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    plan = [
        Entry(given.subject, method, seed, given.trials, tuple(given.without), given.replay)
        for seed in range(given.seeds)
        for method in given.methods
    ]
    had = _had(given.runs)
    yield from (had[str(entry)] for entry in plan if str(entry) in had)
    with ProcessPoolExecutor(given.workers) as pool:
        begun = {pool.submit(_one, entry): entry for entry in plan if str(entry) not in had}
        for done in as_completed(begun):
            run = done.result()
            last = run.steps[-1]
            print(
                f"{run.method} {run.seed}: {last.hypervolume:.4f} after {last.training_seconds:.1f} s of training, "
                f"{len(run.steps)} trials, {run.wall_seconds:.0f} s in all",
                flush=True,
            )
            if given.records:
                with given.records.open("a") as file:  # at once: races are long
                    file.writelines(f"{record.to_json()}\n" for record in run.records)
            if given.runs:
                with given.runs.open("a") as file:
                    file.write(json.dumps({"entry": str(begun[done]), "run": _brief(run)}) + "\n")
            yield run


def _had(file: Path | None) -> dict[str, Run]:
    """Return the searches that a file has, by what they were."""
    if file is None or not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        line["entry"]: Run(
            **{**line["run"], "steps": tuple(Step(**each) for each in line["run"]["steps"]), "records": ()}
        )
        for line in lines
    }


def _brief(run: Run) -> dict[str, Any]:
    return {k: v for k, v in asdict(run).items() if k != "records"}


def _one(entry: Entry) -> Run:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        real = RealTrack(_job(entry.subject, entry.seed, entry.without), Path(folder))
        track = Replayed(real, fitted(entry.replay, real), entry.seed) if entry.replay else real
        if entry.method == OURS:
            return ours(track, entry.seed, entry.trials)
        return rival(track, entry.method, entry.seed, entry.trials)


def _job(subject: str, seed: int, without: Sequence[str]) -> Job:
    off: dict[str, Any] = {"preview": False, "halving": "off", "warm_start": False, "share": False}
    chosen: dict[str, Any] = {name: off.get(name, {"points": 0}) for name in without}
    return Job(**{**load(EXAMPLE).model_dump(), **SUBJECTS[subject], "seed": seed, "search": chosen})


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
    return next((moment for moment in moments if mean(at(run.steps, moment) for run in runs) >= goal), None)


if __name__ == "__main__":
    sys.exit(main())
