"""Records how real trials of the bundled example learn, for tests that replay them without any training.

A search as it goes without early stopping: the anchors and what the sampler asks for, each trained to its end. Of each
trial are kept the score after every epoch, what was known before the training, and what came out. Latency and memory
depend on shapes and bits alone, so those of the trained artifact stand for both; the size before is that of the
artifact with the weights as they were before the training.

    python tests/subjects/record_curves.py tests/data/digits_curves.json --trials 60 --epochs 8
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from paretrim.evaluators.lane import Lane
from paretrim.search import prepare
from paretrim.search.context import TrialContext
from paretrim.search.costs import with_costs
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE
from paretrim.search.result import objectives_of
from paretrim.search.store import JobFolder
from paretrim.search.study import Asked, Study
from paretrim.search.trial import TrialRunner
from paretrim.search.workshop import Workshop
from paretrim.tracking.records import Epoch, TrialRecord

_COSTS = ("latency_ms", "size_bytes", "memory_bytes")


def record(path: Path, trials: int, epochs: int, seed: int) -> None:
    """Make the trials and write the file, anew after each of them."""
    torch.set_num_threads(1)
    space = {"recovery": {"epochs": epochs}}
    job = Job(name="digits", model="digits:model", data="digits:data", folder=EXAMPLE.parent, space=space, seed=seed)
    with TemporaryDirectory(prefix="paretrim-") as root:
        folder = JobFolder("curves", Path(root))
        folder.scratch.mkdir()
        subject = prepare.load(job)
        context = with_costs(prepare.prepare(job, subject, folder, {}, print))
        study = Study(f"sqlite:///{root}/study.db", "curves", objectives_of(job, True), (), seed, create=True)
        study.begin(context.space.anchors(seed))
        study.use_sampler(trials)
        runner, made = TrialRunner(context, folder.scratch), []
        for _ in range(trials):
            asked = study.ask(context.space)
            size = _size_before(context, asked)
            *course, ended = runner.run(asked)
            assert isinstance(ended, TrialRecord)
            study.tell(ended)
            made.append(_curve(ended, course, size))
            path.write_text(_text({"metric": "accuracy", "epochs": epochs, "seed": seed}, made))
            print(made[-1])  # noqa: T201


def _size_before(context: TrialContext, asked: Asked) -> int:
    workshop = Workshop(context, Lane())
    model = workshop.shaped(asked.recipe, workshop.schooling(asked.recipe))
    workshop.bake(model, asked.recipe)
    with TemporaryDirectory(prefix="paretrim-") as folder:
        return workshop.lowered(context.stations[0].address.build(), model, asked.recipe, Path(folder)).size_bytes


def _curve(ended: TrialRecord, course: list[Any], size: int) -> dict[str, Any]:
    values = ended.metrics
    costs = {name: float(f"{values[name]:.6g}") for name in _COSTS}
    return {
        "number": ended.number,
        "kind": ended.kind,
        "scores": [round(each.score or 0.0, 4) for each in course if isinstance(each, Epoch)],
        "before": {**costs, "size_bytes": size},
        "after": {"accuracy": round(values["accuracy"], 4), **costs},
    }


def _text(head: dict[str, Any], made: list[dict[str, Any]]) -> str:
    """Return JSON with a line for each trial."""
    lines = ",\n".join(json.dumps(each) for each in made)
    return f'{json.dumps(head)[:-1]}, "trials": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    record(given.path, given.trials, given.epochs, given.seed)
