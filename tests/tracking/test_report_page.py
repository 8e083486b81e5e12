from __future__ import annotations

from dataclasses import replace

from paretrim.tracking.constraints import parse
from paretrim.tracking.report_page import report_page
from paretrim.tracking.testing import sample_record, sample_summary

RECORDS = [
    sample_record(0, accuracy=0.9, latency_ms=1.0, size_bytes=200_000.0),
    sample_record(1, kind="float16", accuracy=0.9, latency_ms=1.0, size_bytes=100_000.0),
    sample_record(3, accuracy=0.89, latency_ms=0.25, size_bytes=20_000.0),
    sample_record(5, state="failed", cause="the training loss is nan"),
]


def test_the_page_says_what_was_gained_shows_a_picture_and_is_small() -> None:
    constraints = (parse("accuracy >= baseline - 0.05"),)
    summary = replace(sample_summary(RECORDS, constraints=constraints), constraints=constraints, picked=3)
    text = report_page(summary)
    assert "Trial 3 of 4 has a validation accuracy of 0.8900 where the uncompressed model has 0.9000" in text
    assert "latency 4.0 times less" in text
    assert "<td>plain float16</td>" in text
    assert "<td>accuracy &gt;= baseline - 0.05</td>" in text
    assert "<svg" in text
    assert "<?xml" not in text
    assert len(text) < 300_000


def test_it_fetches_nothing_and_runs_nothing() -> None:
    text = report_page(sample_summary(RECORDS, job="<script>alert(1)</script>"))
    assert "<script" not in text
    assert "@import" not in text
    assert 'href="http' not in text.replace('xlink:href="http://www.w3.org', "")


def test_where_nothing_is_picked_that_is_said() -> None:
    assert "none of them is within what is exported by default" in report_page(sample_summary(RECORDS))
