"""Records how real trials of the bundled example learn, for tests that replay them without any training.

Of each trial are kept what is known before its training, the score after every epoch, and that of the final model; no
trial stops early. With ``--deep`` the space reaches further than by default, to a tenth of the channels and to 2 bits.

    python tests/subjects/record_curves.py tests/data/curves.json --trials 60 --epochs 8 --sampler random --deep
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from paretrim.errors import ParetrimError
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.search import prepare
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE
from paretrim.search.result import objectives_of
from paretrim.search.station import Station
from paretrim.search.store import JobFolder
from paretrim.search.study import Asked, Study
from paretrim.search.workshop import Workshop
from paretrim.tracking.records import TrialRecord

_COSTS = ("latency_ms", "size_bytes", "memory_bytes")
_DEEP = {"pruning": {"ratio": [0.0, 0.9], "step": 0.1}, "quantization": {"weight_bits": [2, 3, 4, 8]}}


@dataclass(frozen=True)
class Curve:
    """How a trial went.

    Attributes:
        number: Its number.
        costs: Known before its training.
        scores: After each epoch.
        accuracy: Of the final model.
    """

    number: int
    costs: dict[str, float]
    scores: tuple[float, ...]
    accuracy: float

    @property
    def line(self) -> str:
        """As JSON."""
        costs = {name: float(f"{value:.6g}") for name, value in self.costs.items()}
        scores = [round(score, 4) for score in self.scores]
        return json.dumps(
            {"number": self.number, "costs": costs, "scores": scores, "accuracy": round(self.accuracy, 4)}
        )

    def record(self, asked: Asked) -> TrialRecord:
        """As the study takes it."""
        found = (
            *(Measurement(name, value) for name, value in self.costs.items()),
            Measurement("accuracy", self.accuracy),
        )
        return TrialRecord(asked.number, asked.kind, "complete", asked.recipe.values, asked.recipe.seed, found)


def record(given: argparse.Namespace) -> None:
    """Make the trials and write the file, anew after each of them."""
    torch.set_num_threads(1)
    space: dict[str, Any] = {"recovery": {"epochs": given.epochs}, **(_DEEP if given.deep else {})}
    job = Job(model="digits:model", data="digits:data", folder=EXAMPLE.parent, space=space, seed=given.seed)
    job = job.model_copy(update={"search": job.search.model_copy(update={"share": False})})
    with TemporaryDirectory(prefix="paretrim-") as root:
        folder = JobFolder("curves", Path(root))
        folder.scratch.mkdir()
        context = prepare.prepare(job, prepare.load(job), folder, {}, print)
        study = Study(f"sqlite:///{root}/study.db", "curves", objectives_of(job, True), (), given.seed, create=True)
        study.begin(context.space.anchors(given.seed))
        study.use_sampler(given.trials, given.sampler)
        maker, lines = _Maker(context, folder.scratch), []
        while len(lines) < given.trials:
            asked = study.ask(context.space)
            try:
                curve = maker.make(asked)
            except ParetrimError as error:
                print(asked.number, error)  # noqa: T201
                study.tell(TrialRecord(asked.number, asked.kind, "failed", asked.recipe.values, cause=str(error)))
                continue
            study.tell(curve.record(asked))
            lines.append(curve.line)
            print(lines[-1])  # noqa: T201
            head = json.dumps(
                {"epochs": given.epochs, "sampler": given.sampler, "deep": given.deep, "seed": given.seed}
            )
            given.path.write_text(f'{head[:-1]}, "trials": [\n' + ",\n".join(lines) + "\n]}\n")


class _Maker:
    def __init__(self, context: TrialContext, scratch: Path) -> None:
        self._context, self._lane, self._scratch = context, Lane(), scratch
        self._workshop = Workshop(context, self._lane)
        splits = context.splits
        self._station = Station(context.stations[0], context.metric, splits.validation, scratch / "bench", self._lane)

    def make(self, asked: Asked) -> Curve:
        making = self._workshop.begin(asked.recipe)
        with TemporaryDirectory(dir=self._scratch) as folder:
            untrained = making.untrained()
            artifact = self._workshop.lowered(self._station.target, untrained, asked.recipe, Path(folder))
            known = self._station.preview(artifact).metrics
        scores = tuple(epoch.score or 0.0 for epoch in making.train({}))
        accuracy = score_torch(making.bake(), self._context.splits.validation, self._context.metric)
        return Curve(asked.number, {name: known[name] for name in _COSTS}, scores, accuracy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    record(parser.parse_args())
