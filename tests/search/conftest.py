"""A real search, run once for all tests that look at its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretrim.search.api import search
from paretrim.search.job import Job
from paretrim.search.result import Result

SUBJECTS = Path(__file__).resolve().parents[1] / "subjects"


def tiny_job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "name": "tiny",
        "model": "tiny:model",
        "data": "tiny:data",
        "folder": SUBJECTS,
        "space": {"recovery": {"epochs": 1}},
        "budget": {"trials": 6, "parallel": 2},
        "export_tolerance": 0.1,
    }
    return Job(**{**given, **changes})


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of six trials that ended."""
    return search(tiny_job(), store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def job_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job as a file, for the command line."""
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(
        f"name: tiny\nmodel: tiny:model\ndata: tiny:data\nfolder: {SUBJECTS}\n"
        "space: {recovery: {epochs: 1}}\nbudget: {trials: 6, parallel: 2}\nexport_tolerance: 0.1\n"
    )
    return path
