"""What searches hold, and what is let go of."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretrim.errors import ArtifactError
from paretrim.evaluators.measurement import Measurement
from paretrim.search import engine, housekeeping
from paretrim.search.cli import app
from paretrim.search.monitor import Silence
from paretrim.search.replay import replay
from paretrim.search.result import Result, artifact_of, open_result
from paretrim.search.store import Store
from paretrim.tracking.front import trial_front
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import Final, at_its_best

from .conftest import a_search, tiny_job


@pytest.fixture
def mine(finished: Result, tmp_path: Path) -> Result:
    """A copy of a finished search, whose latencies count however busy the machine was."""
    shutil.copytree(finished.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("mlruns"))
    copy = open_result(finished.name, Store(tmp_path / "store"))
    copy.keep_finals({each.sha256: undisturbed(each) for each in copy.records if each.complete})
    return copy


def undisturbed(record: TrialRecord) -> Final:
    named = {each.name: each for each in record.measurements}
    return Final(named["latency_ms"], named["latency_ratio"], crowded=False)


def off_the_front(result: Result) -> set[str]:
    shown = {row.sha256 for row in (result.require_report().baseline, *result.require_report().front)}
    return {r.sha256 for r in result.records if r.complete} - shown


def test_what_is_off_the_front_goes_and_all_else_stays(mine: Result) -> None:
    before = housekeeping.holding(mine)
    assert before.others == len(off_the_front(mine)) > 0
    assert housekeeping.free(mine) == before.other_bytes > 0
    after = housekeeping.holding(mine)
    assert (after.others, after.other_bytes, after.kept_bytes) == (0, 0, before.kept_bytes)
    for row in mine.require_report().front:
        artifact_of(mine, row.trial).read()


def test_a_limit_leaves_so_much(mine: Result) -> None:
    before = housekeeping.holding(mine)
    freed = housekeeping.free(mine, before.other_bytes - 1)
    assert 0 < freed < before.other_bytes or before.others == 1
    assert housekeeping.holding(mine).others == before.others - 1
    assert housekeeping.free(mine, before.other_bytes) == 0


def test_of_what_was_disturbed_only_what_may_come_onto_the_front_stays(mine: Result, tmp_path: Path) -> None:
    base, *others = [each for each in mine.records if each.complete]
    quick, hopeless, hopeful = (replace(each, kind="search") for each in others[:3])
    said = [
        told(base, accuracy=0.9, latency_ms=2.0),
        told(quick, accuracy=0.8, latency_ms=1.0),
        told(hopeless, accuracy=0.7, latency_ms=1.5, low_ms=1.2, latency_crowded=1.0),
        told(hopeful, accuracy=0.7, latency_ms=1.5, low_ms=0.5, latency_crowded=1.0),
    ]
    result = a_search(Store(tmp_path / "disturbed"), said, tiny_job(objectives=["accuracy", "latency_ms"]))
    result.folder.artifacts.symlink_to(mine.folder.artifacts)
    assert {each.sha256 for each in result.records} & off_the_front(result) == {hopeless.sha256, hopeful.sha256}
    assert housekeeping.free(result) > 0
    left = {path.name.partition(".")[0] for path in result.folder.artifacts.iterdir()}
    assert {each.sha256 for each in said} & left == {base.sha256, quick.sha256, hopeful.sha256}


def told(record: TrialRecord, *, low_ms: float | None = None, **values: float) -> TrialRecord:
    """Return a trial as if other numbers had been measured."""
    crowded = {"latency_crowded": 0.0, **values}
    found = [Measurement(name, value, low_ms if name == "latency_ms" else None) for name, value in crowded.items()]
    others = [each for each in record.measurements if each.name not in crowded]
    return replace(record, measurements=(*others, *found))


def trimmed(result: Result, keep_mb: float) -> int:
    storage = result.job.storage.model_copy(update={"keep_mb": keep_mb})
    job = result.job.model_copy(update={"storage": storage})
    return housekeeping.trim(job, result.records, result.objectives, result.folder)


def grow_old(result: Result, *, but: str = "") -> None:
    for path in result.folder.artifacts.iterdir():
        if not but or not path.name.startswith(but):
            os.utime(path, (1.0, 1.0))


def test_while_a_search_runs_what_may_come_onto_the_front_stays_too(mine: Result) -> None:
    grow_old(mine)
    hopeful = [at_its_best(each) for each in mine.records]
    near = {each.sha256 for each in trial_front(hopeful, mine.objectives, mine.job.bounds, disturbed=True)}
    assert trimmed(mine, 0.0) > 0
    there = {path.name.partition(".")[0] for path in mine.folder.artifacts.iterdir()}
    assert near <= there
    assert there.isdisjoint(off_the_front(mine) - near)
    for row in (mine.require_report().baseline, *mine.require_report().front):
        assert row.sha256 in there


def test_while_a_search_runs_what_was_made_just_now_stays(mine: Result) -> None:
    assert trimmed(mine, 0.0) == 0
    off = sorted(off_the_front(mine))
    grow_old(mine, but=off[0])
    trimmed(mine, 0.0)
    assert list(mine.folder.artifacts.glob(f"{off[0]}.*"))


def test_while_a_search_runs_the_limit_counts(mine: Result) -> None:
    grow_old(mine)
    assert trimmed(mine, 1000.0) == 0


@pytest.mark.slow
def test_a_search_bounds_what_it_keeps_while_it_runs(
    one_ray: None, mine: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_old(mine)
    job = mine.job.model_dump(mode="json")
    mine.reopen().note("job", {**job, "storage": {**job["storage"], "keep_mb": 0.0}})
    before, trials = off_the_front(mine), len(mine.records) + 1
    monkeypatch.setattr(engine, "_let_go", lambda *_: None)  # so that only the driver can have done it
    again = engine.go_on(mine.name, mine.store, Silence(), {"trials": trials})
    there = {path.name.partition(".")[0] for path in again.folder.artifacts.iterdir()}
    assert len(before & there) < len(before)
    assert {row.sha256 for row in again.require_report().front} <= there


def test_what_was_let_go_is_made_again_to_the_bit_and_exported(mine: Result, tmp_path: Path) -> None:
    housekeeping.free(mine)
    gone = next(r for r in mine.records if r.complete and r.sha256 in off_the_front(mine))
    with pytest.raises(ArtifactError, match=f"make it again with: paretrim replay {mine.name} {gone.number}"):
        artifact_of(mine, gone.number)
    assert replay(mine, gone.number, print).same
    assert mine.export(tmp_path / "bundle", trial=gone.number).sha256 == gone.sha256


@pytest.mark.slow
def test_a_search_goes_on_after_it(one_ray: None, mine: Result) -> None:
    housekeeping.free(mine)
    trials = len(mine.records) + 1
    again = engine.go_on(mine.name, mine.store, Silence(), {"trials": trials})
    assert len(again.records) == trials
    assert again.require_report().front


def test_the_command_shows_and_frees(mine: Result) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["gc", *words, "--store", str(mine.store.root)])
        assert done.exit_code == 0, done.output
        return done.output

    (before,) = json.loads(run("--json"))
    assert "`paretrim gc --free` deletes" in " ".join(run().split())
    assert housekeeping.holding(mine).other_bytes == before["other_bytes"]
    (after,) = json.loads(run("--free", "--json"))
    assert (after["freed_bytes"], after["other_bytes"]) == (before["other_bytes"] + before["scratch_bytes"], 0)


def test_a_search_that_runs_is_left_alone(mine: Result) -> None:
    with mine.folder.driven():
        assert housekeeping.let_go(mine) is None
    assert housekeeping.holding(mine).others > 0
