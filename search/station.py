"""A station: one of the job's targets, with its bench, on which artifacts are lowered and scored."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from paretrim.errors import TrialError
from paretrim.evaluators import cuda_driver, evaluator, machine, recorded
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.evaluator import Bench, PreviewingEvaluator, Specimen
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.served import served
from paretrim.evaluators.splits import Split
from paretrim.evaluators.target import Array, Session, TargetAddress, on_device
from paretrim.tracking.records import GPU, Preview

_TIMED_INPUTS = 32
_RECORDED_SAMPLES = 16


@dataclass(frozen=True)
class StationPlan:
    """What a station is, in a form that travels to workers.

    Attributes:
        name: What the target is called in the job.
        address: The target.
        baseline: The uncompressed model's artifact on it.
        reference_ms: The baseline's latency when the search began; None until it is taken.
        throughput_batches: Batch sizes at which to take the throughput.
        tolerance: How much worse an artifact may score than the torch model.
        output_shape: Shape of the torch model's output for one sample.
    """

    name: str
    address: TargetAddress
    baseline: Artifact
    reference_ms: float | None
    throughput_batches: tuple[int, ...]
    tolerance: float
    output_shape: tuple[int, ...]


class Station:
    """Lowers models for one target and scores the artifacts there.

    Args:
        plan: What the station is.
        metric: Scores outputs against labels.
        validation: The split that scores are taken on.
        folder: A folder for its files.
        lane: The machine's measuring lane.
        cores: Cores to measure on; by default the last ones.
    """

    def __init__(
        self,
        plan: StationPlan,
        metric: Metric,
        validation: Split,
        folder: Path,
        lane: Lane,
        cores: tuple[int, ...] = (),
    ) -> None:
        self.plan = plan
        self.target = plan.address.build()
        self._metric = metric
        self._validation = validation
        self._lane = lane
        self._evaluators = {name: e for name, e in evaluator.installed().items() if not evaluator.why_absent(e)}
        self._accuracy = AccuracyEvaluator(metric, validation, plan.output_shape)
        self._baseline_answers: torch.Tensor | None = None
        self.bench = lay_out(plan, validation, folder, lane, cores)

    def score(
        self, artifact: Artifact, expected: float, seconds: dict[str, float]
    ) -> tuple[Measurement, ...]:  # fmt: skip
        """Return all that is measured of an artifact.

        Args:
            artifact: What to score.
            expected: The metric of the torch model.
            seconds: Takes the cost of each measurement.

        Raises:
            TrialError: It scores worse than the torch model by more than is tolerated, or a number is not finite.
            ArtifactError: It does not answer, or wrongly.
            MeasurementError: It cannot be measured.
        """
        with artifact.unpacked() as path:
            with clocked(seconds, "accuracy"), self._lane.working(), served(self.plan.address, path) as session:
                answers = self._accuracy.answers(session)
                record_samples(self._validation, session, artifact)
                scores = self._scores(artifact, answers, expected)
            found = list(scores)
            for name, each in self._evaluators.items():
                with clocked(seconds, name):
                    found += each.measure(Specimen(artifact, path), self.bench)
        odd = [m.name for m in found if not math.isfinite(m.value)]
        if odd:
            raise TrialError(f"measured NaN or infinity for {', '.join(odd)}")
        return tuple(found)

    def preview(self, artifact: Artifact, wanted: Collection[str] | None = None) -> Preview:
        """Measure what can be told of a candidate before it is trained.

        Args:
            artifact: Lowered from the untrained model.
            wanted: Names of the metrics that are needed; None for all that can be told.

        Raises:
            ArtifactError: The runtime does not load it.
            MeasurementError: It cannot be measured.
        """
        with artifact.unpacked() as path:
            specimen = Specimen(artifact, path)
            able = (each for each in self._evaluators.values() if isinstance(each, PreviewingEvaluator))
            needed = (each for each in able if wanted is None or not set(wanted).isdisjoint(each.metrics))
            return Preview(tuple(m for each in needed for m in each.preview(specimen, self.bench)))

    def score_on(self, artifact: Artifact, split: Split) -> float:
        """Return the metric of an artifact on another split than that of the search."""
        with artifact.unpacked() as path, served(self.plan.address, path) as session:
            return AccuracyEvaluator(self._metric, split, self.plan.output_shape).score(session).value

    def environment(self) -> Mapping[str, str]:
        """Return what the numbers were measured with: the machine, the runtime and its settings."""
        settings = self.plan.address.settings
        used = {"runtime": self.target.version(), "threads": str(settings.threads), "batch": str(settings.batch_size)}
        gpu = {GPU: cuda_driver.name()} if on_device(self.target) else {}
        return {**machine.describe(self.bench.cores[-1] if self.bench.cores else 0), **used, **gpu}

    def _scores(self, artifact: Artifact, answers: torch.Tensor, expected: float) -> tuple[Measurement, ...]:
        score = self._accuracy.measure(answers)
        self._check_gap(score.value, expected)
        how = "of the torch model before export; for comparison"
        return (
            score,
            self._accuracy.change(answers, self._answers_of_baseline(artifact, answers)),
            Measurement(f"{score.name}_torch", expected, how=how),
        )

    def _answers_of_baseline(self, artifact: Artifact, answers: torch.Tensor) -> torch.Tensor:
        if self._baseline_answers is None:
            if artifact.sha256 == self.plan.baseline.sha256:
                self._baseline_answers = answers
            else:
                with self.plan.baseline.unpacked() as path, served(self.plan.address, path) as session:
                    self._baseline_answers = self._accuracy.answers(session)
        return self._baseline_answers

    def _check_gap(self, scored: float, expected: float) -> None:
        gap = expected - scored if self._metric.maximize else scored - expected
        # Scores above one, such as errors and perplexities, have no fixed scale: a share of the score is tolerated.
        if gap > self.plan.tolerance * max(1.0, abs(expected)):
            raise TrialError(
                f"the exported file scores {scored:.4f} and the torch model {expected:.4f}: worse by {gap:.4f}, more than "
                f"export_tolerance ({self.plan.tolerance}); more calibration samples or more bits may help"
            )


def lay_out(plan: StationPlan, validation: Split, folder: Path, lane: Lane, cores: tuple[int, ...] = ()) -> Bench:
    """Lay out the bench of a station in a folder."""
    samples = timed_inputs(validation, plan.address)
    bench = evaluator.set_up(plan.address, plan.baseline, samples, folder, lane)
    return replace(
        bench,
        reference_ms=plan.reference_ms,
        throughput_batches=plan.throughput_batches,
        cores=cores[-plan.address.settings.threads :] or bench.cores,
    )


def samples_path(artifact: Path) -> Path:
    """Return where the recorded samples of an artifact lie."""
    return artifact.with_name(f"{artifact.name.partition('.')[0]}.samples.npz")


def timed_inputs(validation: Split, address: TargetAddress) -> dict[str, Array]:
    """Return the inputs on which artifacts are timed, by their names: different ones, in the target's batch size."""
    return named_arrays(validation.first(_TIMED_INPUTS * address.settings.batch_size).inputs)


def named_arrays(inputs: Inputs) -> dict[str, Array]:
    """Return inputs by what they are called in an artifact."""
    return dict(zip(inputs.signature.names, inputs.arrays(), strict=True))


def record_samples(validation: Split, session: Session, artifact: Artifact) -> None:
    """Keep some inputs with the artifact's outputs, against which an exported bundle is checked."""
    path = samples_path(artifact.path)
    if path.exists():
        return  # from the target that the search is for; a further one may run the same file a little differently
    inputs = named_arrays(validation.first(_RECORDED_SAMPLES).inputs)
    partial = path.with_suffix(".partial.npz")
    recorded.write(partial, recorded.Recorded(inputs, session(*inputs.values())))
    partial.replace(path)


@contextmanager
def clocked(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of a block to a stage's."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
