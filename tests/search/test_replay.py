"""`paretrim replay`: a trial's artifact again, from its recipe and seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from paretrim.errors import ResumeError, UsageError
from paretrim.search import replay as module
from paretrim.search.cli import app
from paretrim.search.replay import Replayed, replay
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.tracking.records import THREADS
from paretrim.tracking.testing import sample_record

from .conftest import a_search, tiny_job

TRIAL = 4


@pytest.fixture(scope="module")
def made(finished: Result) -> Replayed:
    return replay(finished, TRIAL, print)


def test_it_is_the_same_file_to_the_bit(finished: Result, made: Replayed) -> None:
    assert made.record == finished.study.records()[TRIAL]
    assert made.same
    assert made.artifact.path.read_bytes() == finished.folder.artifacts.joinpath(made.artifact.path.name).read_bytes()
    assert made.score == pytest.approx(made.logged)


def test_it_computes_with_the_threads_of_the_trial_and_gives_them_back(made: Replayed) -> None:
    assert made.threads == int(made.record.environment[THREADS])
    with module._threads(3):
        assert torch.get_num_threads() == 3
    with module._threads(None):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


def test_another_file_is_told_from_the_recorded_one(made: Replayed) -> None:
    assert not replace(made, record=replace(made.record, sha256="0" * 64)).same


@pytest.mark.parametrize("number", [6, -1])
def test_a_trial_that_there_is_not(finished: Result, number: int) -> None:
    with pytest.raises(UsageError, match=f"trial {number} of tiny-1 cannot be made again: it has no such trial"):
        replay(finished, number, print)


def test_a_trial_that_failed_before_it_had_an_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = [sample_record(0), sample_record(1, state="failed", cause="the training loss is nan")]
    with pytest.raises(UsageError, match="that trial failed: the training loss is nan"):
        replay(a_search(store, records, tiny_job()), 1, print)


def test_a_changed_model_is_refused(finished: Result) -> None:
    true = finished.study.noted("fingerprints")
    finished.study.note("fingerprints", {**true, "model": "another"})
    try:
        with pytest.raises(ResumeError, match="its model changed"):
            replay(finished, TRIAL, print)
    finally:
        finished.study.note("fingerprints", true)


@pytest.mark.parametrize(("same", "code"), [(True, 0), (False, 1)])
def test_the_command_says_whether_it_is_the_same(
    finished: Result, made: Replayed, same: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made.record if same else replace(made.record, sha256="0" * 64)
    monkeypatch.setattr(module, "replay", lambda result, trial, say: replace(made, record=record))
    arguments = ["replay", finished.name, str(TRIAL), "--store", str(finished.store.root)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == code
    name = made.artifact.sha256[:16]
    if same:
        assert f"trial 4 of tiny-1 made again: the same file, {name}..., to the bit" in done.stdout
    else:
        assert f"another file, {name}... instead of 0000000000000000...; it scores {made.score:.4f}" in done.stdout
        assert "the number of threads (1 then)" in done.stdout
