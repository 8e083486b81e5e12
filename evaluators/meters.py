"""Energy meters: the processor's counters (RAPL, by way of Linux's powercap) and a GPU's (NVML)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paretrim.evaluators import nvml

_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter of energy.

    Attributes:
        name: Which one it is.
        read: Returns the joules counted so far.
        wraps_at: Joules at which it begins anew at zero, or zero when it does not.
    """

    name: str
    read: Callable[[], float]
    wraps_at: float = 0.0

    def since(self, before: float) -> float:
        """Return the joules since an earlier reading, less than a turn of the counter ago."""
        now = self.read()
        return now - before if now >= before else now - before + self.wraps_at


def readable(powercap: Path = _POWERCAP) -> list[Meter]:
    """Return the meters that can be read here: one for each processor package, and one for each GPU."""
    return [*_packages(powercap), *_gpus()]


def looked_for(powercap: Path = _POWERCAP) -> str:
    """Say why there may be no meter."""
    locked = [path for path in _counters(powercap) if not os.access(path, os.R_OK)]
    if locked:
        return f"the processor's energy counter {locked[0]} may be read by root only"
    asked = "no GPU that NVML can ask (pip install 'paretrim[nvml]')"
    return f"there is no processor energy counter under {powercap}, and {asked}"


def joules(meters: Sequence[Meter], before: Sequence[float]) -> float:
    """Return the joules that all meters counted since earlier readings."""
    return sum(meter.since(reading) for meter, reading in zip(meters, before, strict=True))


def _counters(powercap: Path) -> list[Path]:
    # Packages are intel-rapl:N; their cores, intel-rapl:N:M, are counted in them. AMD's counters have the same names.
    # A laptop's psys looks like one more package, and counts the whole machine, packages included.
    zones = [folder for folder in powercap.glob("intel-rapl:*") if folder.name.count(":") == 1]
    return sorted(folder / "energy_uj" for folder in zones if _what(folder) != "psys")


def _what(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _packages(powercap: Path) -> list[Meter]:
    found = []
    for path in _counters(powercap):
        try:
            _microjoules(path)
            wraps_at = _microjoules(path.with_name("max_energy_range_uj")) / 1e6
        except (OSError, ValueError):
            continue
        found.append(Meter(f"RAPL {path.parent.name}", lambda path=path: _microjoules(path) / 1e6, wraps_at))  # type: ignore[misc]
    return found


def _microjoules(path: Path) -> int:
    return int(path.read_text())


def _gpus() -> list[Meter]:
    found = nvml.devices()
    if found is None:
        return []
    library, handles = found
    meters = [
        Meter(f"NVML GPU {i}", lambda handle=handle: library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)  # type: ignore[misc]
        for i, handle in enumerate(handles)
    ]
    try:
        _ = [meter.read() for meter in meters]
    except library.NVMLError:
        return []  # an older device, that has no such counter
    return meters
