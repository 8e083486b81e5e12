"""A preflight: the ends of a space through the whole path of a trial, and what its budget would take."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from paretrim.errors import LoweringError
from paretrim.search import preflight, preflight_words
from paretrim.search.cli import app
from paretrim.search.forecast import Estimate, too_much
from paretrim.search.job import Job
from paretrim.search.preflight import Checked
from paretrim.search.store import Store

from .conftest import tiny_job


def a_job(**changes: object) -> Job:
    return tiny_job(**{"search": {"finals": {"points": 2, "seeds": 2}}, **changes})


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checked, Path]:
    """A job that is in order but for two bounds and its time limit."""
    root = tmp_path_factory.mktemp("none") / "store"
    job = a_job(
        constraints=["size_bytes <= 0.5% of baseline"],
        budget={"trials": 6, "parallel": 2, "trial_minutes": 1e-4, "training_seconds": 1e-4},
    )
    return preflight.check(job, Store(root), lambda _: None), root


def test_the_ends_of_the_space_go_the_whole_path(checked: tuple[Checked, Path]) -> None:
    baseline, largest, smallest = checked[0].attempts
    assert [each.name for each in checked[0].attempts] == ["baseline", "largest", "smallest"]
    assert not any(each.cause for each in checked[0].attempts)
    for each in checked[0].attempts:
        assert each.metrics["accuracy"] == pytest.approx(each.torch_score, abs=0.1)
        assert each.metrics["latency_ms"] > 0
        assert each.artifact_bytes == each.metrics["size_bytes"]
    assert smallest.metrics["size_bytes"] < 0.2 * largest.metrics["size_bytes"]
    assert largest.metrics["size_bytes"] == pytest.approx(baseline.metrics["size_bytes"], rel=0.05)
    assert baseline.epoch_s == 0.0
    assert smallest.epoch_s > 0.0


def test_what_would_fail_is_a_problem_and_what_would_end_early_a_warning(checked: tuple[Checked, Path]) -> None:
    bound, limit = checked[0].problems
    assert "'size_bytes <= 0.5% of baseline'" in bound
    assert "cannot be met" in bound
    assert limit.startswith("budget.trial_minutes is 0.0001, and the longest trial takes about")
    (seconds,) = (text for text in checked[0].warnings if "budget" in text)
    assert seconds.startswith("budget.training_seconds is 0.0001, in which about 0 of 6 trials end")


def test_it_leaves_nothing_in_the_store(checked: tuple[Checked, Path]) -> None:
    assert not checked[1].exists()


def test_the_estimate_counts_all_trials_and_the_last_phase(checked: tuple[Checked, Path]) -> None:
    found = checked[0].estimate
    assert found is not None
    ends = [each for each in checked[0].attempts if each.name != "baseline"]
    epoch_s = sum(each.epoch_s for each in ends) / 2
    assert found.training_s == pytest.approx(epoch_s * (6 + 4 * 2))  # one epoch each, and in the last phase two
    assert found.wall_s == pytest.approx((found.training_s + 10 * sum(e.other_s for e in ends) / 2) / 2)


def test_a_disk_that_is_too_small_is_a_problem(checked: tuple[Checked, Path], tmp_path: Path) -> None:
    wanted = Estimate(1.0, 1.0, 1.0, 10**18)
    (problem,) = too_much(a_job(), wanted, Store(tmp_path / "not" / "there"))
    assert "1000000000.0 GB" in problem


def test_it_reads_well(checked: tuple[Checked, Path]) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    for part in preflight_words.lines(a_job(), checked[0]):
        console.print(part)
    text = console.export_text()
    assert "problem: " in text
    assert "6 trials and 4 in the last phase take about" in text
    assert "2 problems: a search of this job would fail or disappoint" in text
    for part in preflight_words.lines(a_job(), replace(checked[0], problems=())):
        console.print(part)
    assert "no problems: `paretrim search` can run this job" in console.export_text()


def test_what_fails_under_way_is_told_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "raise").touch()
    monkeypatch.setenv("PARETRIM_TEST_FAULTS", str(faults))
    found = preflight.check(a_job(model="tiny:faulty_model"), Store(tmp_path / "store"), lambda _: None)
    assert any("the augmentation tripped over its own feet" in problem for problem in found.problems)


def test_a_model_that_does_not_export_ends_it(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="export"):
        preflight.check(a_job(model="unexportable:model"), Store(tmp_path), lambda _: None)


def test_the_command_ends_with_2_where_a_search_would_fail(
    checked: tuple[Checked, Path], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check", lambda *_: checked[0])
    done = CliRunner().invoke(app, ["check", str(job_file)])
    assert done.exit_code == 2
    assert "problem: " in done.output
    monkeypatch.setattr(preflight, "check", lambda *_: replace(checked[0], problems=()))
    assert CliRunner().invoke(app, ["check", str(job_file)]).exit_code == 0
