"""MLflow in a process of its own: the same tracker, which survives that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from paretrim.tracking.apart import ApartTracker, apart
from paretrim.tracking.testing import TrackerContract, sample_record, sample_summary
from paretrim.tracking.tracker import TrackingError

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tests' one database lies: to make one takes seconds."""
    return tmp_path_factory.mktemp("apart")


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def tracker(folder: Path, request: pytest.FixtureRequest) -> Iterator[ApartTracker]:
    with apart(uri(folder), request.node.name, folder / "files") as opened:
        yield opened


def runs(folder: Path, name: str, key: str = "paretrim.trial") -> list[Any]:
    client = MlflowClient(tracking_uri=uri(folder))
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return [run for run in found if key in run.data.tags]


def numbers(folder: Path, name: str) -> list[int]:
    return sorted(int(run.data.tags["paretrim.trial"]) for run in runs(folder, name))


class TestApartTrackerKeepsTheContract(TrackerContract):
    folder: Path

    @pytest.fixture(autouse=True)
    def use(self, folder: Path) -> Iterator[None]:
        self.folder, self.opened = folder, list[ApartTracker]()
        yield
        for each in self.opened:
            each.close()

    def open_tracker(self, store: Path) -> ApartTracker:
        self.opened.append(ApartTracker(uri(self.folder), store.name, self.folder / "files"))
        return self.opened[-1]

    def kept_trials(self, store: Path) -> Sequence[int]:
        return numbers(self.folder, store.name)

    def kept_summaries(self, store: Path) -> int:
        return len(runs(self.folder, store.name, "paretrim.summary"))


def test_trials_and_the_summary_are_written_as_by_mlflows_own_tracker(
    tracker: ApartTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    records = [sample_record(0), sample_record(3, latency_ms=0.5)]
    for record in records:
        tracker.log_trial(record)
    tracker.log_summary(sample_summary(records))
    assert tracker.logged() == {0, 3}
    (third,) = [run for run in runs(folder, request.node.name) if run.data.tags["paretrim.trial"] == "3"]
    assert third.data.metrics["latency_ms"] == 0.5
    assert len(runs(folder, request.node.name, "paretrim.summary")) == 1


def test_a_killed_process_loses_nothing_and_is_replaced(
    tracker: ApartTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    tracker.log_trial(sample_record(0))
    tracker._process.kill()
    with pytest.raises(TrackingError, match="was killed by SIGKILL"):
        tracker.log_trial(sample_record(1))
    tracker.log_trial(sample_record(1))
    tracker.log_trial(sample_record(2))
    assert numbers(folder, request.node.name) == [0, 1, 2]


def test_after_a_kill_a_trial_that_was_written_without_word_of_it_is_not_written_twice(
    tracker: ApartTracker, folder: Path, request: pytest.FixtureRequest
) -> None:
    tracker.log_trial(sample_record(0))
    tracker._process.kill()
    with pytest.raises(TrackingError):
        tracker.logged()
    tracker.log_trial(sample_record(0))
    assert numbers(folder, request.node.name) == [0]


def test_a_server_that_is_not_there_is_told_by_the_tracker_that_waits_for_it(tmp_path: Path) -> None:
    with (
        apart("nonsense://host", "digits-1", tmp_path) as tracker,
        pytest.raises(TrackingError, match="cannot use the tracking server at nonsense://host"),
    ):
        tracker.ready()


def test_what_fails_in_the_process_is_the_error_of_whoever_asked(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with apart(f"sqlite:///{database}", "digits-1", tmp_path) as tracker:
        tracker.ready()
        database.write_bytes(b"no database any more " * 10_000)
        with pytest.raises(TrackingError, match="cannot log trial 3"):
            tracker.log_trial(sample_record(3))


def test_the_process_ends_with_the_tracker(folder: Path, request: pytest.FixtureRequest) -> None:
    with apart(uri(folder), request.node.name, folder / "files") as tracker:
        tracker.ready()
        process = tracker._process
        assert process.poll() is None
    assert process.poll() == 0


ASKS = """
import sys
from pathlib import Path
from paretrim.tracking.apart import ApartTracker
tracker = ApartTracker(sys.argv[1], "asks", Path(sys.argv[2]))
tracker.ready()
print(tracker._process.pid, flush=True)
sys.stdin.read()
"""


def test_the_process_ends_when_the_search_is_killed(folder: Path) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKS, uri(folder), str(folder / "files")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with asking:
        assert asking.stdout is not None
        clerk = int(asking.stdout.readline())
        asking.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while alive(clerk) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(clerk)


def alive(pid: int) -> bool:
    """Tell whether a process is there; one that has ended may wait for somebody to ask for its exit code."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
