"""Latency: one call of the artifact, in a process of its own, beside the baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement

_MS = 1e3
# While others use the machine, a number counts only when its interval is this narrow (half of it, as a share) and its
# layouts lie this close together; otherwise the fastest calls may not have been undisturbed ones.
_NARROW, _CLOSE = 0.03, 0.10
_ATTEMPTS = 3
_PAUSE_S = 2.0
_TIMES = ("p50", "p90", "p99", "min", "mean", "std")


@dataclass(frozen=True)
class Timed:
    """One model's times, taken in turns with others.

    Attributes:
        latency_ms: Mean of the fastest third of the layouts, with its 95% interval.
        ratio: To the first model of the contest, with its 95% interval.
        times_ms: Of single calls: p50, p90, p99, min, mean, std.
        layouts: How often the model was loaded anew.
        calls: Calls that the percentiles are of.
        crowded: Whether others disturbed it too much for it to count.
    """

    latency_ms: tuple[float, float, float]
    ratio: tuple[float, float, float]
    times_ms: dict[str, float]
    layouts: int
    calls: int
    crowded: bool


@dataclass(frozen=True)
class Contest:
    """What a measuring process found.

    Attributes:
        models: The times of each model.
        throughput: Samples per second by batch size, of the last model.
        foreign_cores: Cores that others kept busy meanwhile; None where the system does not tell.
        steal_share: Share of processor time that the hypervisor gave to others, likewise.
    """

    models: tuple[Timed, ...]
    throughput: dict[int, float]
    foreign_cores: float | None
    steal_share: float | None

    @property
    def crowded(self) -> bool:
        """Whether any of the models was disturbed too much."""
        return any(timed.crowded for timed in self.models)


class LatencyEvaluator:
    """Times calls of one batch.

    ``latency_ms`` is the ratio to the baseline, timed in turns with it, times the baseline's latency when the search
    began: the ratio holds where the machine's speed does not. What the clock showed is ``latency_raw_ms``.
    """

    metrics: ClassVar[tuple[str, ...]] = ("latency_ms", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms")

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the latency, its percentiles, its ratio to the baseline, the throughput, and who else was there."""
        found, attempts = time_quietly((bench.baseline, specimen.model), bench, throughput=True)
        return (*_latencies(found.models[-1], bench), *_throughputs(found), *_circumstances(found, attempts))


def time_quietly(models: Sequence[Path], bench: Bench, *, throughput: bool = False) -> tuple[Contest, int]:
    """Time models in turns; again, after a pause, while others disturb it too much.

    Args:
        models: Model files; ratios are to the first.
        bench: Where to time them.
        throughput: Whether to take the last model's throughput.

    Returns:
        The least disturbed contest, and how many there were.
    """
    found: list[Contest] = []
    while True:
        found.append(_time(models, bench, throughput))
        if not found[-1].crowded or len(found) == _ATTEMPTS:
            break
        # Outside the lane: whoever waits for it may be less sensitive, and what disturbs may be gone by then.
        time.sleep(_PAUSE_S)
    return min(found, key=lambda contest: (contest.crowded, _worst_width(contest))), len(found)


def _time(models: Sequence[Path], bench: Bench, throughput: bool) -> Contest:
    request = {
        "target": bench.address.to_plain(),
        "models": [str(model) for model in models],
        "inputs": str(bench.inputs),
        "cores": list(bench.cores),
        "throughput": list(bench.throughput_batches) if throughput else [],
    }
    with bench.lane.measuring() as alone:
        answer = ask("latency", request)
    disturbed = bool(answer["others_present"]) or not alone
    return Contest(
        models=tuple(_timed(each, disturbed) for each in answer["models"]),
        throughput={int(size): float(value) for size, value in answer["throughput"].items()},
        foreign_cores=answer["crowd"]["foreign_cores"],
        steal_share=answer["crowd"]["steal_share"],
    )


def _timed(answer: dict[str, Any], disturbed: bool) -> Timed:
    value, low, high = (t * _MS for t in answer["latency_s"])
    ratio, ratio_low, ratio_high = answer["ratio"]
    doubtful = (ratio_high - ratio_low) / 2 > _NARROW * ratio or answer["spread"] > _CLOSE
    return Timed(
        latency_ms=(value, low, high),
        ratio=(ratio, ratio_low, ratio_high),
        times_ms={name: answer[f"{name}_s"] * _MS for name in _TIMES},
        layouts=answer["layouts"],
        calls=answer["calls"],
        crowded=disturbed and doubtful,
    )


def _worst_width(contest: Contest) -> float:
    return max((timed.ratio[2] - timed.ratio[1]) / timed.ratio[0] for timed in contest.models)


def _latencies(timed: Timed, bench: Bench) -> tuple[Measurement, ...]:
    return (
        latency_of(timed, bench.reference_ms),
        Measurement("latency_ratio", *timed.ratio, "to the baseline, in turns with it"),
        Measurement("latency_raw_ms", *timed.latency_ms, "as the clock showed it"),
        *(
            Measurement(f"latency_{name}_ms", timed.times_ms[name], how=f"of {timed.calls} calls")
            for name in _TIMES
        ),
    )  # fmt: skip


def latency_of(timed: Timed, reference_ms: float) -> Measurement:
    """Return ``latency_ms``: the ratio to the baseline times the baseline's latency when the search began."""
    value, low, high = (ratio * reference_ms for ratio in timed.ratio)
    how = f"fastest third of {timed.layouts} layouts, as a ratio to the baseline's, times {reference_ms:.4g} ms"
    return Measurement("latency_ms", value, low, high, how)


def _throughputs(found: Contest) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(f"throughput_b{size}_per_s", value, how=f"samples per second, {size} a call")
        for size, value in sorted(found.throughput.items())
    )


def _circumstances(found: Contest, attempts: int) -> tuple[Measurement, ...]:
    crowded = Measurement("latency_crowded", float(found.models[-1].crowded), how="1: too disturbed to count")
    taken = Measurement("latency_attempts", attempts, how="contests until one was undisturbed")
    told = {"foreign_load_cores": found.foreign_cores, "steal_share": found.steal_share}
    others = (Measurement(name, value, how="while it was timed") for name, value in told.items() if value is not None)
    return (crowded, taken, *others)
