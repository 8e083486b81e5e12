"""Latency: one call of the artifact, in a process of its own, beside the baseline."""

from __future__ import annotations

from typing import Any, ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement

_MS = 1e3


class LatencyEvaluator:
    """Times calls of one batch.

    ``latency_ms`` is the median over blocks of each block's fastest call; ``latency_ratio`` is the median of its
    ratios to the baseline's blocks, which alternate with them.
    """

    metrics: ClassVar[tuple[str, ...]] = ("latency_ms", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms")

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the latency, its percentiles and its ratio to the baseline."""
        request = {
            "target": bench.address.to_plain(),
            "model": str(specimen.model),
            "baseline": str(bench.baseline),
            "inputs": str(bench.inputs),
        }
        with bench.lane.measuring() as alone:
            answer = ask("latency", request)
        return _measurements(answer, alone)


def _measurements(answer: dict[str, Any], alone: bool) -> tuple[Measurement, ...]:
    value, low, high = (t * _MS for t in answer["latency_s"])
    how = f"median of {answer['blocks']} block minima, {answer['calls']} calls" + ("" if alone else ", in a crowd")
    percentiles = (
        Measurement(f"latency_{name}_ms", answer[f"{name}_s"] * _MS, how=f"of {answer['calls']} calls")
        for name in ("p50", "p90", "p99")
    )
    ratio, ratio_low, ratio_high = answer["ratio"]
    return (
        Measurement("latency_ms", value, low, high, how),
        *percentiles,
        Measurement("latency_ratio", ratio, ratio_low, ratio_high, "to the baseline, paired by block"),
        Measurement("latency_crowded", 0.0 if alone else 1.0, how="1 when training would not make room"),
    )
