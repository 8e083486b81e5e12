"""Memory: what a process needs to serve the artifact, beyond what the runtime needs without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement

# Processes agree to a few pages, or fall into two groups by where the allocator's threshold came to lie.
_LEAST, _MOST = 2, 7
_AGREE_BYTES, _AGREE_SHARE = 64 * 1024, 0.01


@dataclass(frozen=True)
class _Peak:
    """Peaks of one process, in bytes: resident, and on the device where there is one."""

    resident: float
    device: tuple[int, int] | None


class MemoryEvaluator:
    """Gives the peak resident memory of serving the model, less that of serving an empty one.

    On a device with memory of its own also that memory's peak, allocated and reserved.
    """

    metrics: ClassVar[tuple[str, ...]] = ("memory_bytes",)

    def __init__(self) -> None:
        self._empty: dict[Path, float] = {}

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the memory, the median of as many processes as it takes until they agree."""
        peaks = _peaks(specimen.model, bench)
        if bench.empty not in self._empty:
            self._empty[bench.empty] = median(peak.resident for peak in _peaks(bench.empty, bench))
        above = sorted(max(0.0, peak.resident - self._empty[bench.empty]) for peak in peaks)
        how = f"median peak of {len(peaks)} processes above one with an empty model"
        return (Measurement("memory_bytes", median(above), above[0], above[-1], how), *_on_device(peaks))


def _peaks(model: Path, bench: Bench) -> list[_Peak]:
    """Serve a model in one process after the other, until the middle ones agree."""
    found: list[_Peak] = []
    while len(found) < _LEAST or (len(found) < _MOST and not _agreed([peak.resident for peak in found])):
        found.append(_peak(model, bench))
    return found


def _agreed(values: Sequence[float]) -> bool:
    """Tell whether most values lie close together."""
    ordered = sorted(values)
    kept = len(ordered) // 2 + 1
    if kept < _LEAST:
        return False
    closest = min(ordered[i + kept - 1] - ordered[i] for i in range(len(ordered) - kept + 1))
    return closest <= max(_AGREE_BYTES, _AGREE_SHARE * median(ordered))


def _peak(model: Path, bench: Bench) -> _Peak:
    request = {
        "target": bench.address.to_plain(),
        "model": str(model),
        "inputs": str(bench.inputs),
        "cores": list(bench.cores),
    }
    answer = ask("memory", request)
    device = answer["device"]
    return _Peak(float(answer["peak_bytes"]), None if device is None else (int(device[0]), int(device[1])))


def _on_device(peaks: Sequence[_Peak]) -> tuple[Measurement, ...]:
    devices = [peak.device for peak in peaks if peak.device is not None]
    if not devices:
        return ()
    return tuple(
        Measurement(f"device_memory_{name}_bytes", median(pair[i] for pair in devices), how="peak on the device")
        for i, name in enumerate(("allocated", "reserved"))
    )
