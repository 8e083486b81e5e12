"""The rise of this process's memory, with memory that is really taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paretrim.evaluators import memory_peak
from paretrim.evaluators.memory_peak import Rise

MANY = 50_000_000
# What else a process takes meanwhile, and what the kernel has not yet counted.
SLACK = 4_000_000

told = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this system does not tell the memory of a process"
)


def taken(count: int = MANY) -> np.ndarray:
    """Return an array of so many bytes, all of them written to."""
    return np.ones(count, np.uint8)


@told
def test_memory_that_is_held_is_the_rise() -> None:
    rise = Rise()
    held = taken()
    assert MANY - SLACK < rise.peak_bytes() < MANY + SLACK
    assert len(held) == MANY


@told
def test_memory_that_was_given_back_counts() -> None:
    rise = Rise()
    for _ in range(3):
        taken()
    assert MANY - SLACK < rise.peak_bytes() < MANY + SLACK


@told
def test_memory_that_was_held_before_does_not_count() -> None:
    held = taken()
    rise = Rise()
    assert abs(rise.peak_bytes()) < SLACK
    assert len(held) == MANY


@told
def test_a_higher_peak_before_is_forgotten() -> None:
    taken(2 * MANY)
    rise = Rise()
    held = taken(MANY // 2)
    assert MANY // 2 - SLACK < rise.peak_bytes() < MANY // 2 + SLACK
    assert len(held) == MANY // 2


@told
def test_memory_that_is_asked_for_and_not_used_does_not_count() -> None:
    rise = Rise()
    unused = np.empty(MANY, np.uint8)
    assert rise.peak_bytes() < SLACK
    assert len(unused) == MANY


def test_a_system_that_does_not_tell_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\n")
    monkeypatch.setattr(memory_peak, "_STATUS", status)
    monkeypatch.setattr(memory_peak, "_CLEAR", tmp_path / "clear_refs")
    with pytest.raises(OSError, match="does not tell the memory"):
        Rise()
