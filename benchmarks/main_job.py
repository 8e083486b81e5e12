"""The main job on the bundled example: what the picked point is worth, and what the search costs.

The point picked on validation data (the fastest within one point of the baseline) must be at least 8 times smaller and
2 times faster than the baseline. Its held-out accuracy stands beside that of networks of its shape that were trained
from scratch for as long (the baseline's epochs and the recovery's), which is what one would do without a search.

    python benchmarks/main_job.py [--quick] [--json FILE] [--no-bar]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table

import paretrim
from paretrim.search import prepare
from paretrim.search.context import score_torch
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.search.result import Result
from paretrim.spaces.pruning import StructuredPruning
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.tracking.report import Row

SMALLER, FASTER = 8.0, 2.0
SCRATCH_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Finding:
    """What one search gave.

    Attributes:
        seed: The job's seed.
        trials: Trials that ended.
        front_points: Points of the front.
        hypervolume: Of the front.
        wall_seconds: The whole call, with loading, lowering the baseline and the last scores.
        overhead_ms: Wall time per trial beyond the trials' own work.
        baseline_validation: Accuracy.
        baseline_test: Accuracy.
        validation: Accuracy of the picked point.
        test: Its held-out accuracy.
        scratch_test: Mean held-out accuracy of networks of its shape trained from scratch, in float32.
        smaller: How many times fewer bytes ship.
        faster: How many times less a call takes.
        memory: Ratio of the memory to the baseline's.
    """

    seed: int
    trials: int
    front_points: int
    hypervolume: float
    wall_seconds: float
    overhead_ms: float
    baseline_validation: float
    baseline_test: float
    validation: float
    test: float
    scratch_test: float
    smaller: float
    faster: float
    memory: float


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed rather than three (under 5 minutes)")
    parser.add_argument("--json", type=Path, help="write the findings to a file")
    parser.add_argument("--no-bar", action="store_true", help="print only; do not fail below the bar")
    options = parser.parse_args()
    findings = [measure(seed) for seed in ((0,) if options.quick else (0, 1, 2))]
    show(findings)
    if options.json:
        options.json.write_text(json.dumps([asdict(f) for f in findings], indent=2))
    missed = [f.seed for f in findings if f.smaller < SMALLER or f.faster < FASTER]
    if missed:
        print(f"below the bar ({SMALLER:g} times smaller, {FASTER:g} times faster) with seeds {missed}")
    return int(bool(missed) and not options.no_bar)


def measure(seed: int) -> Finding:
    """Search with a seed, pick, and train networks of the picked shape from scratch."""
    job = load(EXAMPLE).model_copy(update={"seed": seed})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as store:
        result = paretrim.search(job, store=store)
        wall = time.perf_counter() - started
        report, figures, row = result.require_report(), result.figures(), result.pick()
        return Finding(
            seed=seed,
            trials=int(figures["trials"]),
            front_points=len(report.front),
            hypervolume=figures["hypervolume"],
            wall_seconds=wall,
            overhead_ms=figures["overhead_seconds_per_trial"] * 1e3,
            baseline_validation=report.baseline.validation["accuracy"],
            baseline_test=report.baseline.test["accuracy"],
            validation=row.validation["accuracy"],
            test=row.test["accuracy"],
            scratch_test=mean(from_scratch(result, row, s) for s in SCRATCH_SEEDS),
            smaller=1.0 / (row.ratio["size_bytes"] or 1.0),
            faster=1.0 / (row.ratio["latency_ms"] or 1.0),
            memory=row.ratio["memory_bytes"] or 0.0,
        )


def from_scratch(result: Result, row: Row, seed: int) -> float:
    """Return the held-out accuracy of a network of a point's shape, trained from new weights for as long."""
    subject = prepare.load(result.job)
    digits = sys.modules["digits"]
    torch.manual_seed(seed)
    net = digits.DigitsNet().eval()
    cut = next(part for part in subject.space.techniques if isinstance(part, StructuredPruning))
    train = subject.splits.search.train
    schooling = Schooling(
        lambda size, seed: train.batches(size, seed=seed),
        len(train),
        None,
        lambda outputs, labels, _: subject.metric.loss(outputs, labels),
        nullcontext,
    )
    cut.reshape(net, Recipe.of(dict(row.recipe)), subject.space.anatomy, schooling)
    digits.train(net, digits.EPOCHS + int(str(row.recipe["recovery.epochs"])), seed)
    return score_torch(net, subject.splits.test.unseal(), subject.metric)


def show(findings: list[Finding]) -> None:
    """Print the table."""
    table = Table(title="the bundled example: the point picked on validation, beside the baseline")
    names = list(asdict(findings[0]))
    table.add_column("")
    for finding in findings:
        table.add_column(f"seed {finding.seed}", justify="right")
    for name in names[1:]:
        table.add_row(name, *(f"{asdict(f)[name]:.4g}" for f in findings))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
