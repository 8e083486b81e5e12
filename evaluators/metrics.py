"""Metrics by name (torchmetrics), or a user's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from paretrim.errors import DataError, TrialError, UsageError, nearest

Tensor = torch.Tensor
Task = Literal["classification", "regression"]
MetricFunction = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Metric:
    """How well outputs fit labels.

    Attributes:
        name: What it is called in records and tables.
        task: Decides the loss of recovery training: cross-entropy or mean squared error.
        maximize: Whether more is better.
        function: ``(outputs (N, ...), labels (N, ...)) -> float``.
    """

    name: str
    task: Task
    maximize: bool
    function: MetricFunction

    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        """Score outputs against labels.

        Raises:
            TrialError: The metric does not fit the shapes, or gives no finite number.
        """
        try:
            value = float(self.function(outputs, labels))
        except Exception as error:
            raise TrialError(
                f"the metric '{self.name}' does not fit outputs of shape {tuple(outputs.shape)} and labels of shape "
                f"{tuple(labels.shape)} ({labels.dtype}): {type(error).__name__}: {error}"
            ) from error
        if not torch.isfinite(torch.tensor(value)):
            raise TrialError(f"the metric '{self.name}' is {value}; the model's outputs are probably not finite")
        # Most metrics are float32: 0.985 rather than 0.9850000143.
        return float(str(np.float32(value)))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar."""
        if self.task == "classification":
            return functional.cross_entropy(outputs, labels.long())
        return functional.mse_loss(outputs, labels.to(outputs.dtype).view_as(outputs))

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Check that labels fit a model's outputs.

        Args:
            outputs: Of a few samples, shape ``(N, C)`` for classification.
            labels: All labels of a split.

        Raises:
            DataError: Says which values or shapes were found and which fit.
        """
        if self.task == "regression":
            if outputs[:1].numel() != labels[:1].numel():
                raise DataError(
                    f"labels of shape {tuple(labels.shape[1:])} do not fit outputs of {tuple(outputs.shape[1:])}"
                )
            return
        if outputs.dim() != 2:
            raise DataError(
                f"'{self.name}' needs outputs of shape (N, classes); the model gives {tuple(outputs.shape)}"
            )
        if labels.dim() != 1 or labels.is_floating_point():
            raise DataError(
                f"'{self.name}' needs integer labels of shape (N,); given {labels.dtype} of {tuple(labels.shape)}"
            )
        low, high, classes = int(labels.min()), int(labels.max()), outputs.shape[1]
        if low < 0 or high >= classes:
            raise DataError(
                f"labels run from {low} to {high}, but the model has {classes} outputs: 0 to {classes - 1} fit"
            )


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    from torchmetrics.functional.classification import multiclass_accuracy

    return float(multiclass_accuracy(outputs, labels.long(), num_classes=outputs.shape[1], average="micro"))


def _f1(outputs: Tensor, labels: Tensor) -> float:
    from torchmetrics.functional.classification import multiclass_f1_score

    return float(multiclass_f1_score(outputs, labels.long(), num_classes=outputs.shape[1], average="macro"))


def _mean_squared_error(outputs: Tensor, labels: Tensor) -> float:
    from torchmetrics.functional.regression import mean_squared_error

    return float(mean_squared_error(outputs, labels.to(outputs.dtype).view_as(outputs)))


def _mean_absolute_error(outputs: Tensor, labels: Tensor) -> float:
    from torchmetrics.functional.regression import mean_absolute_error

    return float(mean_absolute_error(outputs, labels.to(outputs.dtype).view_as(outputs)))


_BY_NAME = {
    "accuracy": Metric("accuracy", "classification", True, _accuracy),
    "f1": Metric("f1", "classification", True, _f1),
    "mean_squared_error": Metric("mean_squared_error", "regression", False, _mean_squared_error),
    "mean_absolute_error": Metric("mean_absolute_error", "regression", False, _mean_absolute_error),
}
NAMES = tuple(_BY_NAME)


def by_name(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        UsageError: No metric has that name.
    """
    if name not in _BY_NAME:
        raise UsageError(
            f"unknown metric '{name}'; allowed: {', '.join(NAMES)}, or module:function{nearest(name, NAMES)}"
        )
    return _BY_NAME[name]
