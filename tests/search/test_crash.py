"""SIGKILL to whatever takes part in a search, Ctrl-C, and a full disk: no finished trial is lost, repeated or logged twice."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where the benchmarks lie

from benchmarks.chaos import CTRL_C, DISK, DRIVER, Chaos, Plan, unleash
from benchmarks.chaos_processes import ACTOR, GCS, MEASURING, RAYLET

TRIALS = 4
PATIENCE_S = 180.0


@pytest.fixture
def job(job_file: Path, tmp_path: Path) -> Path:
    """A job whose candidates are previewed, and whose best point is trained longer in the end."""
    document = yaml.safe_load(job_file.read_text())
    document |= {
        "budget": {"trials": TRIALS, "parallel": 2},
        "search": {"warm_start": False, "finals": {"points": 1, "seeds": 1}},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def strike(job: Path, *kinds: str) -> Chaos:
    """Deal these blows to one search, and check all that must hold of it."""
    chaos, wrong, _ = unleash(Plan(kinds, TRIALS, 2.0, PATIENCE_S, 0), job)
    assert not wrong, wrong
    assert [blow.kind for blow in chaos.blows] == list(kinds)
    return chaos


def test_a_search_survives_the_death_of_its_driver_and_of_a_trial(job: Path) -> None:
    chaos = strike(job, DRIVER, ACTOR)
    by_kind = {blow.kind: blow.effect for blow in chaos.blows}
    assert by_kind[DRIVER] == "ended; resumed"
    assert by_kind[ACTOR].startswith("went on")
    assert chaos.runs == 2


@pytest.mark.slow
def test_a_search_survives_all_of_it(job: Path) -> None:
    chaos = strike(job, CTRL_C, DRIVER, MEASURING, GCS, DRIVER, DISK, ACTOR, RAYLET, CTRL_C, DRIVER)
    (disk,) = (blow.effect for blow in chaos.blows if blow.kind == DISK)
    assert "cannot be written" in disk


@pytest.mark.slow
def test_a_search_whose_whole_group_is_ended_ends_in_order(job: Path, tmp_path: Path) -> None:
    # As batch systems and `timeout` do: SIGTERM to every process, to some of them twice.
    command = [sys.executable, "-m", "paretrim", "search", str(job), "--store", str(tmp_path / "store")]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    until_told = itertools.takewhile(lambda line: not line.startswith("trial 2 "), process.stdout)
    said = "".join(until_told)
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    said += process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert "stopped; what is done is kept. Go on with: paretrim resume" in said
    assert "Error" not in said
    assert "Ray" not in said
