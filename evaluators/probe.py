"""What runs inside a measuring process. It holds numpy and the runtime, and nothing else of weight."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from paretrim.evaluators.statistics import median_interval
from paretrim.evaluators.target import Array, Session, TargetAddress

_WARM_UP_S = 0.15
_BLOCK_S = 0.004
_LEAST_BLOCKS = 25
_MOST_BLOCKS = 150
_BUDGET_S = 3.0
_NARROW = 0.01
_MEMORY_CALLS = 20


def main() -> None:
    """Answer the question of the command line about the request on standard input."""
    request = json.load(sys.stdin)
    answer = {"latency": latency, "memory": memory}[sys.argv[1]](request)
    json.dump(answer, sys.stdout)


def latency(request: dict[str, Any]) -> dict[str, Any]:
    """Time a model and the baseline in turns.

    Calls are grouped in blocks of a few milliseconds; a block keeps its fastest call, since what disturbs a call only
    makes it slower. Blocks of the two models alternate, so that both meet the same machine.
    """
    target = TargetAddress.from_plain(request["target"])
    _pin(target.settings.threads)
    built = target.build()
    inputs = list(np.load(request["inputs"]))
    candidate, baseline = built.open(Path(request["model"])), built.open(Path(request["baseline"]))
    repeats = {id(session): _repeats(session, inputs) for session in (candidate, baseline)}
    blocks: list[tuple[float, float]] = []
    calls: list[float] = []
    started = time.perf_counter()
    while len(blocks) < _MOST_BLOCKS:
        ours = _block(candidate, inputs, repeats[id(candidate)])
        theirs = _block(baseline, inputs, repeats[id(baseline)])
        calls += ours
        blocks.append((min(ours), min(theirs)))
        if len(blocks) >= _LEAST_BLOCKS and (_narrow(blocks) or time.perf_counter() - started > _BUDGET_S):
            break
    return _latency_answer(blocks, calls)


def memory(request: dict[str, Any]) -> dict[str, Any]:
    """Serve a model and return this process's peak resident memory since it began to load it."""
    built = TargetAddress.from_plain(request["target"]).build()
    built.version()  # imports the runtime, which is not the model's doing
    inputs = list(np.load(request["inputs"]))
    _forget_peak()
    session = built.open(Path(request["model"]))
    for i in range(_MEMORY_CALLS):
        session(inputs[i % len(inputs)])
    return {"peak_bytes": _peak_bytes()}


def _latency_answer(blocks: list[tuple[float, float]], calls: list[float]) -> dict[str, Any]:
    ours = np.array([block[0] for block in blocks])
    ratios = np.array([a / b for a, b in blocks])
    value, low, high = median_interval(ours)
    ratio, ratio_low, ratio_high = median_interval(ratios)
    p50, p90, p99 = (float(p) for p in np.percentile(calls, (50, 90, 99)))
    return {
        "latency_s": (value, low, high),
        "ratio": (ratio, ratio_low, ratio_high),
        "p50_s": p50,
        "p90_s": p90,
        "p99_s": p99,
        "blocks": len(blocks),
        "calls": len(calls),
    }


def _narrow(blocks: list[tuple[float, float]]) -> bool:
    value, low, high = median_interval(np.array([a / b for a, b in blocks]))
    return (high - low) / 2 < _NARROW * value


def _repeats(session: Session, inputs: list[Array]) -> int:
    """Warm up, and return how many calls fill a block."""
    started, calls, fastest = time.perf_counter(), 0, float("inf")
    while time.perf_counter() - started < _WARM_UP_S or calls < 5:
        before = time.perf_counter()
        session(inputs[calls % len(inputs)])
        fastest = min(fastest, time.perf_counter() - before)
        calls += 1
    return max(1, round(_BLOCK_S / fastest))


def _block(session: Session, inputs: list[Array], repeats: int) -> list[float]:
    times = []
    for i in range(repeats):
        batch = inputs[i % len(inputs)]
        before = time.perf_counter()
        session(batch)
        times.append(time.perf_counter() - before)
    return times


def _pin(threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def _forget_peak() -> None:
    # Importing the runtime peaks higher than a small model does; Linux can forget a peak.
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak memory of a process")


if __name__ == "__main__":
    main()
