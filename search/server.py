"""The MLflow server over a store, and the port that it listens on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from paretrim.errors import UsageError
from paretrim.search.store import Store

LOOPBACK = "127.0.0.1"
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Of its environment: without, it starts a dozen processes more."""


def command(store: Store, host: str, port: int, more: Sequence[str] = ()) -> list[str]:
    """Return the words of the command that serves a store's own tracking database.

    Args:
        store: The store.
        host: Address to listen on.
        port: Port to listen on.
        more: Further options.
    """
    own = store.own
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", own.tracking,
        "--artifacts-destination", str(own.tracking_artifacts), "--host", host, "--port", str(port), "--workers", "1",
        *more,
    ]  # fmt: skip


def require_free(host: str, port: int, option: str) -> None:
    """Check that a port is free.

    Raises:
        UsageError: It is taken, or the address is not this machine's.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"port {port} of {host} is taken ({error.strerror}); choose another with {option}"
            ) from None
