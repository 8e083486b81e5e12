"""Packages that only some sources need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from paretrim.errors import MissingExtraError


def extra(package: str) -> ModuleType:
    """Import a package that is an extra of the same name.

    Raises:
        MissingExtraError: It is not installed, or does not import.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        missing = "" if error.name == package else f", which needs '{error.name}'"
        raise MissingExtraError(f"'{package}' is not installed{missing}: pip install 'paretrim[{package}]'") from error
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"'{package}' is installed and does not import ({type(error).__name__}: {error}); install versions that fit each "
            f"other: pip install 'paretrim[{package}]'"
        ) from error
