"""The service as its users see it: real Ray, a real MLflow server, the command line in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from paretrim.search.service.cluster import Cluster

from .servers import free

pytestmark = pytest.mark.slow  # two minutes together
LIMIT_S = 240.0


@dataclass
class Bench:
    """A service, and a user at the command line.

    Attributes:
        folder: For all that tests write.
        environment: The user's.
        ports: Of the service.
        job: A job file.
    """

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int]
    job: Path

    @property
    def address(self) -> str:
        """Where jobs are taken."""
        return f"http://127.0.0.1:{self.ports['--port']}"

    def run(self, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of paretrim's."""
        done = subprocess.run(
            [sys.executable, "-m", "paretrim", *words],
            env={**self.environment, **environment}, capture_output=True, text=True, timeout=LIMIT_S,
            cwd=self.folder, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str) -> Any:
        """Run a command, and read its JSON."""
        return json.loads(self.run(*words, "--json").stdout)

    def up(self, code: int = 0, **ports: int) -> subprocess.CompletedProcess[str]:
        """Start the service."""
        words = [word for name, port in {**self.ports, **ports}.items() for word in (name, str(port))]
        return self.run("up", "--cpus", "2", *words, code=code)

    def submit(self, *words: str, **changes: Any) -> str:
        """Send the job with changes; return its name."""
        path = self.folder / f"{changes.get('name', 'tiny')}.yaml"
        quick = {"budget": {"trials": 4, "parallel": 2}, "search": {"warm_start": False, "finals": {"points": 0}}}
        path.write_text(yaml.safe_dump({**yaml.safe_load(self.job.read_text()), **quick, **changes}))
        return self.run("submit", str(path), "--no-check", *words).stdout.strip()

    def state(self, job: str) -> str:
        """Return how a job stands, as the cluster says."""
        found: str = Cluster(self.address, (self.folder / "home" / "token").read_text().strip()).last(job).state
        return found.lower()

    def until(self, job: str, words: str) -> None:
        """Wait until a job has printed something."""
        deadline = time.monotonic() + LIMIT_S
        while words not in self.run("logs", job).stdout:
            assert time.monotonic() < deadline
            time.sleep(1.0)

    def wait(self, job: str, *states: str) -> str:
        """Wait until a job is in one of some states."""
        deadline = time.monotonic() + LIMIT_S
        while (found := self.state(job)) not in states:
            assert time.monotonic() < deadline, (found, self.run("logs", job).stdout)
            time.sleep(1.0)
        return found


@pytest.fixture(scope="module")
def bench(job_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("service")
    hidden = (
        "PARETRIM_ADDRESS",
        "PARETRIM_STUDY",
        "PARETRIM_TRACKING",
        "RAY_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_MODE",
    )
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    environment = {**kept, "PARETRIM_HOME": str(folder / "home"), "PARETRIM_STORE": str(folder / "store")}
    made = Bench(
        folder, environment, dict(zip(("--port", "--tracking-port", "--ray-port"), free(3), strict=True)), job_file
    )
    made.up()
    yield made
    subprocess.run([sys.executable, "-m", "paretrim", "down"], env=environment, check=False, capture_output=True)


@pytest.fixture(scope="module")
def done(bench: Bench) -> str:
    """A job that has finished."""
    name = bench.submit()
    assert bench.wait(name, "succeeded", "failed") == "succeeded", bench.run("logs", name).stdout
    return name


def test_a_job_runs_and_is_looked_at_from_elsewhere(bench: Bench, done: str) -> None:
    status = bench.json("status", done)
    assert (status["state"], status["trials"], status["failed"]) == ("succeeded", 4, 0)
    assert status["tracking"] == f"http://127.0.0.1:{bench.ports['--tracking-port']}"
    here = bench.run("front", done, "--json").stdout
    there = bench.run("front", done, "--json", "--address", bench.address).stdout
    assert json.loads(there) == json.loads(here)
    assert f"{done}: 4 trials" in bench.run("logs", done).stdout
    assert [each["name"] for each in bench.json("jobs")] == [done]
    found = requests.get(
        f"{status['tracking']}/api/2.0/mlflow/experiments/get-by-name?experiment_name={done}", timeout=10
    )
    assert found.json()["experiment"]["name"] == done


def test_the_same_job_twice_is_one(bench: Bench, done: str) -> None:
    assert bench.submit() == done
    (listed,) = bench.json("jobs", "--address", bench.address)
    assert (listed["trials"], listed["of"], listed["failed"]) == (4, 4, 0)


def test_a_model_is_taken_away_from_elsewhere(bench: Bench, done: str) -> None:
    words = ("export", done, "--address", bench.address, "--where", "accuracy >= baseline - 0.5", "-o", "taken")
    assert "the bundle is in taken" in bench.run(*words).stdout
    bundle = bench.folder / "taken"
    checked = subprocess.run(
        [sys.executable, "-I", str(bundle / "predict.py"), "--check"], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()
    sizes = {file.stat().st_size for file in (bench.folder / "store" / "jobs" / done / "artifacts").glob("*.onnx.xz")}
    assert (bundle / "model.onnx.xz").stat().st_size in sizes
    refused = bench.run("export", done, "--address", bench.address, "--trial", "99", "-o", "other", code=1)
    assert "trial 99" in refused.stderr
    assert not (bench.folder / "other").exists()


def test_without_the_token_nothing_is_told(bench: Bench, done: str) -> None:
    stranger = {"PARETRIM_HOME": str(bench.folder / "stranger"), "HOME": str(bench.folder / "stranger")}
    words = ("front", done, "--address", bench.address)
    assert "refuses (401, no token)" in bench.run(*words, code=1, **stranger).stderr
    refused = bench.run(*words, code=1, **stranger, RAY_AUTH_TOKEN="0" * 64)
    assert "refuses (403, a wrong token)" in refused.stderr
    assert done not in refused.stdout + refused.stderr
    for headers, code in (({}, 401), ({"Authorization": "Bearer " + "0" * 64}, 403)):
        assert requests.get(f"{bench.address}/api/jobs/", headers=headers, timeout=10).status_code == code


def test_a_second_service_and_a_taken_port_are_refused(bench: Bench) -> None:
    assert "a service runs already" in bench.up(code=2).stderr
    other = {"PARETRIM_HOME": str(bench.folder / "another")}
    refused = bench.run("up", "--port", str(bench.ports["--port"]), code=2, **other)
    assert "is taken" in refused.stderr
    assert "--port" in refused.stderr
    open_to_all = bench.run("up", "--host", "0.0.0.0", code=2, **other)
    assert "--token-file" in open_to_all.stderr


def test_a_job_that_cannot_work_is_not_accepted(bench: Bench) -> None:
    broken = bench.folder / "broken"
    broken.mkdir()
    (broken / "mine.py").write_text(
        "def model():\n    raise RuntimeError('no weights here')\n\ndef data():\n    pass\n"
    )
    (broken / "job.yaml").write_text("name: broken\nmodel: mine:model\ndata: mine:data\n")
    name = bench.run("submit", str(broken / "job.yaml")).stdout.strip()
    assert bench.wait(name, "succeeded", "failed") == "failed"
    assert "no weights here" in bench.json("status", name)["message"]
    assert not (bench.folder / "store" / "jobs" / name).exists()


def test_a_job_is_stopped_and_keeps_its_front(bench: Bench) -> None:
    name = bench.submit(name="long", budget={"trials": 500, "parallel": 2})
    bench.until(name, "trial 3 ")
    bench.run("stop", name, "--address", bench.address)
    assert bench.wait(name, "succeeded", "failed") == "succeeded"
    status = bench.json("status", name)
    assert 4 <= status["trials"] < 100
    assert bench.json("front", name)["front"]


def test_a_job_whose_driver_was_killed_goes_on(bench: Bench) -> None:
    name = bench.submit(name="killed", budget={"trials": 12, "parallel": 2})
    bench.until(name, "trial 4 ")
    drivers = [p for p in psutil.process_iter(["cmdline"]) if f"drive --as {name}" in " ".join(p.info["cmdline"] or [])]
    for process in drivers:
        process.send_signal(signal.SIGKILL)
    assert bench.wait(name, "failed") == "failed"
    assert bench.json("status", name)["trials"] < 12
    bench.run("resume", name, "--address", bench.address)
    assert bench.wait(name, "succeeded", "failed") == "succeeded"
    status = bench.json("status", name)
    assert (status["trials"], status["failed"]) == (12, 0)


def test_a_service_ends_with_all_that_it_started_and_nothing_else(bench: Bench, done: str) -> None:
    # Last in this file: it ends what the others use.
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    noted = json.loads((bench.folder / "home" / "service.json").read_text())
    started = {each["pid"] for each in noted["processes"].values()}
    assert living(started)
    assert "are kept" in bench.run("down").stdout
    deadline = time.monotonic() + 10.0
    while living(started):
        assert time.monotonic() < deadline, living(started)
        time.sleep(0.2)
    assert bystander.poll() is None
    bystander.kill()
    assert "no service was started" in bench.run("down", code=2).stderr
    # Its results are there, by the store's name, or the environment's.
    assert bench.json("status", done)["state"] == "finished"
    assert "no cluster is named and none runs" in bench.run("submit", str(bench.job), code=2).stderr


def living(sessions: set[int]) -> list[tuple[int, str]]:
    """Return the processes of some sessions that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.pid, process.name()))
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
