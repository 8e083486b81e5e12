"""What kind of question a model answers, told from the shapes and types of its outputs and their labels."""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import Enum

import torch
from torch.nn import functional

from paretrim.errors import DataError

Tensor = torch.Tensor
PADDING = -100
"""A token or a pixel with this label counts neither in the loss nor in a metric."""


class Task(Enum):
    """A kind of question; its value says which outputs and labels belong to it."""

    MULTICLASS = "outputs (N, classes) with integer labels (N,)"
    BINARY = "outputs (N,) or (N, 1) with labels (N,) of 0 and 1, or (N, 1, ...) with (N, ...)"
    MULTILABEL = "outputs (N, labels) with labels (N, labels) of 0 and 1"
    TOKENS = "outputs (N, positions, classes) with integer labels (N, positions)"
    DENSE = "outputs (N, classes, ...) with integer labels (N, ...), such as of pixels"
    REGRESSION = "outputs and labels of as many numbers per sample"
    RANKING = "outputs (N, items) with the items' relevance (N, items)"


def infer(outputs: Tensor, labels: Tensor, among: Collection[Task]) -> Task | None:
    """Return the first of some tasks to which outputs and labels belong by their shapes and types.

    Args:
        outputs: Of some samples, shape ``(N, ...)``; logits, where they stand for classes.
        labels: Of any number of samples.
        among: The tasks that come into question.
    """
    return next((task for task in Task if task in among and _fits(task, outputs, labels)), None)


def _fits(task: Task, outputs: Tensor, labels: Tensor) -> bool:
    given, wanted, integers = tuple(outputs.shape[1:]), tuple(labels.shape[1:]), not labels.is_floating_point()
    several = len(given) == 1 and given[0] > 1
    match task:
        case Task.MULTICLASS:
            return integers and several and wanted == ()
        case Task.BINARY:
            return integers and (given == () or given[0] == 1) and _bare(given) == _bare(wanted)
        case Task.MULTILABEL | Task.RANKING:
            return several and wanted == given and (integers or task is Task.RANKING)
        case Task.TOKENS:
            return integers and len(given) == 2 and wanted == given[:1]
        case Task.DENSE:
            return integers and len(given) > 1 and given[0] > 1 and wanted == given[1:]
        case Task.REGRESSION:
            return math.prod(given) == math.prod(wanted)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without a first dimension of one."""
    return shape[1:] if shape[:1] == (1,) else shape


def check_labels(task: Task, outputs: Tensor, labels: Tensor) -> None:
    """Check that the values of labels are some that a task can have.

    Raises:
        DataError: Says which were found and which fit.
    """
    if labels.is_floating_point() and not bool(torch.isfinite(labels).all()):
        raise DataError("labels are NaN or infinite")
    known = labels[labels != PADDING] if task in (Task.TOKENS, Task.DENSE) else labels
    if task is Task.REGRESSION or known.numel() == 0:
        return
    low, high = known.min().item(), known.max().item()
    if task is Task.RANKING:
        if low < 0:
            raise DataError(f"labels run from {low} to {high}, but relevance is 0 or more")
        return
    each = outputs.shape[1] if task is Task.DENSE else outputs.shape[-1]
    classes = each if task in (Task.MULTICLASS, Task.TOKENS, Task.DENSE) else 2
    if low < 0 or high >= classes:
        what = f"the model has {each} outputs: 0 to {classes - 1} fit"
        what += f", and {PADDING} for what does not count" if task in (Task.TOKENS, Task.DENSE) else ""
        if classes == 2 and task in (Task.BINARY, Task.MULTILABEL):
            what = "each of the model's outputs is taken as yes or no: 0 and 1 fit, and numbers are given as floats"
        raise DataError(f"labels run from {low} to {high}, but {what}")


def loss(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the training loss of a task, a scalar."""
    match task:
        case Task.MULTICLASS:
            return functional.cross_entropy(outputs, labels.long())
        case Task.BINARY | Task.MULTILABEL:
            return functional.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype).view_as(outputs))
        case Task.TOKENS:
            return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten().long(), ignore_index=PADDING)
        case Task.DENSE:
            return functional.cross_entropy(outputs, labels.long(), ignore_index=PADDING)
        case Task.REGRESSION:
            return functional.mse_loss(outputs, labels.to(outputs.dtype).view_as(outputs))
        case Task.RANKING:
            return _listwise(outputs, labels.to(outputs.dtype))


def _listwise(outputs: Tensor, relevance: Tensor) -> Tensor:
    """Return the cross-entropy between shares of relevance and of scores (Cao et al., "Learning to Rank", 2007)."""
    wanted = relevance / relevance.sum(dim=1, keepdim=True).clamp_min(torch.finfo(outputs.dtype).eps)
    return -(wanted * functional.log_softmax(outputs, dim=1)).sum(dim=1).mean()
