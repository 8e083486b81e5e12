"""Exporting a point: write the bundle, check it in a clean process, measure again beside what was logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from paretrim.errors import ArtifactError, MeasurementError, UsageError
from paretrim.evaluators import evaluator, target
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.evaluator import Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import LatencyEvaluator
from paretrim.evaluators.memory import MemoryEvaluator
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.served import served
from paretrim.evaluators.splits import Splits
from paretrim.evaluators.target import Array, TargetAddress
from paretrim.search import unlabelled, usercode
from paretrim.search.formats import SUFFIXES, Format, Point, convert, suffix_of
from paretrim.search.job import Job
from paretrim.search.result import Result, artifact_of
from paretrim.search.station import samples_path, timed_inputs
from paretrim.tracking import bundle
from paretrim.tracking.bundle import Comparison, Contents, Verdict
from paretrim.tracking.manifest import Origin
from paretrim.tracking.report import Row

# The same file scores the same but for rounding on another processor.
_SCORE_TOLERANCE = 0.005
_TIMING_TOLERANCE = 0.10
_MEMORY_TOLERANCE = 0.15


def export(
    result: Result,
    row: Row,
    folder: Path,
    *,
    form: str | None = None,
    strict: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Write a point as a bundle and check it.

    Args:
        result: The search.
        row: The point.
        folder: Where to write; must not exist.
        form: The format; by default that of the file that was scored.
        strict: Whether a timing or memory that differs from the logged one fails.
        say: Told what goes on where the point is made again.

    Raises:
        UsageError: There is no such format, it cannot hold this model, or the artifact is of a kind that no bundle has.
        OutputExistsError: The folder exists.
        ArtifactError: Hash, size, outputs or accuracy differ, or with `strict` a timing; nothing is left.
    """
    suffix = None if form is None else suffix_of(form)
    usercode.use_folder(result.job.folder)
    splits = unlabelled.data_of(result.job)
    with bundle.appearing(folder) as partial:
        if suffix is None or suffix == artifact_of(result, row.trial).suffix:
            return _as_scored(result, row, splits, folder, partial, strict=strict)
        return _as_converted(result, row, cast("Format", form), splits, folder, partial, say)


def _as_scored(result: Result, row: Row, splits: Splits, folder: Path, partial: Path, *, strict: bool) -> Verdict:
    """Write the file that was scored, and measure it again."""
    artifact, report = artifact_of(result, row.trial), result.require_report()
    settings = result.job.targets[result.target].settings
    if artifact.suffix not in SUFFIXES.values():
        raise UsageError(
            f"a bundle's script runs {', '.join(SUFFIXES.values())} files, and trial {row.trial} of the runtime "
            f"'{settings.runtime}' is a '{artifact.suffix}' file; take it as it is, packed with xz: {artifact.path}"
        )
    address = target.find(settings)
    record = next(r for r in result.records if r.number == row.trial)
    samples, runtime = samples_path(artifact.path), address.build().version()
    point = Point(artifact, samples, record, row, report.baseline, runtime, settings)
    checks = _written(result, point, splits, partial)
    shipped = replace(artifact, path=partial / f"model{artifact.suffix}.xz")
    baseline = artifact_of(result, report.baseline.trial)
    metric = usercode.load_metric(result.job)
    comparisons = (
        *scored_again(shipped, address, row, metric, splits),
        *measured_again(shipped, baseline, address, row, timed_inputs(splits.search.validation, address)),
    )
    _judge(comparisons, result.job.metric_name, strict)
    return Verdict(folder, row.trial, artifact.sha256, checks, comparisons)


def _as_converted(
    result: Result, row: Row, form: Format, splits: Splits, folder: Path, partial: Path, say: Callable[[str], None]
) -> Verdict:
    """Write the point in another format, with the numbers of that file."""
    with TemporaryDirectory(prefix="paretrim-") as scratch:
        point = convert(result, row, form, splits, Path(scratch), say)
        checks = _written(result, point, splits, partial)
    return Verdict(folder, row.trial, point.artifact.sha256, checks, tuple(_beside(row, point.row)))


def _written(result: Result, point: Point, splits: Splits, partial: Path) -> tuple[str, ...]:
    """Write a bundle and check it in a clean process; return what was checked."""
    contents = Contents(
        job=result.name,
        metric=result.job.metric_name,
        runtime=point.runtime,
        target=point.target,
        artifact=point.artifact,
        samples=point.samples,
        record=point.record,
        row=point.row,
        baseline=point.baseline,
        origin=_origin(result, splits),
        labels=splits.labels,
        preprocessing=splits.preprocessing,
        licence=_licence_file(result.job),
        by_name=splits.search.validation.first(1).inputs.signature.named,
    )
    bundle.write(contents, partial)
    return bundle.check(partial, answers=point.artifact.suffix != bundle.WEIGHTS)


def _beside(scored: Row, now: Row) -> Iterator[Comparison]:
    """Yield what a point is in another format beside what the search logged of its own."""
    for split, logged, found in (("validation", scored.validation, now.validation), ("test", scored.test, now.test)):
        for name in found:
            yield _score(name, split, logged, found[name])
    for name, tolerance in (("latency_ms", _TIMING_TOLERANCE), ("memory_bytes", _MEMORY_TOLERANCE)):
        before, after = scored.ratio.get(name), now.ratio.get(name)
        if before is not None and after is not None:
            yield _ratio(f"{name}, ratio to the baseline", before, after, tolerance)


def _origin(result: Result, splits: Splits) -> Origin:
    job, prints = result.job, result.study.noted("fingerprints", {})
    file = _licence_file(job)
    return Origin(
        model=str(job.model),
        model_sha256=prints["model"],
        data=str(job.data),
        data_sha256=prints["data"],
        samples=splits.counts(),
        licence=job.licence if file is None else f"see the file {bundle.LICENCE}",
    )


def _licence_file(job: Job) -> Path | None:
    try:
        path = (job.folder / job.licence).resolve()
        inside = bool(job.licence) and path.is_relative_to(job.folder.resolve())
        return path if inside and path.is_file() else None
    except OSError:  # too long for a name: it is the notes themselves
        return None


def scored_again(
    shipped: Artifact, address: TargetAddress, row: Row, metric: Metric, splits: Splits
) -> tuple[Comparison, ...]:
    """Return the scores of an artifact beside those that were logged.

    Args:
        shipped: The artifact.
        address: Its target.
        row: What was logged.
        metric: The job's metric.
        splits: Its data; the test split is opened where a score on it was logged.
    """
    name, found = metric.name, []
    with shipped.unpacked() as path, served(address, path) as session:
        if name in row.validation:
            score = AccuracyEvaluator(metric, splits.search.validation).score(session).value
            found.append(_score(name, "validation", row.validation, score))
        if name in row.test:
            score = AccuracyEvaluator(metric, splits.test.unseal()).score(session).value
            found.append(_score(name, "test", row.test, score))
    return tuple(found)


def measured_again(
    shipped: Artifact, baseline: Artifact, address: TargetAddress, row: Row, inputs: Mapping[str, Array]
) -> tuple[Comparison, ...]:
    """Return latency and memory of an artifact, as ratios to the baseline's, beside those that were logged.

    Args:
        shipped: The artifact.
        baseline: The uncompressed model.
        address: Their target.
        row: What was logged.
        inputs: What they are timed on, by the names of the inputs, each of shape ``(N, ...)``.
    """
    found: list[Comparison] = []
    with shipped.unpacked() as path, TemporaryDirectory(prefix="paretrim-") as scratch:
        bench = evaluator.set_up(address, baseline, inputs, Path(scratch), Lane())
        timed = {m.name: m.value for m in LatencyEvaluator().measure(Specimen(shipped, path), bench)}
        memory = MemoryEvaluator()
        ours = memory.measure(Specimen(shipped, path), bench)[0].value
        theirs = memory.measure(Specimen(baseline, bench.baseline), bench)[0].value
    found.append(
        _ratio(
            "latency_ms, ratio to the baseline", row.ratio.get("latency_ms"), timed["latency_ratio"], _TIMING_TOLERANCE
        )
    )
    if theirs > 0:
        logged = row.ratio.get("memory_bytes")
        found.append(_ratio("memory_bytes, ratio to the baseline", logged, ours / theirs, _MEMORY_TOLERANCE))
    return tuple(found)


def _score(name: str, split: str, logged: Mapping[str, float], now: float) -> Comparison:
    tolerated = _SCORE_TOLERANCE * max(1.0, abs(logged[name]))
    return Comparison(f"{name}, {split}", logged[name], now, abs(now - logged[name]) <= tolerated)


def _ratio(name: str, logged: float | None, now: float, tolerance: float) -> Comparison:
    if logged is None:
        raise MeasurementError(f"no {name} was logged, so it cannot be compared")
    return Comparison(name, logged, now, abs(now - logged) <= tolerance * logged)


def _judge(comparisons: tuple[Comparison, ...], metric: str, strict: bool) -> None:
    for comparison in comparisons:
        decisive = strict or comparison.name.startswith(f"{metric},")
        if decisive and not comparison.agrees:
            raise ArtifactError(
                f"{comparison.name}: {comparison.now:.4f} now, {comparison.logged:.4f} logged; these should agree, "
                "so nothing was exported"
            )
