"""Calling a user's functions: their mistakes become one clear error, with their own traceback behind it."""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretrim.errors import DataError, ParetrimError, UserCodeError, nearest
from paretrim.evaluators import metrics
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Splits
from paretrim.search.job import Job
from paretrim.search.metric import NamedMetric


def use_folder(folder: Path) -> None:
    """Put the folder of a user's modules first on the import path."""
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def load_model(job: Job) -> nn.Module:
    """Return the trained model in evaluation mode on the CPU.

    Raises:
        UserCodeError: The function does not import, raises, or returns something else.
    """
    model = load_network(job.model, "model")
    if not any(True for _ in model.parameters()):
        raise UserCodeError(f"model: {job.model} returned a module without parameters; there is nothing to compress")
    return model


def load_network(path: str, field: str) -> nn.Module:
    """Return the network that a user's function makes, in evaluation mode on the CPU.

    Args:
        path: The function's import path.
        field: Where it stands in the job.

    Raises:
        UserCodeError: The function does not import, raises, or returns something else.
    """
    model = _call(path, field)
    if not isinstance(model, nn.Module):
        raise UserCodeError(f"{field}: {path} returned a {type(model).__name__}; return a trained torch.nn.Module")
    return model.cpu().eval()


def check_function(path: str, field: str) -> None:
    """Check that a function can be imported.

    Raises:
        UserCodeError: It cannot.
    """
    _import(path, field)


def source(path: str) -> str:
    """Return the text of a module, or of that of a function, which was imported; its path where there is no text."""
    try:
        return inspect.getsource(sys.modules[path.partition(":")[0]])
    except (KeyError, OSError, TypeError):
        return path


def load_data(job: Job) -> Splits:
    """Return the four splits, checked.

    Raises:
        UserCodeError: The function does not import, raises, or returns something else.
        DataError: The splits are empty or overlap.
    """
    splits = _call(job.data, "data")
    if not isinstance(splits, Splits):
        raise UserCodeError(
            f"data: {job.data} returned a {type(splits).__name__}; return "
            "paretrim.Splits(train=..., calibration=..., validation=..., test=...)"
        )
    splits.check()
    return splits


def load_metric(job: Job) -> Metric:
    """Return the job's metric.

    Raises:
        UserCodeError: The user's function does not import.
    """
    if isinstance(job.metric, NamedMetric):
        return metrics.by_name(job.metric.name, job.metric.options)
    path = job.metric.function
    function = _Judge(path, _import(path, "metric"), job.folder)
    return Metric(job.metric_name, job.metric.direction == "maximize", function)


@dataclass(frozen=True)
class _Judge:
    """A user's metric, whose mistakes are told as those of the user's other functions."""

    path: str
    function: Callable[[torch.Tensor, torch.Tensor], Any]
    folder: Path

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        given = f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(labels.shape)} ({labels.dtype})"
        try:
            # Copies, since a function may change what it is given, and others are scored on the same.
            value = self.function(outputs.clone(), labels.clone())
        except ParetrimError:
            raise
        except (Exception, SystemExit) as error:
            what = f"raised {type(error).__name__}: {error}{_place(error, self.folder)}"
            raise UserCodeError(f"metric: {self.path} {what}; it was given {given}") from error
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise UserCodeError(f"metric: {self.path} returned a {type(value).__name__}; return one number") from None
        if not math.isfinite(number):
            raise UserCodeError(f"metric: {self.path} returned {number} for {given}, of which all outputs are finite")
        return number


def check_fit(model: nn.Module, splits: Splits, metric: Metric) -> None:
    """Check that the labels of all splits fit the model's outputs.

    Args:
        model: The model, which gives one tensor.
        splits: Its data.
        metric: What scores its outputs.

    Raises:
        DataError: Says what was found and what fits.
        UserCodeError: The model does not run on the data, or its output is not a tensor.
    """
    parts = (splits.search.train, splits.search.calibration, splits.search.validation, splits.test.unseal())
    sample = parts[0].first(2).inputs
    outputs = _outputs(model, sample)
    _check_labels(splits, outputs)
    for part in parts:
        other = part.first(1).inputs
        if other.signature != sample.signature:
            raise DataError(
                f"an input of the {part.name} split is {other.signature.described()}, and one of the train split "
                f"{sample.signature.described()}; all splits need the same"
            )
        for batch in part.survey():
            try:
                metric.check(outputs, batch.labels)
            except DataError as error:
                raise DataError(f"the {part.name} split does not fit the model: {error}") from None


def _check_labels(splits: Splits, outputs: torch.Tensor) -> None:
    if splits.labels is None:
        return
    if outputs.dim() != 2 or outputs.shape[1] < 2:
        raise DataError(
            f"labels names classes, and the model's outputs of shape {tuple(outputs.shape)} are not one score for each class; "
            "leave labels out"
        )
    if len(splits.labels) != outputs.shape[1]:
        raise DataError(
            f"labels names {len(splits.labels)} classes, and the model has {outputs.shape[1]}; name each, in their order"
        )


def _outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = inputs.through(model)
    if not bool(torch.isfinite(outputs).all()):
        raise UserCodeError("the model's outputs are NaN or infinite; is it trained?")
    return outputs


def _call(path: str, field: str) -> Any:
    function = _import(path, field)
    try:
        return function()
    except ParetrimError:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"{field}: {path} raised {type(error).__name__}: {error}{_place(error, Path(sys.path[0]))}"
        ) from error


def _import(path: str, field: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    _refuse_namesake(module_name, field)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"there is no module '{error.name}' on the import path"
        raise UserCodeError(
            f"{field}: cannot import '{module_name}': {missing}; modules are looked for in the job's folder "
            f"({sys.path[0]}) and among the installed packages"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"{field}: importing '{module_name}' raised {type(error).__name__}: {error}{_place(error, Path(sys.path[0]))}"
        ) from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            allowed = [n for n in vars(found) if callable(vars(found)[n]) and not n.startswith("_")]
            raise UserCodeError(f"{field}: the module '{module_name}' has no '{name}'{nearest(part, allowed)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserCodeError(f"{field}: {path} is a {type(found).__name__}; a function is needed")
    return found  # type: ignore[no-any-return]


def _refuse_namesake(module_name: str, field: str) -> None:
    """Refuse a module of the job's folder when another folder's module of that name was imported before."""
    top = module_name.partition(".")[0]
    loaded = sys.modules.get(top)
    here = PathFinder.find_spec(top, [sys.path[0]])
    if loaded is None or here is None or here.origin is None:
        return
    if getattr(loaded, "__file__", None) != here.origin:
        raise UserCodeError(
            f"{field}: this process has imported another module named '{top}' ({getattr(loaded, '__file__', 'built in')}); "
            "run each job in a process of its own, or rename one of the modules"
        )


def _place(error: BaseException, folder: Path) -> str:
    """Return where in the user's own modules, which lie in a folder, an error arose, or nothing."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
