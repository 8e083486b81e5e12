"""Accuracy of the artifact, in its runtime."""

from __future__ import annotations

import torch

from paretrim.errors import ArtifactError
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Split
from paretrim.evaluators.statistics import share_interval
from paretrim.evaluators.target import Session, as_batch

_BATCH = 256


class AccuracyEvaluator:
    """Scores an opened artifact on a split. It takes a `Split`; the held-out test data is of another type."""

    def __init__(self, metric: Metric, split: Split) -> None:
        if not isinstance(split, Split):
            raise TypeError(f"accuracy is scored on a Split, not on a {type(split).__name__}")
        self._metric = metric
        self._split = split

    def score(self, session: Session) -> Measurement:
        """Return the metric over the whole split.

        Raises:
            ArtifactError: The artifact's answers are not finite.
            TrialError: The metric does not fit the answers.
        """
        outputs, labels = [], []
        for batch in self._split.batches(_BATCH):
            outputs.append(torch.from_numpy(session(as_batch(batch.inputs))))
            labels.append(batch.labels)
        answers = torch.cat(outputs)
        if not bool(torch.isfinite(answers).all()):
            raise ArtifactError(f"the artifact answers with NaN or infinite values on the {self._split.name} split")
        value = self._metric(answers, torch.cat(labels))
        low, high = share_interval(value, len(self._split)) if self._metric.name == "accuracy" else (None, None)
        return Measurement(self._metric.name, value, low, high, f"on {len(self._split)} samples")
