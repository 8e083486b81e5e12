"""What searches hold, and what is let go of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretrim.errors import ArtifactError
from paretrim.search import engine, housekeeping
from paretrim.search.cli import app
from paretrim.search.monitor import Silence
from paretrim.search.replay import replay
from paretrim.search.result import Result, artifact_of, open_result
from paretrim.search.store import Store


@pytest.fixture
def mine(finished: Result, tmp_path: Path) -> Result:
    """A copy of a finished search."""
    shutil.copytree(finished.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("mlruns"))
    return open_result(finished.name, Store(tmp_path / "store"))


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
