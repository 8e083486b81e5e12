from __future__ import annotations

import random

import pytest

from paretrim.search.monitor import Outline
from paretrim.search.progress import Progress
from paretrim.tracking.constraints import parse
from paretrim.tracking.front import hypervolume
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import build
from paretrim.tracking.testing import OBJECTIVES, sample_record

BOUNDS = (parse("size_bytes <= 90% of baseline"),)


def some_records(count: int, seed: int) -> list[TrialRecord]:
    drawn = random.Random(seed)
    return [
        sample_record(
            number,
            accuracy=round(drawn.uniform(0.8, 1.0), 2),
            latency_ms=drawn.uniform(0.2, 1.5),
            size_bytes=drawn.uniform(1e4, 1.2e5),
            memory_bytes=drawn.uniform(1e6, 3e6),
            latency_crowded=float(drawn.random() < 0.2),
        )
        if number and drawn.random() < 0.9
        else sample_record(number, state="failed" if number else "complete")
        for number in range(count)
    ]


@pytest.mark.parametrize("baseline_at", [0, 7])
@pytest.mark.parametrize("seed", range(3))
def test_one_by_one_gives_what_all_at_once_gives(seed: int, baseline_at: int) -> None:
    records = some_records(60, seed)
    records.insert(baseline_at, records.pop(0))
    progress = Progress()
    progress.begin(Outline("digits-1", "accuracy", OBJECTIVES, BOUNDS, 100, None), records[:5])
    for at, record in enumerate(records[5:], 6):
        progress.finished(record)
        if at % 9 == 0:
            seen = records[:at]
            assert progress.hypervolume == pytest.approx(hypervolume(seen, OBJECTIVES, BOUNDS))
            assert progress.report == build("digits-1", "accuracy", seen, OBJECTIVES, BOUNDS, {})
            assert progress.count("failed") == sum(r.state == "failed" for r in seen)
    assert progress.hypervolume > 0
