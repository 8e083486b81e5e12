"""Searches on a Ray cluster of several nodes, whose parts die, stall, and come back.

All nodes are on this machine, as real processes of Ray's; the driver is one of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where the benchmarks lie

from benchmarks.chaos_checks import disagreeing
from benchmarks.chaos_disk import small_disk
from paretrim.search.result import Result, open_result
from paretrim.search.store import Store

from .conftest import SUBJECTS
from .servers import Nodes, Postgres, free, mlflow_server, running

pytestmark = pytest.mark.slow  # a minute or more each
LIMIT_S, TRIALS = 300.0, 8
# Ray takes half a minute to give up a node that does not answer; in a test it is given up sooner.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Stage:
    """A cluster, and a search on it.

    Attributes:
        folder: For all that is written.
        cluster: The cluster; its head makes no trials.
        storage: Of the job.
        environment: Of the driver.
    """

    folder: Path
    cluster: Nodes
    storage: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def job(self, trials: int, parallel: int) -> Path:
        """Write the job file."""
        path = self.folder / "job.yaml"
        document = {
            "name": "tiny", "model": "tiny:model", "data": "tiny:data", "folder": str(SUBJECTS),
            "space": {"recovery": {"epochs": 1}}, "export_tolerance": 0.1, "storage": self.storage,
            "budget": {"trials": trials, "parallel": parallel}, "search": {"finals": {"points": 0}},
        }  # fmt: skip
        path.write_text(yaml.safe_dump(document))
        return path

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a driver."""
        log = (self.folder / "driver.log").open("ab")
        command = [sys.executable, "-m", "paretrim", *words]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def begin(self, trials: int, parallel: int) -> subprocess.Popen[bytes]:
        """Start a search."""
        return self.start("search", str(self.job(trials, parallel)))

    def under_way(self) -> subprocess.Popen[bytes]:
        """Start a search on two nodes, and wait until three trials have ended."""
        self.cluster.add(2)
        driver = self.begin(TRIALS, parallel=2)
        self.until(self.ended(3), driver)
        return driver

    @property
    def log(self) -> str:
        """What drivers have printed."""
        return (self.folder / "driver.log").read_text(errors="replace")

    @property
    def result(self) -> Result:
        """The search."""
        return open_result(None, Store(self.folder / "store"))

    def until(self, condition: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
        """Wait for something while a driver runs."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert driver.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.3)

    def ended(self, count: int) -> Callable[[], bool]:
        """Return whether so many trials have ended, as the log says."""
        return lambda: sum(line.startswith("trial ") for line in self.log.splitlines()) >= count

    def finish(self, driver: subprocess.Popen[bytes], trials: int) -> None:
        """Wait for the end, and check all that must hold."""
        assert driver.wait(LIMIT_S) == 0, self.log
        result = self.result
        assert not [(r.number, r.cause) for r in result.records if r.state == "failed"], self.log
        assert not disagreeing(result, trials), self.log


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    settings = {**HEALTH, "RAY_AUTH_MODE": "disabled"}
    cluster = Nodes(settings)
    hidden = ("PARETRIM_STUDY", "PARETRIM_TRACKING", "PARETRIM_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    store = {"PARETRIM_STORE": str(tmp_path / "store"), "PARETRIM_HOME": str(tmp_path / "home")}
    yield Stage(tmp_path, cluster, environment={**kept, **settings, **store, "RAY_ADDRESS": cluster.address})
    cluster.close()


def test_trials_outlive_a_node_and_use_one_that_joins(stage: Stage) -> None:
    driver = stage.under_way()
    stage.cluster.kill()
    stage.cluster.add()
    stage.finish(driver, TRIALS)


def test_trials_outlive_all_nodes(stage: Stage) -> None:
    driver = stage.under_way()
    stage.cluster.kill()
    stage.cluster.kill()
    time.sleep(5.0)
    stage.cluster.add(2)
    stage.finish(driver, TRIALS)


def test_a_node_that_stalls_is_given_up(stage: Stage) -> None:
    driver = stage.under_way()
    raylet = stage.cluster.raylet()
    os.kill(raylet, signal.SIGSTOP)
    time.sleep(12.0)
    os.kill(raylet, signal.SIGCONT)
    stage.cluster.add()
    stage.finish(driver, TRIALS)


def test_a_second_driver_is_refused_and_a_dead_one_is_followed(stage: Stage) -> None:
    driver = stage.under_way()
    second = stage.start("resume", "tiny-1")
    assert second.wait(LIMIT_S) == 2
    assert f"tiny-1 is driven by process {driver.pid} on " in stage.log
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    stage.finish(stage.start("resume", "tiny-1"), TRIALS)


def test_results_wait_for_an_mlflow_server_that_is_away(stage: Stage) -> None:
    (port,) = free(1)
    stage.storage = {"tracking": f"http://127.0.0.1:{port}"}
    with mlflow_server(stage.folder, port) as server:
        driver = stage.under_way()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        stage.until(stage.ended(6), driver)
    with mlflow_server(stage.folder, port):
        stage.finish(driver, TRIALS)


def test_a_search_outlasts_a_restart_of_postgresql(stage: Stage) -> None:
    with running() as server:
        stage.storage = {"study": server.database()}
        driver = stage.under_way()
        restart(server, 5.0)
        stage.finish(driver, TRIALS)


def restart(server: Postgres, away_s: float) -> None:
    server.stop()
    time.sleep(away_s)
    server.start()


def test_a_machine_without_room_waits_while_others_go_on(stage: Stage) -> None:
    with small_disk(stage.folder / "small") as disk:
        if not disk.mounted:
            pytest.skip(f"no file system can be mounted here: {disk.how}")
        stage.cluster.add()
        stage.cluster.add(temporary=disk.folder)
        driver = stage.begin(TRIALS + 4, parallel=2)
        stage.until(stage.ended(3), driver)
        with disk.full([]):
            stage.until(stage.ended(6), driver)
        stage.finish(driver, TRIALS + 4)
        assert "its machine has no room: on " in stage.log


def test_a_machine_that_does_not_see_the_store_says_so(stage: Stage) -> None:
    # The folder is moved away when the search has begun, and the next process that makes trials is a new one.
    stage.cluster.add(1)
    driver = stage.begin(trials=6, parallel=1)
    stage.until(stage.ended(2), driver)
    scratch = stage.folder / "store" / "jobs" / "tiny-1" / "scratch"
    moved = scratch.with_name("moved")
    scratch.rename(moved)
    stage.cluster.kill()
    stage.cluster.add()
    stage.until(lambda: "does not see" in stage.log, driver)
    driver.kill()
    driver.wait()
