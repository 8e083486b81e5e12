"""What the service needs beside paretrim's own dependencies."""

from __future__ import annotations

from importlib.util import find_spec

from paretrim.errors import MissingExtraError

# Of Ray's job server and its client.
_NEEDED = ("aiohttp", "aiohttp_cors")


def require() -> None:
    """Check that the extra is installed.

    Raises:
        MissingExtraError: It is not.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"jobs on a cluster need {', '.join(missing)}: pip install 'paretrim[service]'")
