"""Serving the MLflow UI over a store, on loopback."""

from __future__ import annotations

import os
import signal
import subprocess

from rich.console import Console

from paretrim.errors import UnknownJobError
from paretrim.search.server import LOOPBACK, QUIET, command, require_free
from paretrim.search.store import Store


def serve(store: Store, port: int) -> int:
    """Serve until Ctrl-C, and return the server's exit code.

    Raises:
        UnknownJobError: The store holds no search.
        UsageError: The port is taken.
    """
    if not (store.root / "mlflow.db").exists():
        raise UnknownJobError(
            f"no tracking database in the store {store.root}; run `paretrim search` first, or name its store with --store. "
            "A job whose storage names another tracking server is looked at there"
        )
    require_free(LOOPBACK, port, "--port")
    from paretrim.tracking.mlflow_tracker import chart_pages  # noqa: PLC0415 - MLflow takes seconds to import

    url = f"http://{LOOPBACK}:{port}"
    console = Console()
    console.print(f"MLflow UI: {url}  (Ctrl-C ends it)", highlight=False)
    pages = chart_pages(store.own.tracking)
    for name in (name for name in store.names() if name in pages):
        console.print(f"  {name}: {url}{pages[name]}", highlight=False, soft_wrap=True)
    # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the server in order.
    server = subprocess.Popen(command(store, LOOPBACK, port), env={**os.environ, **QUIET}, start_new_session=True)
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
