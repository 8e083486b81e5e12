"""SIGKILL to the driver at any moment: `resume` loses, repeats and logs nothing twice. Ctrl-C ends a search in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
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
        time.sleep(0.5)  # each look takes time from the search
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


def by_number(store: Path) -> dict[int, TrialRecord]:
    return {record.number: record for record in open_result(None, Store(store)).study.records()}


def interrupt(process: subprocess.Popen[str]) -> str:
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    return output


def finish(store: Path) -> dict[int, TrialRecord]:
    """Let a search go on to its end."""
    process = start("resume", store=store)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    return by_number(store)


def test_a_kill_and_ctrl_c_lose_repeat_and_double_nothing(job_file: Path, tmp_path: Path) -> None:
    process = start("search", str(job_file), "--trials", str(TRIALS), store=tmp_path)
    wait_for_trials(tmp_path, 1, process)
    kill(process)
    before = list(by_number(tmp_path).values())
    process = start("resume", store=tmp_path)
    between = wait_for_trials(tmp_path, len(before) + 1, process)
    output = interrupt(process)
    assert "Go on with: paretrim resume tiny-1" in output
    assert "Traceback" not in output
    assert not open_result(None, Store(tmp_path)).test_scores
    kept = by_number(tmp_path)
    assert all(kept[r.number] == r for r in [*before, *between])
    after = finish(tmp_path)
    assert sorted(after) == list(range(TRIALS))
    assert all(after[number] == record for number, record in kept.items())
    assert logged_trials(tmp_path) == Counter(range(TRIALS))


@pytest.mark.slow
def test_kills_at_each_trial_lose_repeat_and_double_nothing(job_file: Path, tmp_path: Path) -> None:
    seen: list[TrialRecord] = []
    for number in range(1, TRIALS - 1):
        arguments = ("search", str(job_file), "--trials", str(TRIALS)) if number == 1 else ("resume",)
        process = start(*arguments, store=tmp_path)
        seen += wait_for_trials(tmp_path, number, process)
        kill(process)
    after = finish(tmp_path)
    assert sorted(after) == list(range(TRIALS))
    assert all(after[r.number] == r for r in seen)
    assert logged_trials(tmp_path) == Counter(range(TRIALS))
