"""The trials that all searches of a race make: trained, lowered, and scored on the artifact, in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import latency_of, time_quietly
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.served import served
from paretrim.search import prepare
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.looks import look
from paretrim.search.news import News
from paretrim.search.profile import glance
from paretrim.search.result import objectives_of
from paretrim.search.station import Station, clocked, lay_out
from paretrim.search.store import JobFolder
from paretrim.search.study import Asked
from paretrim.search.workshop import Workshop
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.front import Objective
from paretrim.tracking.records import BASELINE, Epoch, Preview, TrialRecord
from paretrim.tracking.sensitivity import Profile

# Models that are timed in turns; with more of them a turn takes so long that the machine is another one at its end.
_TOGETHER = 15


class Track(Protocol):
    """Where searches compete: it makes the trials that they ask for."""

    job: Job
    context: TrialContext
    objectives: tuple[Objective, ...]
    folder: Path

    def run(self, asked: Asked, *, preview: bool) -> Iterator[News | TrialRecord]:
        """Make one trial: yields what it tells under way, and last its record."""
        ...

    def glance(self) -> tuple[Profile, float]:
        """Return the sensitivity that a search begins with, and the seconds it took."""
        ...

    def looks(self, sensitivity: Profile) -> tuple[TrialRecord, ...]:
        """Return what the strongest recipes cost, untrained."""
        ...

    def settled(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials of a search that ended with the latencies by which it is judged."""
        ...


def finished(
    asked: Asked,
    measurements: Sequence[Measurement],
    seconds: Mapping[str, float],
    epochs: Sequence[Epoch],
    preview: Preview | None = None,
) -> TrialRecord:
    """Return the record of a trial that came to its own end."""
    return TrialRecord(
        asked.number,
        asked.kind,
        "complete",
        asked.recipe.values,
        asked.recipe.seed,
        tuple(measurements),
        seconds=seconds,
        epochs=tuple(epochs),
        preview=preview,
    )


class RealTrack:
    """Trials that are really made.

    While a search goes on, latency is taken in three layouts and memory in one process, as a candidate's is before its
    training: less exact than a trial of `paretrim search`, and the same for all. So that no search wins by lucky timing, and
    none by what its baseline happened to take, all that it made is timed again when it is over, in turns with the baseline
    and as exactly as finalists are. Training is counted in processor seconds of its one thread, so that it does not matter
    what else the machine does.

    Args:
        job: The job.
        folder: For artifacts and caches; new for each run, so that every run begins cold.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.subject = prepare.load(job)
        self.folder = folder / "jobs" / "race"
        self.folder.mkdir(parents=True)
        self.context = prepare.prepare(job, self.subject, JobFolder("race", self.folder), {}, lambda _: None)
        self.objectives = objectives_of(job, self.subject.metric.maximize)
        lane = Lane()
        self._made: dict[int, Artifact] = {}
        self.workshop = Workshop(self.context, lane)
        validation = self.context.splits.validation
        self._accuracy = AccuracyEvaluator(self.context.metric, validation, self.context.stations[0].output_shape)
        self._station = Station(self.context.stations[0], self.context.metric, validation, folder / "bench", lane)
        self._bench = lay_out(self.context.stations[0], validation, folder / "again", lane)

    def run(self, asked: Asked, *, preview: bool) -> Iterator[News | TrialRecord]:
        """Make one trial: yields what it tells under way, and last its record."""
        seconds: dict[str, float] = {}
        making = self.workshop.begin(asked.recipe)
        known: Preview | None = None
        epochs: list[Epoch] = []
        if preview:
            with clocked(seconds, "preview"):
                known = self._measured(making.untrained(), asked.recipe)
            yield News(known, dict(seconds))
        epoch_s = time.process_time()
        for epoch in making.train({}):
            seconds["recover"] = seconds.get("recover", 0.0) + time.process_time() - epoch_s
            epochs.append(epoch)
            yield News(epoch, dict(seconds))
            epoch_s = time.process_time()
        seconds["recover"] = seconds.get("recover", 0.0) + time.process_time() - epoch_s
        with clocked(seconds, "score"):
            found = self._scored(making.bake(), asked)
        yield finished(asked, found, seconds, epochs, known)

    def glance(self) -> tuple[Profile, float]:
        """Return the sensitivity that a search begins with, and the seconds it took."""
        began = time.process_time()
        return glance(self.context), time.process_time() - began

    def looks(self, sensitivity: Profile) -> tuple[TrialRecord, ...]:
        """Return what the strongest recipes cost, untrained."""
        return look(self.context, sensitivity)

    def _measured(self, model: torch.nn.Module, recipe: Recipe) -> Preview:
        with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
            return self._station.preview(self._lowered(model, recipe, Path(folder)))

    def settled(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials of a search that ended, timed again in turns with the baseline."""
        done = [record for record in records if record.complete and record.kind != BASELINE]
        found: dict[int, Measurement] = {}
        for at in range(0, len(done), _TOGETHER):
            found |= self._timed(done[at : at + _TOGETHER])
        reference_ms = self._bench.reference_ms
        if reference_ms is not None:  # to which the ratios are
            found |= {r.number: Measurement("latency_ms", reference_ms) for r in records if r.kind == BASELINE}
        return [_with_latency(record, found[record.number]) if record.number in found else record for record in records]

    def _timed(self, group: Sequence[TrialRecord]) -> dict[int, Measurement]:
        with ExitStack() as stack:
            models = [stack.enter_context(self._made[record.number].unpacked()) for record in group]
            contest, _ = time_quietly((self._bench.baseline, *models), self._bench, self._bench.reference_ms)
        timed = zip(group, contest.models[1:], strict=True)
        return {record.number: latency_of(each, self._bench.reference_ms) for record, each in timed}

    def _scored(self, model: torch.nn.Module, asked: Asked) -> tuple[Measurement, ...]:
        artifact = self._lowered(model, asked.recipe, self.context.artifacts)
        self._made[asked.number] = artifact
        with artifact.unpacked() as path, served(self.context.stations[0].address, path) as session:
            score = self._accuracy.score(session)
        return score, *self._station.preview(artifact).measurements

    def _lowered(self, model: torch.nn.Module, recipe: Recipe, folder: Path) -> Artifact:
        return self.workshop.lowered(self._station.target, model, recipe, folder)


def _with_latency(record: TrialRecord, latency: Measurement) -> TrialRecord:
    kept = (latency if m.name == latency.name else m for m in record.measurements)
    return replace(record, measurements=tuple(kept))
