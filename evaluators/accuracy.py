"""Accuracy of the artifact, in its runtime."""

from __future__ import annotations

from functools import cached_property

import torch

from paretrim.errors import ArtifactError
from paretrim.evaluators.bootstrap import Interval, Resampled, resample
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Split
from paretrim.evaluators.target import Session

Tensor = torch.Tensor
_BATCH = 256
_REMEMBERED = 2


class AccuracyEvaluator:
    """Scores an opened artifact on a split. It takes a `Split`; the held-out test data is of another type.

    Args:
        metric: Scores outputs against labels.
        split: The samples.
        expected_shape: Shape of the output for one sample, as the torch model gives it; None when it is not known.
    """

    def __init__(self, metric: Metric, split: Split, expected_shape: tuple[int, ...] | None = None) -> None:
        if not isinstance(split, Split):
            raise TypeError(f"accuracy is scored on a Split, not on a {type(split).__name__}")
        self._metric = metric
        self._split = split
        self._expected = expected_shape
        self._known: list[tuple[Tensor, Resampled]] = []

    def answers(self, session: Session) -> Tensor:
        """Return the artifact's outputs for the whole split, in order, shape ``(N, ...)``.

        Raises:
            ArtifactError: They are not finite, or of another shape than expected.
        """
        batches = self._split.batches(_BATCH)
        answers = torch.cat([torch.from_numpy(session(*batch.inputs.arrays())) for batch in batches])
        expected = answers.shape[1:] if self._expected is None else self._expected
        if tuple(answers.shape) != (len(self._split), *expected):
            raise ArtifactError(
                f"the artifact answers the {self._split.name} split with outputs of shape {tuple(answers.shape)}; "
                f"expected was {(len(self._split), *expected)}"
            )
        if not bool(torch.isfinite(answers).all()):
            raise ArtifactError(f"the artifact answers with NaN or infinite values on the {self._split.name} split")
        return answers

    def measure(self, answers: Tensor) -> Measurement:
        """Return the metric of answers, with its bootstrap interval.

        Raises:
            DataError: The metric does not fit the answers.
            TrialError: The metric is not finite.
        """
        resampled = self._resampled(answers)
        return self._measurement(self._metric.name, resampled.interval(), len(resampled.values), "")

    def change(self, answers: Tensor, baseline: Tensor) -> Measurement:
        """Return how much the metric is above that of the baseline's answers, compared in pairs.

        The interval is narrower than those of the two values, since both are of the same samples.

        Args:
            answers: Shape ``(N, ...)``.
            baseline: The baseline's answers to the same samples, same shape.
        """
        ours, theirs = self._resampled(answers), self._resampled(baseline)
        common = min(len(ours.values), len(theirs.values))
        return self._measurement(
            f"{self._metric.name}_change", ours.minus(theirs), common, " in pairs with the baseline"
        )

    def score(self, session: Session) -> Measurement:
        """Return the metric of an artifact over the whole split; see `answers` and `measure`."""
        return self.measure(self.answers(session))

    def _measurement(self, name: str, found: Interval, resamples: int, compared: str) -> Measurement:
        basis = "too slow for an interval" if found.low is None else f"{resamples} resamples"
        how = f"on {len(self._split)} samples{compared}, {basis}"
        return Measurement(name, found.value, found.low, found.high, how)

    @cached_property
    def labels(self) -> Tensor:
        """The split's labels, in order, shape ``(N, ...)``."""
        return torch.cat([batch.labels for batch in self._split.batches(_BATCH)])

    def _resampled(self, answers: Tensor) -> Resampled:
        """Resample answers once: the baseline's are compared with those of every trial."""
        known = next((entry for entry in self._known if entry[0] is answers), None)
        entry = known or (answers, resample(self._metric, answers, self.labels))
        self._known = [*(other for other in self._known if other[0] is not answers), entry][-_REMEMBERED:]
        return entry[1]
