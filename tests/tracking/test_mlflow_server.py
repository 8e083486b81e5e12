"""A real MLflow server, one that is not there, and a database that breaks."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from paretrim.errors import ParetrimError
from paretrim.tracking.mlflow_tracker import MlflowTracker
from paretrim.tracking.testing import sample_record, sample_summary
from paretrim.tracking.tracker import TrackingError

from .helper_mlflow import SUMMARY_FILES, Search

PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri, started = f"http://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(TrackingError) as caught:
        MlflowTracker(uri, "digits-1", None)
    assert isinstance(caught.value, ParetrimError)
    assert f"cannot use the tracking server at {uri}" in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("uri", ["nonsense://host", "sqlite-is-not-a-scheme:x"])
def test_a_uri_that_mlflow_does_not_know_is_an_error_that_shows_it(uri: str) -> None:
    with pytest.raises(TrackingError, match=re.escape(uri)):
        MlflowTracker(uri, "digits-1", None)


OPERATIONS: dict[str, Callable[[MlflowTracker], object]] = {
    "logged": lambda tracker: tracker.logged(),
    "log_trial": lambda tracker: tracker.log_trial(sample_record(3)),
    "log_summary": lambda tracker: tracker.log_summary(sample_summary([sample_record(0)])),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_database_that_breaks_under_way_is_an_error_that_names_it(
    search: Search, tmp_path: Path, operation: str
) -> None:
    database = tmp_path / "mlflow.db"
    # Not only its file: the latest of what was written may still lie beside it.
    with (
        closing(sqlite3.connect(search.uri.removeprefix("sqlite:///"))) as there,
        closing(sqlite3.connect(database)) as here,
    ):
        there.backup(here)
    tracker = MlflowTracker(f"sqlite:///{database}", "digits-1", tmp_path)
    database.write_bytes(b"no database any more " * 10_000)
    with pytest.raises(TrackingError, match=re.escape(str(database))):
        OPERATIONS[operation](tracker)


def wait_for(process: subprocess.Popen[bytes], uri: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{uri}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the MLflow server did not come up; its exit code is {process.poll()}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Run a real MLflow server on a free port of this machine and return its URI."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "server-files")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    try:
        wait_for(process, uri)
        yield uri
    finally:
        # The session holds the server and its workers, and nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_server_keeps_a_search(server: str, tmp_path: Path) -> None:
    search = Search(server, "digits-1", None)
    records = [sample_record(0), sample_record(3, latency_ms=0.1), sample_record(4, state="failed", cause="nan")]
    for record in records:
        search.tracker.log_trial(record)
    summary = sample_summary(records)
    search.tracker.log_summary(summary)
    search.reopened().log_summary(summary)
    assert search.reopened().logged() == {0, 3, 4}
    assert search.files() == SUMMARY_FILES
    assert search.text("front.json", tmp_path) == summary.report.to_json()
    assert (search.run(3).data.tags["pareto"], search.run(4).info.status) == ("true", "FAILED")
