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
# While others use the machine, a number counts only when its interval is this narrow (half of it, as a share), its layouts
# lie this close together, and the baseline is hardly slower than it was in the quiet; otherwise there may have been no
# undisturbed call among them, and what shares a cache or a memory bus slows one model down more than another.
_NARROW, _CLOSE, _SLOWER = 0.03, 0.10, 0.04
_ATTEMPTS = 3
# Enough to tell a candidate that is a tenth too slow; what decides between finalists is taken again.
_PREVIEW_LAYOUTS = (3, 3)
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
        doubt: Why it does not count, since others disturbed it too much; empty when it does.
        how: What was timed, where that is not the wall time of calls.
    """

    latency_ms: tuple[float, float, float]
    ratio: tuple[float, float, float]
    times_ms: dict[str, float]
    layouts: int
    calls: int
    doubt: str
    how: str = ""

    @property
    def crowded(self) -> bool:
        """Whether others disturbed it too much for it to count."""
        return bool(self.doubt)


@dataclass(frozen=True)
class Contest:
    """What a measuring process found.

    Attributes:
        models: The times of each model.
        throughput: Samples per second by batch size, of the last model.
        others: Whether anybody else was there to speak of.
        foreign_cores: Cores that others kept busy meanwhile; None where the system does not tell.
        steal_share: Share of processor time that the hypervisor gave to others, likewise.
    """

    models: tuple[Timed, ...]
    throughput: dict[int, float]
    others: bool
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

    def __init__(self) -> None:
        self._quiet_ms: dict[Path, float] = {}

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the latency, its percentiles, its ratio to the baseline, the throughput, and who else was there."""
        quiet_ms = self._quiet_ms.get(bench.baseline, bench.reference_ms)
        found, attempts = time_quietly((bench.baseline, specimen.model), bench, quiet_ms, throughput=True)
        if not found.others:
            # The machine's own speed drifts, with its temperature and what its clocks allow.
            self._quiet_ms[bench.baseline] = found.models[0].latency_ms[0]
        return (*_latencies(found.models[-1], bench), *_throughputs(found), *_circumstances(found, attempts))

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the latency roughly, whoever else is there."""
        found = _time((bench.baseline, specimen.model), bench, None, throughput=False, layouts=_PREVIEW_LAYOUTS)
        return (latency_of(found.models[-1], bench.reference_ms),)


def time_quietly(
    models: Sequence[Path], bench: Bench, quiet_ms: float | None, *, throughput: bool = False
) -> tuple[Contest, int]:
    """Time models in turns; again, after a pause, while others disturb it too much.

    Args:
        models: Model files; ratios are to the first.
        bench: Where to time them.
        quiet_ms: The first model's latency when last nobody else was there; None when that is not known.
        throughput: Whether to take the last model's throughput.

    Returns:
        The least disturbed contest, and how many there were.
    """
    found: list[Contest] = []
    while True:
        found.append(_time(models, bench, quiet_ms, throughput=throughput))
        if not found[-1].crowded or len(found) == _ATTEMPTS:
            break
        # Outside the lane: whoever waits for it may be less sensitive, and what disturbs may be gone by then.
        time.sleep(_PAUSE_S)
    return min(found, key=lambda contest: (contest.crowded, _worst_width(contest))), len(found)


def _time(
    models: Sequence[Path],
    bench: Bench,
    quiet_ms: float | None,
    *,
    throughput: bool,
    layouts: tuple[int, int] | None = None,
) -> Contest:
    request: dict[str, Any] = {
        "target": bench.address.to_plain(),
        "models": [str(model) for model in models],
        "inputs": str(bench.inputs),
        "cores": list(bench.cores),
        "throughput": list(bench.throughput_batches) if throughput else [],
    }
    if layouts is not None:
        request["layouts"] = layouts
    with bench.lane.measuring() as alone:
        answer = ask("latency", request)
    others = bool(answer["others_present"]) or not alone
    first_ms = answer["models"][0]["latency_s"][0] * _MS
    slower = 0.0 if quiet_ms is None else first_ms / quiet_ms - 1.0
    return Contest(
        models=tuple(_timed(each, _doubt(each, slower) if others else "") for each in answer["models"]),
        throughput={int(size): float(value) for size, value in answer["throughput"].items()},
        others=others,
        foreign_cores=answer["crowd"]["foreign_cores"],
        steal_share=answer["crowd"]["steal_share"],
    )


def _doubt(answer: dict[str, Any], slower: float) -> str:
    """Return why a model's times do not count although others were there, or nothing when they do."""
    ratio, low, high = answer["ratio"]
    width = (high - low) / 2 / ratio
    doubts = (
        f"its ratio is known to ±{width:.1%} only" if width > _NARROW else "",
        f"half of its layouts are slower by {answer['spread']:.0%} or more" if answer["spread"] > _CLOSE else "",
        f"the baseline was slower by {slower:.0%} than in the quiet" if slower > _SLOWER else "",
    )
    return "; ".join(filter(None, doubts))


def _timed(answer: dict[str, Any], doubt: str) -> Timed:
    value, low, high = (t * _MS for t in answer["latency_s"])
    ratio, ratio_low, ratio_high = answer["ratio"]
    return Timed(
        latency_ms=(value, low, high),
        ratio=(ratio, ratio_low, ratio_high),
        times_ms={name: answer[f"{name}_s"] * _MS for name in _TIMES},
        layouts=answer["layouts"],
        calls=answer["calls"],
        doubt=doubt,
        how=answer["how"],
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


def latency_of(timed: Timed, reference_ms: float | None) -> Measurement:
    """Return ``latency_ms``: the ratio to the baseline times the baseline's latency when the search began.

    Args:
        timed: Times of one model.
        reference_ms: That latency; while it is not known, what the clock showed counts.
    """
    how = f"fastest third of {timed.layouts} layouts" + (f", {timed.how}" if timed.how else "")
    if reference_ms is None:
        return Measurement("latency_ms", *timed.latency_ms, how)
    value, low, high = (ratio * reference_ms for ratio in timed.ratio)
    return Measurement(
        "latency_ms", value, low, high, f"{how}, as a ratio to the baseline's, times {reference_ms:.4g} ms"
    )


def _throughputs(found: Contest) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(f"throughput_b{size}_per_s", value, how=f"samples per second, {size} a call")
        for size, value in sorted(found.throughput.items())
    )


def _circumstances(found: Contest, attempts: int) -> tuple[Measurement, ...]:
    doubt = found.models[-1].doubt
    crowded = Measurement("latency_crowded", float(bool(doubt)), how=doubt or "1: too disturbed to count")
    taken = Measurement("latency_attempts", attempts, how="contests until one was undisturbed")
    told = {"foreign_load_cores": found.foreign_cores, "steal_share": found.steal_share}
    others = (Measurement(name, value, how="while it was timed") for name, value in told.items() if value is not None)
    return (crowded, taken, *others)
