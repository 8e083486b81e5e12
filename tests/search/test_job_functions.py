"""What functions a job may name, and how."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType

import pytest

from paretrim.search.metric import OwnMetric

from .helper_job import a_job, mistakes


def a_model() -> None:
    """Stand for a user's function."""


def a_metric(outputs: object, labels: object) -> float:
    return 0.0


class Factory:
    @staticmethod
    def model() -> None:
        """Stand for a user's function in a class."""

    def __call__(self) -> None:
        """Stand for an object that can be called."""


def test_a_function_stands_for_its_import_path() -> None:
    job = a_job(model=a_model, data=a_model, metric=a_metric)
    assert job.model == f"{__name__}:a_model"
    assert (job.metric, job.metric_name) == (OwnMetric(function=f"{__name__}:a_metric"), "a_metric")
    assert job.objectives[0] == "a_metric"


def test_a_function_of_a_class_stands_for_its_import_path() -> None:
    assert a_job(model=Factory.model).model == f"{__name__}:Factory.model"


def test_a_function_of_a_script_stands_for_the_scripts_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "train.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.setattr(a_model, "__module__", "__main__")
    assert a_job(model=a_model).model == "train:a_model"


def test_a_function_that_was_typed_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setattr(a_model, "__module__", "__main__")
    assert "put it into a file" in mistakes(model=a_model)["model"]


def test_a_lambda_is_refused() -> None:
    assert "workers import functions by name, so move it to a module" in mistakes(model=lambda: None)["model"]


def test_a_function_inside_a_function_is_refused() -> None:
    def inner() -> None:
        """Stand for a closure."""

    assert "move it to a module" in mistakes(data=inner)["data"]


@pytest.mark.parametrize("thing", [functools.partial(a_model), Factory()], ids=["partial", "object"])
def test_a_thing_that_has_no_import_path_is_refused(thing: object) -> None:
    assert set(mistakes(model=thing)) == {"model"}
