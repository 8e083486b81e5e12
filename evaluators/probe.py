"""What runs inside a measuring process. It holds numpy and the runtime, and nothing else of weight."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from paretrim.evaluators import meters, timing
from paretrim.evaluators.child import kept_output
from paretrim.evaluators.crowd import Watch
from paretrim.evaluators.memory_peak import Rise
from paretrim.evaluators.target import Batch, DeviceTarget, Session, Target, TargetAddress, on_device

_MEMORY_CALLS = 20
_ENERGY_S = 1.0
# On a device each layout is compiled or captured anew, and where things lie matters less.
_DEVICE_LAYOUTS = (5, 15)


def main() -> None:
    """Answer the question of the command line about the request on standard input."""
    question = {"latency": latency, "memory": memory, "weigh": weigh, "energy": energy}[sys.argv[1]]
    with kept_output() as out:
        out.write(json.dumps(_answered(question)).encode())


def _answered(question: Callable[[dict[str, Any], Target], dict[str, Any]]) -> dict[str, Any]:
    request = json.load(sys.stdin)
    if request.get("cores") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    return question(request, TargetAddress.from_plain(request["target"]).build())


def latency(request: dict[str, Any], target: Target) -> dict[str, Any]:
    """Time models against the first of them, and the throughput of the last."""
    inputs = _inputs(request)
    opening = target.open_timed if isinstance(target, DeviceTarget) else target.open
    models: list[Callable[[], Session]] = [lambda path=path: opening(Path(path)) for path in request["models"]]  # type: ignore[misc]
    alone = target.settings.threads == 1 and not on_device(target)
    watch = Watch(computing=alone, gpu=on_device(target))
    rules = timing.Rules(processor_clock=alone)
    if on_device(target):
        rules = replace(rules, layouts=_DEVICE_LAYOUTS)
    if "layouts" in request:
        rules = replace(rules, layouts=tuple(request["layouts"]))
    found = timing.contest(models, inputs, rules)
    crowd = watch.look()
    batches = _batches(inputs, request.get("throughput", ()))
    session = target.open(Path(request["models"][-1]))
    return {
        "models": [_clocked(each, found[0]) for each in found],
        "crowd": asdict(crowd),
        "others_present": crowd.present(),
        "throughput": {str(len(batch[0])): timing.throughput(session, batch) for batch in batches},
    }


def memory(request: dict[str, Any], target: Target) -> dict[str, Any]:
    """Serve a model, and return by how much this process's memory rose from the moment before it was loaded."""
    target.version()  # imports the runtime, which is not the model's doing
    inputs = _inputs(request)
    target.forget_device_peak()
    rise = Rise()
    session = target.open(Path(request["model"]))
    for i in range(_MEMORY_CALLS):
        session(*inputs[i % len(inputs)])
    account = target.account if isinstance(target, DeviceTarget) else "peak on the device"
    return {"peak_bytes": rise.peak_bytes(), "device": target.device_peak(), "account": account}


def weigh(request: dict[str, Any], target: Target) -> dict[str, Any]:
    """Return what a model file stores, and what the runtime holds of it."""
    return asdict(target.weigh(Path(request["model"])))


def energy(request: dict[str, Any], target: Target) -> dict[str, Any]:
    """Return the energy of a call above that of the idle machine, from all meters that can be read."""
    inputs = _inputs(request)
    session = target.open(Path(request["model"]))
    timing.warm_up(session, inputs)
    found = meters.readable()
    idle, idle_s, _ = _metered(found, lambda _: time.sleep(0.01))
    used, busy_s, calls = _metered(found, lambda calls: session(*inputs[calls % len(inputs)]))
    watts = idle / idle_s
    return {
        "meters": ", ".join(meter.name for meter in found),
        "joules_per_call": (used - watts * busy_s) / calls,
        "idle_watts": watts,
        "calls": calls,
    }


def _metered(found: list[meters.Meter], act: Callable[[int], object]) -> tuple[float, float, int]:
    """Return joules, seconds, and how often something was done."""
    before = [meter.read() for meter in found]
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < _ENERGY_S:
        act(calls)
        calls += 1
    return meters.joules(found, before), time.perf_counter() - started, calls


def _clocked(clocked: timing.Clocked, first: timing.Clocked) -> dict[str, Any]:
    calls = np.array(clocked.calls)
    p50, p90, p99 = (float(p) for p in np.percentile(calls, (50, 90, 99)))
    return {
        "latency_s": (clocked.latency_s, *clocked.interval_s()),
        "ratio": clocked.ratio(first),
        "spread": clocked.spread(),
        "p50_s": p50,
        "p90_s": p90,
        "p99_s": p99,
        "min_s": float(calls.min()),
        "mean_s": float(calls.mean()),
        "std_s": float(calls.std()),
        "layouts": len(clocked.floors),
        "calls": len(calls),
        "how": clocked.how,
    }


def _inputs(request: dict[str, Any]) -> list[Batch]:
    """Return different batches of all inputs."""
    with np.load(request["inputs"]) as file:
        return list(zip(*(file[name] for name in file.files), strict=True))


def _batches(inputs: list[Batch], sizes: tuple[int, ...]) -> list[Batch]:
    samples = [np.concatenate(part) for part in zip(*inputs, strict=True)]
    return [tuple(np.resize(part, (size, *part.shape[1:])) for part in samples) for size in sizes]


if __name__ == "__main__":
    main()
