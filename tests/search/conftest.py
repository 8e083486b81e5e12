"""Real searches, each run once for all tests that look at its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from paretrim.evaluators.signature import Signature
from paretrim.search import head, prepare
from paretrim.search.api import search
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.result import Result, objectives_of
from paretrim.search.space import Space
from paretrim.search.store import JobFolder, Store
from paretrim.search.study import SCHEMA, Study
from paretrim.spaces.anatomy import Anatomy, Layer
from paretrim.spaces.dimension import Range
from paretrim.tracking.records import TrialRecord

from .servers import Postgres, running

SUBJECTS = Path(__file__).resolve().parents[1] / "subjects"
SIGNED = {"name": "signed", "runtime": "onnxruntime", "activations": "signed"}
SPACE = Space(
    (),
    Anatomy((Layer("head", 40, True, True),), (), (), Signature.single((4,))),
    (Range("pruning.ratio.stem", 0.0, 0.75, neutral=0.0),),
)


def tiny_job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "name": "tiny",
        "model": "tiny:model",
        "data": "tiny:data",
        "folder": SUBJECTS,
        "space": {"recovery": {"epochs": 1}},
        "budget": {"trials": 6, "parallel": 2},
        "export_tolerance": 0.1,
        # Where a test is not about it, no trial is stopped early or made beyond the budget, and nothing is looked at before.
        "search": {"preview": False, "warm_start": False, "finals": {"points": 0}},
    }
    return Job(**{**given, **changes})


def a_search(store: Store, records: Sequence[TrialRecord], job: Job) -> Result:
    """Return the result of a search that made these trials, in a real study."""
    folder = store.create(job.name)
    study = Study(store.own.study, folder.name, objectives_of(job, maximize=True), job.bounds, job.seed, create=True)
    study.note("schema", SCHEMA)
    study.note("job", job.model_dump(mode="json"))
    study.note("maximize", True)
    store.mark_started(folder)
    by_number = {record.number: record for record in records}
    for number in range(max(by_number, default=-1) + 1):
        study.ask(SPACE)
        if number in by_number:
            study.tell(by_number[number])
    return Result(folder.name, job, store, folder, study)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    """Ray, started once for all searches of this process; each that finds none would start and end its own."""
    with head.started(tiny_job()):
        yield


@pytest.fixture(scope="session")
def finished(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of six trials that ended."""
    strategy = {"preview": False, "finals": {"points": 0}}
    return search(tiny_job(search=strategy), store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def context(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> TrialContext:
    """What the trials of the search of six shared."""
    folder = JobFolder("again", tmp_path_factory.mktemp("again"))
    return prepare.prepare(finished.job, prepare.load(finished.job), folder, finished.study.noted("references"), print)


@pytest.fixture(scope="session")
def several(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A search of four trials on two targets, for a score that is cross-validated."""
    job = tiny_job(
        name="several",
        also=[SIGNED],
        cross_validation=2,
        objectives=["accuracy_cv", "latency_ms", "size_bytes"],
        budget={"trials": 4, "parallel": 2},
    )
    return search(job, store=tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def job_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job as a file, for the command line."""
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(
        f"name: tiny\nmodel: tiny:model\ndata: tiny:data\nfolder: {SUBJECTS}\n"
        "space: {recovery: {epochs: 1}}\nbudget: {trials: 6, parallel: 2}\nexport_tolerance: 0.1\n"
        "search: {preview: false, warm_start: false, finals: {points: 0}}\n"
    )
    return path
