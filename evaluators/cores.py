"""Which cores train and which measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_KEPT = 0.75
_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Plan:
    """How the cores of a machine are shared out.

    Attributes:
        measuring: Cores on which a measurement runs.
        training: Cores for everything else; the same ones when there are too few.
        spare: Whether the two are apart, so that training need not stop for a measurement.
    """

    measuring: tuple[int, ...]
    training: tuple[int, ...]
    spare: bool


def usable() -> tuple[int, ...]:
    """Return the cores that this process may use; empty where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def last(threads: int) -> tuple[int, ...]:
    """Return the cores on which a model of so many threads is measured: the last ones that this process may use."""
    return usable()[-threads:]


def siblings(core: int) -> frozenset[int]:
    """Return the logical cores of the physical core that one belongs to, itself included."""
    try:
        text = (_TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
        return frozenset({core, *_ranges(text.strip())})
    except (OSError, ValueError):
        return frozenset({core})


def plan(
    cores: Sequence[int], workers: int, threads: int, twins: Callable[[int], frozenset[int]] = siblings
) -> Plan:  # fmt: skip
    """Share out cores between trials and measurements.

    Whole physical cores are set aside for measuring, since two logical cores of one slow each other down; but only
    where several workers train, and each keeps most of its cores: stopping for a measurement now and then costs less.

    Args:
        cores: All that may be used.
        workers: Trials at the same time.
        threads: Threads of the model that is measured.
        twins: ``core -> logical cores of the same physical core``.
    """
    measuring = tuple(cores[-threads:])
    aside = set().union(*(twins(core) for core in measuring)) if measuring else set()
    training = tuple(core for core in cores if core not in aside)
    kept, before = len(training) // workers, len(cores) // workers
    if len(measuring) == threads and workers > 1 and kept > 0 and kept >= _KEPT * before:
        return Plan(measuring, training, spare=True)
    return Plan(measuring, tuple(cores), spare=False)


def _ranges(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found
