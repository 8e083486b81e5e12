"""paretrim: multi-objective search for smaller and faster versions of a trained PyTorch model.

The public names are imported when they are first used, so that a measuring process, which imports this package
too, holds nothing but the runtime that it measures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from paretrim import data, models
    from paretrim.errors import ParetrimError
    from paretrim.evaluators.preprocessing import Preprocessing
    from paretrim.evaluators.splits import Splits
    from paretrim.search.api import load_result, resume, search
    from paretrim.search.job import Job
    from paretrim.search.result import Result

_HOME = {
    "Job": "paretrim.search.job",
    "ParetrimError": "paretrim.errors",
    "Preprocessing": "paretrim.evaluators.preprocessing",
    "Result": "paretrim.search.result",
    "Splits": "paretrim.evaluators.splits",
    "load_result": "paretrim.search.api",
    "resume": "paretrim.search.api",
}

# Modules of their own, which are imported when they are first asked for too.
_MODULES = ("data", "models")

__all__ = [
    "Job",
    "ParetrimError",
    "Preprocessing",
    "Result",
    "Splits",
    "__version__",
    "data",
    "load_result",
    "models",
    "resume",
    "search",
]


def __getattr__(name: str) -> Any:
    if name == "search":
        # The package of that name is callable: paretrim.search(job). See search/__init__.py.
        return import_module("paretrim.search")
    if name in _MODULES:
        return import_module(f"paretrim.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'paretrim' has no attribute '{name}'")
