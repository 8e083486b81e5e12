"""The metrics of torchmetrics by friendly names: which class computes one for which task, and its direction.

Nothing here lists metrics by hand: the classes are looked up, and one is offered for a task when, built with its
options, it gives one number on an example of that task.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch

from paretrim.errors import nearest
from paretrim.evaluators.tasks import PADDING, Task

Tensor = torch.Tensor

_FAMILIES = {
    "Binary": (Task.BINARY,),
    "Multiclass": (Task.MULTICLASS, Task.TOKENS, Task.DENSE),
    "Multilabel": (Task.MULTILABEL,),
}
# Whether more is better, where torchmetrics leaves it open.
_LEFT_OPEN = {
    "eer": False,
    "kendall_rank_corr_coef": True,
    "negative_predictive_value": True,
    "pearson_corr_coef": True,
    "specificity": True,
    "tweedie_deviance_score": False,
}
# Each sample counts the same, where torchmetrics would let each class count the same, or would not divide.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "accuracy": {"average": "micro"},
    "cosine_similarity": {"reduction": "mean"},
    "hamming_distance": {"average": "micro"},
}
_ABBREVIATED = {
    "auc": "auroc",
    "iou": "jaccard_index",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mcc": "matthews_corr_coef",
    "miou": "jaccard_index",
    "mse": "mean_squared_error",
}
# What follows from the model's outputs or from the labels is not an option.
_OURS = {"self", "args", "kwargs", "num_classes", "num_labels", "num_outputs", "ignore_index", "validate_args"}
_GIVES = "it gives"
_ENDING = re.compile(r"(_rank)?_corr_?coef$|_score$")


@cache
def names() -> tuple[str, ...]:
    """Return the names of all metrics that can be asked for, in order; importing torchmetrics takes a second."""
    return tuple(sorted(name for name in _found() if maximize(name) is not None and (_needed(name) or tasks(name, {}))))


def find(name: str) -> str | None:
    """Return the listed name of a metric; underscores and some endings may be left out, and common abbreviations are known."""
    return _spellings().get(name.replace("_", ""))


def maximize(name: str) -> bool | None:
    """Return whether more is better in a metric, by its listed name; None when nobody knows."""
    known = {kind.higher_is_better for kind in _found()[name].values()} - {None}  # type: ignore[attr-defined]
    return known.pop() if known else _LEFT_OPEN.get(name)


def tasks(name: str, options: Mapping[str, Any]) -> frozenset[Task]:
    """Return the tasks in which a metric, by its listed name, gives one number with these options."""
    return frozenset(task for task in _found()[name] if not _refusal(name, task, options))


def mistakes(given: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with a metric that was asked for: a message by option, or under ``name``."""
    name = find(given)
    if name is None or name not in names():
        why = "unknown metric" if name is None else "there is no single number of which more or less is better in"
        spellings = [*names(), *(_ENDING.sub("", name) for name in names()), *_ABBREVIATED]
        return {
            "name": f"{why} '{given}'; allowed: {', '.join(names())}, or module:function{nearest(given, spellings)}"
        }
    allowed = sorted(_options(name))
    unknown = [option for option in options if option not in allowed]
    if unknown:
        text = f"is not an option of '{given}'; allowed: {', '.join(allowed)}"
        return {option: f"{text}{nearest(option, allowed)}" for option in unknown}
    missing = [option for option in _needed(name) if option not in options]
    if missing:
        return {"name": f"'{given}' needs a value for {' and '.join(missing)}"}
    if tasks(name, options):
        return {}
    taking = [task for task, kind in _found()[name].items() if set(options) <= set(inspect.signature(kind).parameters)]
    if not taking:
        return dict.fromkeys(options, f"{' and '.join(options)} are options of '{given}' for different kinds of labels")
    why = _refusal(name, taking[0], options)
    return {next((option for option in options if option in why), next(iter(options))): why}


def evaluate(name: str, options: Mapping[str, Any], task: Task, pair: tuple[Tensor, Tensor]) -> float:
    """Compute a metric.

    Outputs that stand for classes are logits: they are made probabilities here, always, since torchmetrics would do so
    only for outputs that look as if they were not.

    Args:
        name: Its listed name.
        options: Arguments of its class.
        task: What the outputs and labels are.
        pair: Outputs ``(N, ...)`` and labels.

    Raises:
        Exception: Whatever torchmetrics finds wrong with the options, the outputs or the labels.
    """
    result = _computed(name, options, task, pair)
    if not isinstance(result, Tensor) or result.numel() != 1:
        found = f"{result.numel()} numbers" if isinstance(result, Tensor) else f"a {type(result).__name__}"
        raise ValueError(f"{_GIVES} {found}, not one number")
    return float(result)


def by_row(name: str, options: Mapping[str, Any], pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return a ranking's metric for each row that it counts; outputs and labels are ``(N, items)``."""

    def as_they_are(values: Tensor, dim: int | None = None) -> Tensor:  # noqa: ARG001
        return values

    return torch.as_tensor(_computed(name, {**options, "aggregation": as_they_are}, Task.RANKING, pair)).reshape(-1)


def _computed(name: str, options: Mapping[str, Any], task: Task, pair: tuple[Tensor, Tensor]) -> Any:
    outputs, labels = pair
    kind = _found()[name][task]
    each = outputs.shape[1] if task is Task.DENSE else outputs.shape[-1]
    sizes = {"num_classes": each, "num_labels": each}
    sizes |= {"ignore_index": PADDING} if task in (Task.TOKENS, Task.DENSE) else {}
    accepted = inspect.signature(kind).parameters
    ours = {key: value for key, value in (sizes | _DEFAULTS.get(name, {})).items() if key in accepted}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # An area under a curve of one class only is reported as 0, with a warning.
        warnings.filterwarnings("error", message="No (positive|negative) samples in targets")
        metric = kind(**{**ours, **options})
        metric.update(*_arguments(name, task, outputs.double(), labels))
        return metric.compute()


def _arguments(name: str, task: Task, outputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Return outputs and labels as torchmetrics wants them."""
    count = len(outputs)
    match task:
        case Task.MULTICLASS | Task.DENSE:
            return outputs.softmax(dim=1), labels.long()
        case Task.BINARY:
            return outputs.flatten().sigmoid(), labels.flatten().long()
        case Task.MULTILABEL:
            return outputs.sigmoid(), labels.long()
        case Task.TOKENS:
            scores = outputs if name == "perplexity" else outputs.softmax(dim=2).movedim(2, 1)
            return scores, labels.long()
        case Task.REGRESSION:
            rows = outputs.reshape(count) if outputs[:1].numel() == 1 else outputs.flatten(1)
            return rows, labels.double().view_as(rows)
        case Task.RANKING:
            queries = torch.arange(count)[:, None].expand_as(outputs)
            relevance = labels if labels.is_floating_point() else labels.long()
            return _upper_half(outputs).flatten(), relevance.flatten(), queries.flatten()


def _upper_half(scores: Tensor) -> Tensor:
    """Return each row's scores from 0.5 to 1, in the same order.

    Some rankings of torchmetrics take a score that is not above 0 as an item that was not found, and others put scores
    outside of 0 to 1 through a sigmoid, after which large ones are equal.
    """
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    return 0.5 + 0.5 * (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)


@cache
def _found() -> dict[str, dict[Task, type]]:
    """Return the classes that judge outputs by labels, by listed name and task."""
    from torchmetrics import classification, regression, retrieval
    from torchmetrics.text import Perplexity

    found: dict[str, dict[Task, type]] = {"perplexity": {Task.TOKENS: Perplexity}}
    for whole in classification.__all__:
        if family := re.match("|".join(_FAMILIES), whole):
            kind = getattr(classification, whole)
            found.setdefault(_snake(whole[family.end() :]), {}).update(dict.fromkeys(_FAMILIES[family[0]], kind))
    found |= {_snake(whole): {Task.REGRESSION: getattr(regression, whole)} for whole in regression.__all__}
    for whole in retrieval.__all__:
        short = _snake(whole.removeprefix("Retrieval")).replace("normalized_dcg", "ndcg")
        found[f"retrieval_{short}" if short in found else short] = {Task.RANKING: getattr(retrieval, whole)}
    return {name: classes for name, classes in found.items() if all(map(_judges_outputs, classes.values()))}


def _judges_outputs(kind: type) -> bool:
    """Tell whether a class compares outputs with labels, and not two distributions or several groups."""
    taken = set(inspect.signature(kind.update).parameters)  # type: ignore[attr-defined]
    return taken <= {"self", "preds", "target", "targets", "indexes"}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@cache
def _spellings() -> dict[str, str]:
    short = {_ENDING.sub("", name).replace("_", ""): name for name in _found()}
    return _ABBREVIATED | short | {name.replace("_", ""): name for name in _found()}


def _parameters(name: str) -> Iterator[inspect.Parameter]:
    for kind in _found()[name].values():
        yield from (p for p in inspect.signature(kind).parameters.values() if p.name not in _OURS)


def _options(name: str) -> set[str]:
    return {parameter.name for parameter in _parameters(name)}


def _needed(name: str) -> list[str]:
    return sorted({p.name for p in _parameters(name) if p.default is inspect.Parameter.empty})


def _refusal(name: str, task: Task, options: Mapping[str, Any]) -> str:
    """Return why a metric gives no number on any example of a task, or nothing when it does."""
    reasons = []
    for pair in _examples(task):
        try:
            evaluate(name, options, task, pair)
        except Exception as error:  # noqa: BLE001 - whatever a class raises, it does not do for this task
            reasons.append(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
        else:
            return ""
    return next((why for why in reasons if why.startswith(_GIVES)), reasons[-1])


@cache
def _examples(task: Task) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return outputs and labels of a task: many classes, so that the best five are among them."""
    random = torch.Generator().manual_seed(0)
    count, several = 64, 32
    numbers = torch.rand((count, several), generator=random)
    bits = torch.randint(2, (count, several), generator=random)
    classes = torch.arange(count) % several
    match task:
        case Task.MULTICLASS:
            return ((numbers, classes),)
        case Task.BINARY:
            return ((numbers[:, 0], bits[:, 0]),)
        case Task.MULTILABEL | Task.RANKING:
            return ((numbers, bits),)
        case Task.TOKENS:
            return ((numbers[:, None].repeat(1, 2, 1), classes[:, None].repeat(1, 2)),)
        case Task.DENSE:
            return ((numbers[..., None].repeat(1, 1, 2), classes[:, None].repeat(1, 2)),)
        case Task.REGRESSION:
            # Correlations take one number for each sample, similarities take several.
            return ((numbers[:, 0], numbers[:, 1]), (numbers, numbers.flip(0)))
