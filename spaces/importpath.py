"""Functions by the path under which a worker imports them: ``package.module:function``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

_IMPORT_PATH = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")


def _import_path(given: Any) -> Any:
    """Turn a function into its import path, and check the form of a path."""
    if callable(given):
        return _path_of(given)
    if isinstance(given, str) and not _IMPORT_PATH.match(given):
        raise ValueError(f"'{given}' is not an import path; write package.module:function")
    return given


def _path_of(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module is None or name is None:
        raise ValueError(f"a {type(function).__name__} has no name to import it by; give a function of a module")
    if "<" in name:
        raise ValueError(
            f"{name} is defined inside another function; workers import functions by name, so move it to a module"
        )
    if module == "__main__":
        # Workers import the script as a module of its own name.
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise ValueError(f"{name} was typed into an interpreter; workers cannot import it, so put it into a file")
        module = Path(script).stem
    return f"{module}:{name}"


ImportPath = Annotated[str, BeforeValidator(_import_path)]
"""A function, or its import path; kept as the path."""
