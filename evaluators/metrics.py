"""How well outputs fit labels: any metric of torchmetrics by name, or a user's own function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from paretrim.errors import DataError, TrialError, UsageError
from paretrim.evaluators import catalogue, tasks
from paretrim.evaluators.means import Means, means
from paretrim.evaluators.tasks import Task

Tensor = torch.Tensor
MetricFunction = Callable[[Tensor, Tensor], float]

# So common that a job that names one of them is checked without waiting for torchmetrics; whether more is better.
_COMMON = {"accuracy": True, "f1": True, "mean_absolute_error": False, "mean_squared_error": False}

AGREEMENT, NUMBERS = "agreement", "numbers"
"""The metric of data without labels: the share of the uncompressed model's answers that are given too, or, where its outputs
are numbers (``{name: agreement, of: numbers}``), the coefficient of determination (R2) of its outputs."""
_AGREEING = {Task.MULTICLASS: "accuracy", Task.TOKENS: "accuracy", Task.DENSE: "accuracy", Task.REGRESSION: "r2_score"}


@dataclass(frozen=True)
class Metric:
    """How well outputs fit labels.

    What kind of question the model answers is told from the shapes and types of outputs and labels. Outputs that stand
    for classes are logits.

    Attributes:
        name: What it is called in records and tables.
        maximize: Whether more is better.
        function: A user's own ``(outputs (N, ...), labels (N, ...)) -> float``; None for a metric of torchmetrics.
        options: Arguments of torchmetrics' class, such as ``{"average": "macro"}``.
    """

    name: str
    maximize: bool
    function: MetricFunction | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        """Score outputs against labels.

        Args:
            outputs: Shape ``(N, ...)``.
            labels: Shape ``(N, ...)``.

        Raises:
            DataError: The metric is not one of such outputs and labels.
            TrialError: The outputs, or the value, are not finite.
            ParetrimError: Raised by a user's own function.
        """
        task = self.task(outputs, labels)
        if not bool(torch.isfinite(outputs).all()):
            raise TrialError("the model's outputs are NaN or infinite, so they cannot be scored")
        value = self._value(task, outputs, labels)
        if not math.isfinite(value):
            raise TrialError(
                f"the metric '{self.name}' is {value}, though all outputs are finite; it is not defined for such answers"
            )
        return shortest(value)

    def task(self, outputs: Tensor, labels: Tensor) -> Task:
        """Return what kind of question outputs and labels are of.

        Raises:
            DataError: Says the shapes and types, and which would do.
        """
        found = tasks.infer(outputs, labels, self._tasks)
        if found is None or outputs.shape[:1] != labels.shape[:1]:
            raise DataError(
                f"'{self.name}' does not fit {_described(outputs, labels)}; it takes {self._taken()}"
                f"{self._advice(outputs, labels)}"
            )
        return found

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss, a scalar: cross-entropy, or squares for numbers."""
        return tasks.loss(self.task(outputs, labels), outputs, labels)

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Check that labels fit a model's outputs.

        Args:
            outputs: Of a few samples.
            labels: Of any number of samples.

        Raises:
            DataError: Says which values or shapes were found and which fit.
        """
        task = self.task(outputs[:1], labels[:1])
        tasks.check_labels(task, outputs, labels)

    def means(self, outputs: Tensor, labels: Tensor) -> Means | None:
        """Return the metric's parts by sample where it is a mean over samples, else None."""
        if self.function is not None:
            return None
        task = self.task(outputs, labels)
        return means(*self._named(task), task, outputs, labels)

    def at_most_one(self, outputs: Tensor, labels: Tensor) -> bool:
        """Tell whether 1 is known to be the best value: so it is wherever torchmetrics compares classes or rankings."""
        return self.function is None and self.maximize and self.task(outputs, labels) is not Task.REGRESSION

    def _value(self, task: Task, outputs: Tensor, labels: Tensor) -> float:
        if self.function is not None:
            return float(self.function(outputs, labels))
        try:
            return catalogue.evaluate(*self._named(task), task, (outputs, labels))
        except Exception as error:
            raise DataError(f"'{self.name}' does not fit {_described(outputs, labels)}: {error}") from error

    def _named(self, task: Task) -> tuple[str, Mapping[str, Any]]:
        """Return torchmetrics' name and options of the metric."""
        return (_AGREEING[task], {}) if self.name == AGREEMENT else (self._listed, self.options)

    @property
    def _listed(self) -> str:
        return catalogue.find(self.name) or self.name

    @cached_property
    def _tasks(self) -> frozenset[Task]:
        if self.name == AGREEMENT:
            return frozenset(_AGREEING)
        return frozenset(Task) if self.function is not None else catalogue.tasks(self._listed, self.options)

    def _advice(self, outputs: Tensor, labels: Tensor) -> str:
        fits = labels.is_floating_point() and tasks.infer(outputs, labels.long(), self._tasks) is not None
        return "; these labels would do as integers: labels.long()" if fits else ""

    def _taken(self) -> str:
        return "; or ".join(task.value for task in Task if task in self._tasks)


def by_name(name: str, options: Mapping[str, Any] | None = None) -> Metric:
    """Return a metric of torchmetrics.

    Args:
        name: Such as ``accuracy``, ``auroc`` or ``spearman``; see docs/metrics.md.
        options: Arguments of torchmetrics' class, such as ``{"average": "macro"}``.

    Raises:
        UsageError: No metric has that name or takes those options, or it gives no number that can be compared.
    """
    if name in _COMMON and not options:
        return Metric(name, _COMMON[name])
    if name == AGREEMENT and not mistakes(name, options or {}):
        return Metric(name, maximize=True, options=dict(options or {}))
    wrong = mistakes(name, options or {})
    listed = catalogue.find(name)
    if wrong or listed is None:
        raise UsageError("; ".join(text if key == "name" else f"{key}: {text}" for key, text in wrong.items()))
    return Metric(name, bool(catalogue.maximize(listed)), options=dict(options or {}))


def mistakes(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a name and its options: a message by option, or under ``name``."""
    if name == AGREEMENT:
        told = f"allowed: of: {NUMBERS}, for a model whose outputs are numbers and no classes"
        return {key: told for key, value in options.items() if (key, value) != ("of", NUMBERS)}
    return {} if name in _COMMON and not options else catalogue.mistakes(name, options)


def shortest(value: float) -> float:
    """Return the shortest decimal of a value that most metrics know as a float32: 0.985, not 0.9850000143."""
    return float(str(np.float32(value)))


def _described(outputs: Tensor, labels: Tensor) -> str:
    return (
        f"outputs of shape {tuple(outputs.shape)} ({outputs.dtype}) with labels of shape {tuple(labels.shape)} "
        f"({labels.dtype})"
    )
