"""Metrics that are means over samples: their value on a resample is a sum of what is known of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from paretrim.evaluators import catalogue
from paretrim.evaluators.tasks import PADDING, Task

Tensor = torch.Tensor
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Means:
    """What each sample adds to a metric.

    Attributes:
        sums: Sum over what the sample holds, such as its right labels or tokens, shape ``(N,)``.
        counts: How many the sample holds, shape ``(N,)``.
        share: Whether the mean is a share of what is right or wrong, between 0 and 1.
        link: From the mean to the metric.
    """

    sums: Floats
    counts: Floats
    share: bool = False
    link: Callable[[Any], Any] = float

    def at(self, index: npt.NDArray[np.int64]) -> float:
        """Return the metric over some samples, by their positions; NaN where they hold nothing."""
        total = self.counts[index].sum()
        return float(self.link(self.sums[index].sum() / total)) if total else float("nan")


def means(name: str, options: Mapping[str, Any], task: Task, outputs: Tensor, labels: Tensor) -> Means | None:
    """Return a metric's parts by sample, or None for a metric that is no mean over samples.

    Args:
        name: Listed name of a metric of torchmetrics.
        options: Arguments of its class.
        task: What the outputs and labels are.
        outputs: Shape ``(N, ...)``.
        labels: Shape ``(N, ...)``.
    """
    if task is Task.RANKING:
        return None if "aggregation" in options else _ranking(name, options, outputs, labels)
    part = None if options else _PARTS.get(name)
    return part(task, outputs.double(), labels) if part else None


def _ranking(name: str, options: Mapping[str, Any], outputs: Tensor, labels: Tensor) -> Means | None:
    rows = catalogue.by_row(name, options, (outputs, labels))
    # Rows without a relevant item may be left out.
    return Means(rows.numpy(), np.ones(len(rows)), share=True) if len(rows) == len(labels) else None


def _right(task: Task, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of each sample's answers are right, and which count, both of shape ``(N, K)``."""
    if task in (Task.MULTICLASS, Task.TOKENS, Task.DENSE):
        right, counts = outputs.argmax(dim=1 if task is Task.DENSE else -1) == labels, labels != PADDING
    else:
        right = (outputs.sigmoid() > 0.5) == labels.view_as(outputs)
        counts = torch.ones_like(right)
    rows = len(labels)
    return (right & counts).reshape(rows, -1), counts.reshape(rows, -1)


def _accuracy(task: Task, outputs: Tensor, labels: Tensor) -> Means:
    right, counts = _right(task, outputs, labels)
    return _over_rows(right, counts, share=True)


def _hamming_distance(task: Task, outputs: Tensor, labels: Tensor) -> Means:
    right, counts = _right(task, outputs, labels)
    return _over_rows(counts & ~right, counts, share=True)


def _exact_match(task: Task, outputs: Tensor, labels: Tensor) -> Means:
    right, counts = _right(task, outputs, labels)
    return _over_rows((right == counts).all(dim=1, keepdim=True), torch.ones(len(labels), 1), share=True)


def _squared_error(_task: Task, outputs: Tensor, labels: Tensor) -> Means:
    errors = _errors(outputs, labels) ** 2
    return _over_rows(errors, torch.ones_like(errors))


def _absolute_error(_task: Task, outputs: Tensor, labels: Tensor) -> Means:
    errors = _errors(outputs, labels).abs()
    return _over_rows(errors, torch.ones_like(errors))


def _errors(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels.double().view_as(outputs)).reshape(len(labels), -1)


def _perplexity(_task: Task, outputs: Tensor, labels: Tensor) -> Means:
    surprise = functional.cross_entropy(outputs.movedim(2, 1), labels.long(), reduction="none", ignore_index=PADDING)
    return _over_rows(surprise, labels != PADDING, link=np.exp)


def _over_rows(values: Tensor, counts: Tensor, **about: Any) -> Means:
    return Means(values.double().sum(dim=1).numpy(), counts.double().sum(dim=1).numpy(), **about)


_PARTS: dict[str, Callable[[Task, Tensor, Tensor], Means]] = {
    "accuracy": _accuracy,
    "exact_match": _exact_match,
    "hamming_distance": _hamming_distance,
    "mean_absolute_error": _absolute_error,
    "mean_squared_error": _squared_error,
    "perplexity": _perplexity,
}
