"""Memory: what a process needs to serve the artifact, beyond what the runtime needs without one."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement

_REPEATS = 3


class MemoryEvaluator:
    """Gives the peak resident memory of serving the model, less that of serving an empty one."""

    metrics: ClassVar[tuple[str, ...]] = ("memory_bytes",)

    def __init__(self) -> None:
        self._empty_peaks: dict[Path, float] = {}

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the memory, the median of several processes."""
        peaks = [_peak(specimen.model, bench) for _ in range(_REPEATS)]
        if bench.empty not in self._empty_peaks:
            self._empty_peaks[bench.empty] = median(_peak(bench.empty, bench) for _ in range(_REPEATS))
        empty = self._empty_peaks[bench.empty]
        value, low, high = (max(0.0, peak - empty) for peak in (median(peaks), min(peaks), max(peaks)))
        how = f"median peak of {_REPEATS} processes above one with an empty model"
        return (Measurement("memory_bytes", value, low, high, how),)


def _peak(model: Path, bench: Bench) -> float:
    request = {"target": bench.address.to_plain(), "model": str(model), "inputs": str(bench.inputs)}
    return float(ask("memory", request)["peak_bytes"])
