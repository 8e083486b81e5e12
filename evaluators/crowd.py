"""Who else used the machine while something was measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from paretrim.evaluators import nvml

_STAT = Path("/proc/stat")
# In cores, a share of time, a share of time: what an idle desktop or server stays below.
_BUSY_CORES, _STOLEN, _WAITING = 0.25, 0.01, 0.03


@dataclass(frozen=True)
class Crowd:
    """What others did meanwhile.

    Attributes:
        foreign_cores: Cores that other processes kept busy, on average; None where the system does not tell.
        steal_share: Share of the processors' time that the hypervisor gave to others; None where it does not tell.
        waiting_share: Share of the time in which the measuring thread was ready but not running.
        gpu_processes: Other processes that computed on the GPUs; None where none is measured, or where nobody tells.
    """

    foreign_cores: float | None
    steal_share: float | None
    waiting_share: float
    gpu_processes: int | None = None

    def present(self) -> bool:
        """Tell whether anybody else was there to speak of."""
        return (
            (self.foreign_cores or 0.0) > _BUSY_CORES
            or (self.steal_share or 0.0) > _STOLEN
            or self.waiting_share > _WAITING
            or bool(self.gpu_processes)
        )


class Watch:
    """Watches the machine from its making to `look`.

    Args:
        computing: Whether this process computes all the while with one thread, so that processor time that is missing
            was spent waiting for a core.
        stat: The system's account of processor time.
        gpu: Whether GPUs are watched too.
    """

    def __init__(self, computing: bool, stat: Path = _STAT, *, gpu: bool = False) -> None:
        self._computing = computing
        self._gpu = gpu
        self._stat = stat
        self._ticks = _read(stat)
        self._own = time.process_time()
        self._wall = time.perf_counter()

    def look(self) -> Crowd:
        """Return what others did since this watch was made."""
        wall = max(1e-9, time.perf_counter() - self._wall)
        own = time.process_time() - self._own
        waiting = max(0.0, 1.0 - own / wall) if self._computing else 0.0
        now, sharing = _read(self._stat), nvml.foreign_processes() if self._gpu else None
        if self._ticks is None or now is None:
            return Crowd(None, None, waiting, sharing)
        busy, stolen, all_ = (after - before for after, before in zip(now, self._ticks, strict=True))
        second = os.sysconf("SC_CLK_TCK")
        return Crowd(max(0.0, (busy / second - own) / wall), stolen / max(1, all_), waiting, sharing)


def _read(stat: Path) -> tuple[int, int, int] | None:
    """Return ticks of all cores together: busy, stolen, all."""
    try:
        fields = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return None
    if len(fields) < 8:
        return None
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return user + nice + system + irq + softirq, steal, sum(fields[:8])
