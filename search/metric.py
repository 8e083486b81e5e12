"""The metric of a job: one of torchmetrics with its options, or a function of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from paretrim.errors import Problem
from paretrim.evaluators import metrics
from paretrim.search.mistakes import problems
from paretrim.spaces.importpath import ImportPath


class NamedMetric(BaseModel):
    """A metric of torchmetrics. All keys but the name are arguments of torchmetrics' class.

    Attributes:
        name: Such as ``accuracy``, ``auroc`` or ``spearman``; see docs/metrics.md.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of torchmetrics' class."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """What it is called in records and tables."""
        return self.name


class OwnMetric(BaseModel):
    """A function of the user's.

    Attributes:
        function: Import path, or function, of ``(outputs, labels) -> float``.
        direction: Whether more or less of it is better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: ImportPath
    direction: Literal["maximize", "minimize"] = "maximize"

    @property
    def label(self) -> str:
        """What it is called in records and tables."""
        return self.function.partition(":")[2].rpartition(".")[2]


AnyMetric = NamedMetric | OwnMetric
_FORMS = "give the name of a metric, module:function, or a mapping with one of them as 'name' or 'function'"


def written(metric: AnyMetric) -> str | dict[str, Any]:
    """Return a metric as a job file has it: in the short form, where that says all."""
    if isinstance(metric, NamedMetric):
        return metric.model_dump(mode="json") if metric.options else metric.name
    return metric.function if metric.direction == "maximize" else metric.model_dump(mode="json")


def read(given: Any) -> tuple[AnyMetric | None, list[Problem]]:
    """Return a job's metric, as far as it can be told, and all that is wrong with it.

    Args:
        given: A name, an import path, a function, or a mapping with ``name`` or ``function``.
    """
    if isinstance(given, AnyMetric):
        return given, []
    if isinstance(given, Mapping):
        return _read(given)
    if not isinstance(given, str) and not callable(given):
        return None, [Problem(("metric",), f"{_FORMS}; given a {type(given).__name__}")]
    own = callable(given) or ":" in given
    metric, wrong = _read({"function" if own else "name": given})
    return metric, [Problem(("metric",), problem.message) for problem in wrong]


def _read(given: Mapping[str, Any]) -> tuple[AnyMetric | None, list[Problem]]:
    key = "function" if "function" in given else "name"
    kind = OwnMetric if key == "function" else NamedMetric
    if key not in given:
        return None, [Problem(("metric",), _FORMS)]
    try:
        metric = kind.model_validate(dict(given))
    except ValidationError as error:
        # The rest of the job is judged by what is known of its metric.
        known = _read({key: given[key]})[0] if len(given) > 1 else None
        return known, problems(error, kind, ("metric",))
    if isinstance(metric, OwnMetric):
        return metric, []
    wrong = metrics.mistakes(metric.name, metric.options)
    return None if "name" in wrong else metric, [Problem(("metric", option), text) for option, text in wrong.items()]
