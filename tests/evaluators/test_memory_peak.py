"""The rise of a process's memory, with memory that is really taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paretrim.evaluators import memory_peak
from paretrim.evaluators.memory_peak import Rise

MANY = 50_000_000
# What else a process takes meanwhile, and what the kernel has not yet counted.
SLACK = 4_000_000

told = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this system does not tell the memory of a process"
)


def told_of(code: str) -> int:
    """Return the rise that a fresh process tells, as one that measures would: in an older one, pages that nobody has used
    for a while may be taken away at the same time."""
    begin = "import numpy as np; from paretrim.evaluators.memory_peak import Rise"
    lines = [
        begin,
        f"MANY = {MANY}",
        "def taken(count=MANY): return np.ones(count, np.uint8)",
        "np.ones(9).sum()",
        code,
    ]
    command = [sys.executable, "-c", "\n".join([*lines, "print(rise.peak_bytes())"])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


@told
def test_memory_that_is_held_is_the_rise() -> None:
    assert MANY - SLACK < told_of("rise = Rise()\nheld = taken()") < MANY + SLACK


@told
def test_memory_that_was_given_back_counts() -> None:
    assert MANY - SLACK < told_of("rise = Rise()\nfor _ in range(3): taken()") < MANY + SLACK


@told
def test_memory_that_was_held_before_does_not_count() -> None:
    assert abs(told_of("held = taken()\nrise = Rise()")) < SLACK


@told
def test_a_higher_peak_before_is_forgotten() -> None:
    rise = told_of("taken(2 * MANY)\nrise = Rise()\nheld = taken(MANY // 2)")
    assert MANY // 2 - SLACK < rise < MANY // 2 + SLACK


@told
def test_memory_that_is_asked_for_and_not_used_does_not_count() -> None:
    assert told_of("rise = Rise()\nunused = np.empty(MANY, np.uint8)") < SLACK


def test_a_system_that_does_not_tell_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\n")
    monkeypatch.setattr(memory_peak, "_STATUS", status)
    monkeypatch.setattr(memory_peak, "_CLEAR", tmp_path / "clear_refs")
    with pytest.raises(OSError, match="does not tell the memory"):
        Rise()
