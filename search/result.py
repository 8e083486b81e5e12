"""The result of a search: its records, its front, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from paretrim.errors import ArtifactError, NothingFoundError, UsageError, nearest
from paretrim.evaluators.artifact import Artifact
from paretrim.search import searched
from paretrim.search.importance import importance
from paretrim.search.job import Job
from paretrim.search.misses import why_empty
from paretrim.search.picking import Asked, Field, Rule, pick
from paretrim.search.store import JobFolder, Store
from paretrim.search.study import BEFORE, SCHEMA, Study, notes_of
from paretrim.tracking.front import Objective, baseline_metrics, hypervolume
from paretrim.tracking.importance import Importance
from paretrim.tracking.progress import Step, progress, training_seconds
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Report, Row, build, row_of
from paretrim.tracking.savings import savings
from paretrim.tracking.settled import Final, settled

if TYPE_CHECKING:
    from paretrim.search.driver import Outcome
    from paretrim.tracking.bundle import Verdict


@dataclass(frozen=True)
class Result:
    """A search, under way or ended.

    Attributes:
        name: Its name, such as ``digits-1``.
        job: What was searched.
        store: Where it lies.
        folder: Its folder there.
        study: Its study.
        outcome: How its last run ended, when this process ran it.
        target: Which of the job's targets it is seen on.
    """

    name: str
    job: Job
    store: Store = field(repr=False)
    folder: JobFolder = field(repr=False)
    study: Study = field(repr=False)
    outcome: Outcome | None = field(default=None, repr=False)
    target: str = ""

    def __post_init__(self) -> None:
        """See it on the target that the search was for, unless another is named."""
        object.__setattr__(self, "target", self.target or self.job.target.label)

    def on(self, target: str) -> Result:
        """Return the search as it is on one of the job's targets.

        Raises:
            UsageError: The job has no such target.
        """
        names = list(self.job.targets)
        if target not in names:
            raise UsageError(f"{self.name} has no target '{target}'; it has {', '.join(names)}{nearest(target, names)}")
        return replace(self, target=target)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the last run."""
        return self.outcome is not None and self.outcome.interrupted

    @property
    def records(self) -> Sequence[TrialRecord]:
        """All trials that ended, by number, on this target, with the latencies that count."""
        found = self.study.records()
        there = found if self.target == self.job.target.label else [record.on(self.target) for record in found]
        return settled(there, self.finals)

    @property
    def finals(self) -> dict[str, Final]:
        """The latencies that were taken again at the end, by hash of the artifact."""
        return {sha: Final.from_plain(plain) for sha, plain in self._kept("finals").items()}

    def keep_finals(self, finals: Mapping[str, Final]) -> None:
        """Keep latencies that were taken again."""
        self._keep("finals", {sha: final.to_plain() for sha, final in finals.items()})

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What was optimized."""
        return objectives_of(self.job, bool(self.study.noted("maximize", True)))

    @property
    def test_scores(self) -> dict[str, float]:
        """The metric on held-out data by artifact hash."""
        return self._kept("test_scores")

    def keep_test_scores(self, scores: Mapping[str, float]) -> None:
        """Keep scores on held-out data."""
        self._keep("test_scores", dict(scores))

    def _kept(self, what: str) -> dict[str, Any]:
        return dict(self.study.noted(what, {}).get(self.target, {}))

    def _keep(self, what: str, values: Mapping[str, Any]) -> None:
        self.study.note(what, {**self.study.noted(what, {}), self.target: dict(values)})

    @property
    def alike(self) -> set[frozenset[str]]:
        """The pairs of finalists, by hash, whose scores were compared in pairs of samples and not told apart."""
        return {frozenset(pair) for pair in self._kept("alike").get("pairs", [])}

    def keep_alike(self, pairs: Iterable[frozenset[str]]) -> None:
        """Keep which finalists are not told apart."""
        self._keep("alike", {"pairs": sorted(sorted(pair) for pair in pairs)})

    @property
    def report(self) -> Report | None:
        """The front with its baseline, or None while the baseline is not done."""
        metric = self.job.metric_name
        # Before the artifacts were compared in pairs nothing is known of them, and equal scores are all that ties.
        alike = {metric: self.alike} if self._kept("alike") else {}
        return build(self.name, metric, self.records, self.objectives, self.job.bounds, self.test_scores, alike)

    @property
    def front(self) -> pd.DataFrame:
        """The front as a table, one row a point, best in the first objective first."""
        report = self.report
        return pd.DataFrame() if report is None else report.to_frame()

    @property
    def hypervolume(self) -> float:
        """The share of a box fixed by the baseline that the front dominates, from 0 to 1."""
        return hypervolume(self.records, self.objectives, self.job.bounds)

    @property
    def progress(self) -> tuple[Step, ...]:
        """The search after each of its trials: the hypervolume, and the seconds spent training."""
        return progress(self.records, self.objectives, self.job.bounds)

    @property
    def importance(self) -> Importance:
        """What each knob matters for each objective, or why that cannot be told yet."""
        noted = self.study.noted(searched.NOTE)
        if noted is None:
            names = tuple(o.name for o in self.objectives)
            return Importance(names, {}, 0, f"they are not noted; `paretrim resume {self.name}` notes them")
        return importance(self.records, searched.from_plain(noted), self.objectives)

    def require_report(self) -> Report:
        """Return the report.

        Raises:
            NothingFoundError: The baseline is not done, or failed; says why.
        """
        report = self.report
        if report is None:
            base = next((r for r in self.records if r.kind == "baseline"), None)
            why = f"its baseline failed: {base.cause}" if base is not None else "its baseline is not done yet"
            raise NothingFoundError(f"{self.name} has no front: {why}")
        return report

    def why_empty(self) -> str:
        """Say which constraint binds, by how much, and the nearest misses; empty when something is feasible."""
        report = self.report
        # What is measured before training is so on the first target only.
        main = self.target == self.job.target.label
        records = self.records if main else [replace(each, preview=None) for each in self.records]
        return "" if report is None else why_empty(report, records, self.job.bounds)

    def pick(
        self,
        rule: Rule | None = None,
        *,
        trial: int | None = None,
        minimize: str | None = None,
        where: str | None = None,
        wish: str | Mapping[str, float] | None = None,
        order: str | Sequence[str] | None = None,
    ) -> Row:
        """Choose a point, by validation scores and measurements only.

        Args:
            rule: ``cheapest`` (the default), ``knee``, ``nearest`` or ``lexicographic``; see docs/front.md.
            trial: A trial's number, in the place of a rule; it need not be on the front.
            minimize: For ``cheapest``: a metric; by default ``latency_ms``.
            where: A condition such as ``accuracy >= baseline - 0.01``; for ``cheapest`` by default the metric within one
                point, for ``knee`` none.
            wish: For ``nearest``: a point such as ``latency_ms=0.03,size_bytes=20% of baseline``, or values by metric.
            order: For ``lexicographic``: objectives such as ``accuracy>latency_ms``, or their names.

        Raises:
            UsageError: No such trial, metric or rule, or options contradict each other.
            NothingFoundError: No point of the front meets the condition, and the message has the nearest; or the front has
                no knee.
        """
        asked = Asked(rule, trial, minimize, where, wish, order)
        asked.checked()
        report = self.require_report()
        if trial is not None:
            return self._row_of(trial)
        paired = bool(self._kept("alike"))
        return pick(asked, Field(report, bool(self.study.noted("maximize", True)), paired, self.why_empty()))

    def export(
        self,
        folder: str | Path,
        rule: Rule | None = None,
        *,
        trial: int | None = None,
        minimize: str | None = None,
        where: str | None = None,
        wish: str | Mapping[str, float] | None = None,
        order: str | Sequence[str] | None = None,
        format: str | None = None,
        strict: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Verdict:
        """Write a point as a bundle and check it in a clean process; see `pick` for the choice.

        Args:
            folder: Where to write; must not exist.
            rule: As in `pick`, and so are the others.
            trial: A trial's number.
            minimize: A metric to minimize.
            where: A condition.
            wish: A point to be near to.
            order: Objectives, the one that matters most first.
            format: ``onnx``, ``openvino``, ``pt2`` or ``safetensors``; by default that of the file that was scored. For another
                the point is made again, and its numbers are those of the new file.
            strict: Whether a timing that differs from the logged one fails.
            say: Told what goes on where the point is made again.

        Raises:
            UsageError: The format cannot hold this model, or this machine cannot run it.
            OutputExistsError: The folder exists.
            ArtifactError: The bundle's check failed; nothing is left.
        """
        from paretrim.search.export import export  # noqa: PLC0415 - loads the user's data, needed here only

        row = self.pick(rule, trial=trial, minimize=minimize, where=where, wish=wish, order=order)
        return export(self, row, Path(folder), form=format, strict=strict, say=say)

    def reopen(self) -> Study:
        """Return the study for a run that goes on with it."""
        return Study(self.folder.places.study_url, self.name, self.objectives, self.job.bounds, self.job.seed)

    def figures(self) -> dict[str, float]:
        """Return numbers of the search as a whole."""
        records, wall = self.records, float(self.study.noted("wall_seconds", 0.0))
        own = sum(sum(r.seconds.values()) for r in records)
        ended = max(1, len(records))
        return {
            "hypervolume": self.hypervolume,
            "trials": float(len(records)),
            "trials_failed": float(sum(r.state == "failed" for r in records)),
            "trials_stopped": float(sum(r.state == "stopped" for r in records)),
            "front_points": float(len(self.front)),
            "wall_seconds": wall,
            "trial_seconds": own,
            "training_seconds": sum(training_seconds(r) for r in records) + float(self.study.noted(BEFORE, 0.0)),
            **{name: float(count) for name, count in asdict(savings(records)).items()},
            "overhead_seconds_per_trial": max(0.0, wall - own / self.job.budget.parallel) / ended,
        }

    def _row_of(self, number: int) -> Row:
        record = next((r for r in self.records if r.number == number), None)
        if record is None:
            raise UsageError(
                f"{self.name} has no trial {number}; it has 0 to {max((r.number for r in self.records), default=0)}"
            )
        if not record.complete:
            raise UsageError(
                f"trial {number} of {self.name} {record.state}, so it has nothing to export: {record.cause}"
            )
        return row_of(record, self.job.metric_name, baseline_metrics(self.records), self.test_scores)


def open_result(name: str | None, store: Store) -> Result:
    """Open a search of a store; without a name, the one that was started last.

    Raises:
        UnknownJobError: There is no such search.
        UsageError: It was written by a version with another schema.
    """
    folder = store.open(name)
    notes = notes_of(folder.places.study_url, folder.name)
    if notes.get("schema") != SCHEMA:
        raise UsageError(
            f"{folder.name} has schema {notes.get('schema')}; this version of paretrim reads schema {SCHEMA}"
        )
    document = notes["job"]
    # The folder may be gone by now; the records can still be read, and `resume` says what is missing.
    if not Path(document["folder"]).is_dir():
        document["folder"] = str(Path.cwd())
    job = Job(**document)
    objectives = objectives_of(job, bool(notes.get("maximize", True)))
    study = Study(folder.places.study_url, folder.name, objectives, job.bounds, job.seed)
    return Result(folder.name, job, store, folder, study)


def has_artifact(result: Result, number: int) -> bool:
    """Tell whether the artifact of a trial is there still."""
    return _file(result, number) is not None


def _file(result: Result, number: int) -> Path | None:
    record = next(r for r in result.records if r.number == number)
    return next(result.folder.artifacts.glob(f"{record.sha256}.*.xz"), None)


def artifact_of(result: Result, number: int) -> Artifact:
    """Return the artifact of a trial, by its number.

    Raises:
        ArtifactError: Its file is gone.
    """
    record = next(r for r in result.records if r.number == number)
    path = _file(result, number)
    if path is None:
        raise ArtifactError(
            f"the artifact of trial {number} is missing: {result.folder.artifacts / record.sha256}; make it again with: "
            f"paretrim replay {result.name} {number}"
        )
    sizes = record.metrics
    return Artifact(path, record.sha256, int(sizes["size_bytes"]), record.model_sha256, int(sizes["model_bytes"]))


def objectives_of(job: Job, maximize: bool) -> tuple[Objective, ...]:
    """Return a job's objectives with their directions and widths of ties.

    Args:
        job: The job.
        maximize: Whether more is better in the job's own metric.
    """
    own = (job.metric_name, f"{job.metric_name}_cv")
    return tuple(Objective(name, name in own and maximize, job.noise(name)) for name in job.objectives)
