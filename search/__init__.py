"""Decides and runs: the job, the study, the driver, the command line.

``paretrim.search`` is both this package and the function that users call, ``paretrim.search(job)``: the import
system binds a package's submodules to its attributes, so the one way to have both is a package that can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from paretrim.search.api import search  # noqa: PLC0415 - heavy, and only needed when called

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
