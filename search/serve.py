"""Serving the MLflow UI over a store, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from rich.console import Console

from paretrim.errors import UnknownJobError, UsageError
from paretrim.search.store import Store

_HOST = "127.0.0.1"


def serve(store: Store, port: int) -> int:
    """Serve until Ctrl-C, and return the server's exit code.

    Raises:
        UnknownJobError: The store holds no search.
        UsageError: The port is taken.
    """
    if not (store.root / "mlflow.db").exists():
        raise UnknownJobError(
            f"no tracking database in the store {store.root}; run `paretrim search` first, or name its store with --store. "
            "A job with a tracking_uri of its own is looked at on that server"
        )
    _require_free(port)
    from paretrim.tracking.mlflow_tracker import chart_pages  # noqa: PLC0415 - MLflow takes seconds to import

    url = f"http://{_HOST}:{port}"
    console = Console()
    console.print(f"MLflow UI: {url}  (Ctrl-C ends it)", highlight=False)
    pages = chart_pages(store.tracking_uri)
    for name in (name for name in store.names() if name in pages):
        console.print(f"  {name}: {url}{pages[name]}", highlight=False, soft_wrap=True)
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.tracking_uri,
        "--artifacts-destination", str(store.tracking_artifacts), "--host", _HOST, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the server in order.
    server = subprocess.Popen(command, env={**os.environ, **quiet}, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return server.wait()
    except KeyboardInterrupt:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        return 0


def _interrupt(signum: int, frame: object) -> None:  # noqa: ARG001 - the signal module's protocol
    raise KeyboardInterrupt


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UsageError(f"port {port} is taken ({error.strerror}); choose another with --port") from None
