"""Searches with a few trials, of which some points are on the front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paretrim.search.job import Job
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import a_search

COSTS = ("latency_ms", "size_bytes", "memory_bytes")


def a_record(number: int, accuracy: float, latency_ms: float, size: float = 1000.0, **more: float) -> TrialRecord:
    return sample_record(
        number,
        more,
        accuracy=accuracy,
        latency_ms=latency_ms,
        size_bytes=size,
        memory_bytes=size * 10,
        model_bytes=size * 3,
        latency_ratio=latency_ms / 2.0,
    )


# Trials 3, 4 and 5 are on the front, and so is the baseline; 6 is beaten by 4, and 7 failed.
RECORDS = [
    a_record(0, 0.90, 2.0, 9000.0),
    a_record(3, 0.895, 1.0, 4000.0),
    a_record(4, 0.885, 0.5, 3000.0),
    a_record(5, 0.80, 0.2, 1000.0),
    a_record(6, 0.88, 0.9, 5000.0),
    sample_record(7, state="failed", cause="the training loss is nan"),
]


def a_job(**given: Any) -> Job:
    return Job(**{"name": "digits", "model": "mine:model", "data": "mine:data", **given})


def found(store: Path, *records: TrialRecord, **job: Any) -> Result:
    return a_search(Store(store), list(records), a_job(**job))
