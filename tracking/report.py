"""The front as a report: rows for people, and a promised JSON shape for programs (docs/front.md)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from paretrim.tracking.constraints import Constraint, misses
from paretrim.tracking.front import Objective, baseline_metrics, trial_front
from paretrim.tracking.knee import knee
from paretrim.tracking.records import BASELINE, TrialRecord, Value
from paretrim.tracking.settled import CROWDED
from paretrim.tracking.ties import ties_of

SCHEMA = 1
# Measured, but not properties of the artifact that could be compared with the baseline's.
_NOT_COMPARED = ("latency_ratio", CROWDED, "latency_attempts", "foreign_load_cores", "steal_share")
_PAIRED = {"latency_ms": "latency_ratio"}


@dataclass(frozen=True)
class Row:
    """One point of the front, or the baseline.

    Attributes:
        trial: Its number.
        kind: ``baseline``, ``float16``, ``int8`` or ``search``.
        recipe: Its values by dimension name.
        validation: The job's metric on validation data.
        test: The same on held-out test data; empty until the search has ended.
        metrics: What else was measured.
        ratio: The same, to the baseline; None where the baseline's is zero.
        sha256: Hash of the artifact.
        interval: The 95% intervals of those of `validation` and `metrics` that have one.
        ties: By objective, the other points of the front that it is not told apart from.
        misses: By how much it misses soft constraints, as a share of each bound, by metric; empty when it meets them.
    """

    trial: int
    kind: str
    recipe: Mapping[str, Value]
    validation: Mapping[str, float]
    test: Mapping[str, float]
    metrics: Mapping[str, float]
    ratio: Mapping[str, float | None]
    sha256: str
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    ties: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    misses: Mapping[str, float] = field(default_factory=dict)

    @property
    def missed(self) -> str:
        """What it misses, in words: ``latency_ms by 12%``."""
        return ", ".join(f"{name} by {_percent(share)}" for name, share in self.misses.items())

    def to_plain(self) -> dict[str, Any]:
        """Return the promised shape."""
        return {
            "trial": self.trial,
            "recipe": dict(self.recipe),
            "validation": dict(self.validation),
            "test": dict(self.test),
            "metrics": dict(self.metrics),
            "ratio": dict(self.ratio),
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "ties": {name: list(others) for name, others in self.ties.items()},
            "misses": dict(self.misses),
        }


@dataclass(frozen=True)
class Report:
    """The front of a search.

    Attributes:
        job: Name of the search.
        metric: Name of the job's metric.
        objectives: What was optimized.
        baseline: The uncompressed model.
        front: The trials that no other trial beats, best in the first objective first.
        knee: Number of the front's trial from which a gain in one objective costs most in the others, see
            tracking/knee.py; None for a front without one.
    """

    job: str
    metric: str
    objectives: tuple[Objective, ...]
    baseline: Row
    front: tuple[Row, ...]
    knee: int | None = None

    def to_json(self) -> str:
        """Return the promised JSON."""
        document = {
            "schema": SCHEMA,
            "job": self.job,
            "baseline": self.baseline.to_plain(),
            "front": [row.to_plain() for row in self.front],
            "knee": self.knee,
        }
        return json.dumps(document, indent=2)

    def to_frame(self) -> pd.DataFrame:
        """Return the front as a table, one row a point."""
        return pd.DataFrame([self._flat(row) for row in self.front])

    def to_csv(self) -> str:
        """Return the baseline and the front as CSV, the baseline first."""
        rows = [self.baseline, *(row for row in self.front if row.trial != self.baseline.trial)]
        csv: str = pd.DataFrame([self._flat(row) for row in rows]).to_csv(index=False)
        return csv

    def _flat(self, row: Row) -> dict[str, Any]:
        return {
            "trial": row.trial,
            "kind": row.kind,
            "knee": row.trial == self.knee,
            **{f"validation_{name}": value for name, value in row.validation.items()},
            **{f"test_{name}": value for name, value in row.test.items()},
            **row.metrics,
            **{f"{name}_ratio": value for name, value in row.ratio.items()},
            **row.recipe,
            "misses": row.missed,
            "sha256": row.sha256,
        }


def build(
    job: str,
    metric: str,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    test_scores: Mapping[str, float],
    alike: Mapping[str, Collection[frozenset[str]]] | None = None,
) -> Report | None:
    """Return the report of a search, or None while its baseline is not done.

    Args:
        job: Name of the search.
        metric: Name of the job's metric.
        records: All trials that ended.
        objectives: What is optimized.
        constraints: What a point must meet, or should where they are soft.
        test_scores: The metric on held-out data by artifact hash.
        alike: By objective, the pairs of artifacts whose scores were compared and not told apart.
    """
    base = next((r for r in records if r.kind == BASELINE and r.complete), None)
    if base is None:
        return None
    reference = baseline_metrics(records)

    def row(record: TrialRecord) -> Row:
        missed = misses(constraints, record.metrics, reference)
        return replace(row_of(record, metric, reference, test_scores), misses=missed)

    chosen = trial_front(records, objectives, constraints)
    ties = ties_of(chosen, objectives, alike or {})
    rows = tuple(replace(row(record), ties=ties[record.number]) for record in chosen)
    bend = knee([record.metrics for record in chosen], objectives, reference)
    return Report(job, metric, tuple(objectives), row(base), rows, None if bend is None else rows[bend].trial)


def row_of(record: TrialRecord, metric: str, base: Mapping[str, float], test_scores: Mapping[str, float]) -> Row:
    """Return the row of a complete trial.

    Args:
        record: The trial.
        metric: Name of the job's metric.
        base: The baseline's measurements.
        test_scores: The metric on held-out data by artifact hash.
    """
    measured = record.metrics
    own = (metric, f"{metric}_torch", f"{metric}_change")
    compared = {name: value for name, value in measured.items() if name not in (*own, *_NOT_COMPARED)}
    return Row(
        trial=record.number,
        kind=record.kind,
        recipe=record.recipe,
        validation={metric: measured[metric]},
        test={metric: test_scores[record.sha256]} if record.sha256 in test_scores else {},
        metrics=compared,
        ratio={name: _ratio(name, measured, base, record.kind) for name in compared},
        sha256=record.sha256,
        interval={
            m.name: (m.low, m.high)
            for m in record.measurements
            if m.low is not None and m.high is not None and m.name in (metric, *compared)
        },
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.01 else "less than 1%"


def _ratio(name: str, measured: Mapping[str, float], base: Mapping[str, float], kind: str) -> float | None:
    if not base.get(name):
        return None
    if kind == BASELINE:
        return 1.0
    # The ratio that was taken in one process, block by block, is better than the quotient of two measurements.
    if name in _PAIRED and _PAIRED[name] in measured:
        return measured[_PAIRED[name]]
    return measured[name] / base[name]
