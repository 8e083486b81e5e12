"""Memory: what a process needs to serve the artifact, beyond what the runtime needs without one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement

# Small models need the same to a few pages in every process. With larger ones it depends on where the allocator's blocks
# come to lie: the same model was seen to need 58 MB in one half of the processes and 62 MB in the other. The most counts,
# and so many processes hardly ever miss it.
_SMALL_BYTES = 8 << 20
_FEW, _MANY = 2, 6
# A runtime that compiles takes long to start; then a few processes must do.
_BUDGET_S = 20.0


@dataclass(frozen=True)
class _Peak:
    """Peaks of one process, in bytes: resident, and on the device where there is one, with how that was told."""

    resident: float
    device: tuple[int, int] | None
    account: str = ""


class MemoryEvaluator:
    """Gives the peak resident memory of serving the model, less that of serving an empty one.

    On a device with memory of its own also that memory's peak, allocated and reserved.
    """

    metrics: ClassVar[tuple[str, ...]] = ("memory_bytes",)

    def __init__(self) -> None:
        self._empty: dict[Path, float] = {}

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the memory: the most that one of several processes needed."""
        peaks = _peaks(specimen.model, bench)
        above = [max(0.0, peak.resident - self._without_model(bench)) for peak in peaks]
        how = f"largest peak of {len(peaks)} processes, above one with an empty model"
        return (Measurement("memory_bytes", max(above), min(above), max(above), how), *_on_device(peaks))

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the memory that one process needed."""
        above = max(0.0, _peak(specimen.model, bench).resident - self._without_model(bench))
        return (Measurement("memory_bytes", above, how="peak of one process, above one with an empty model"),)

    def _without_model(self, bench: Bench) -> float:
        if bench.empty not in self._empty:
            self._empty[bench.empty] = max(peak.resident for peak in _peaks(bench.empty, bench))
        return self._empty[bench.empty]


def _peaks(model: Path, bench: Bench) -> list[_Peak]:
    """Serve a model in one process after the other."""
    started = time.monotonic()
    found = [_peak(model, bench)]
    count = _FEW if found[0].resident < _SMALL_BYTES else _MANY
    while len(found) < count and (len(found) < _FEW or time.monotonic() - started < _BUDGET_S):
        found.append(_peak(model, bench))
    return found


def _peak(model: Path, bench: Bench) -> _Peak:
    request = {
        "target": bench.address.to_plain(),
        "model": str(model),
        "inputs": str(bench.inputs),
        "cores": list(bench.cores),
    }
    # Another trial's latency may be taken just now, which this would disturb; and where a device's memory is asked for, what
    # others take there meanwhile could not be told from this model's.
    with bench.lane.measuring() if bench.on_device else bench.lane.working(on_measuring_cores=True):
        answer = ask("memory", request)
    device = answer["device"]
    pair = None if device is None else (int(device[0]), int(device[1]))
    return _Peak(float(answer["peak_bytes"]), pair, answer["account"])


def _on_device(peaks: Sequence[_Peak]) -> tuple[Measurement, ...]:
    devices = [peak.device for peak in peaks if peak.device is not None]
    if not devices:
        return ()
    return tuple(
        Measurement(f"device_memory_{name}_bytes", max(pair[i] for pair in devices), how=peaks[0].account)
        for i, name in enumerate(("allocated", "reserved"))
    )
