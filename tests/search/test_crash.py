"""SIGKILL to the driver at any moment: `resume` loses, repeats and logs nothing twice. Ctrl-C ends a search in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from mlflow.tracking import MlflowClient

from paretrim.search.result import open_result
from paretrim.search.store import Store
from paretrim.tracking.records import TrialRecord

TRIALS = 6
PATIENCE_S = 180


def start(*arguments: str, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "paretrim", *arguments, "--store", str(store)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_trials(store: Path, count: int, process: subprocess.Popen[str]) -> list[TrialRecord]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if Store(store).names():
            records = list(open_result(None, Store(store)).study.records())
            if len(records) >= count:
                return records
        time.sleep(0.2)
    raise AssertionError(
        f"no {count} trials: {process.stdout.read() if process.stdout and process.poll() is not None else ''}"
    )


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def logged_trials(store: Path) -> Counter[int]:
    client = MlflowClient(Store(store).tracking_uri)
    experiment = client.get_experiment_by_name("tiny-1")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`paretrim.trial` != ''")
    return Counter(int(run.data.tags["paretrim.trial"]) for run in runs)


def test_two_kills_lose_repeat_and_double_nothing(job_file: Path, tmp_path: Path) -> None:
    process = start("search", str(job_file), "--trials", str(TRIALS), store=tmp_path)
    before = wait_for_trials(tmp_path, 2, process)
    kill(process)
    process = start("resume", store=tmp_path)
    between = wait_for_trials(tmp_path, len(before) + 2, process)
    kill(process)
    assert between[: len(before)] == before or {r.number for r in before} <= {r.number for r in between}
    process = start("resume", store=tmp_path)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    after = {r.number: r for r in open_result(None, Store(tmp_path)).study.records()}
    assert sorted(after) == list(range(TRIALS))
    assert all(after[r.number] == r for r in [*before, *between])
    assert logged_trials(tmp_path) == Counter(range(TRIALS))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(job_file: Path, tmp_path: Path) -> None:
    process = start("search", str(job_file), store=tmp_path)
    done = wait_for_trials(tmp_path, 3, process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Go on with: paretrim resume tiny-1" in output
    assert "Traceback" not in output
    kept = {r.number: r for r in open_result(None, Store(tmp_path)).study.records()}
    assert all(kept[r.number] == r for r in done)
    assert not open_result(None, Store(tmp_path)).test_scores
