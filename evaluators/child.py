"""A measuring process: fresh, with a time limit, and dying alone."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from paretrim.errors import MeasurementError

_LIMIT_S = 300.0
_PR_SET_PDEATHSIG = 1


def ask(question: str, request: Mapping[str, Any], limit_s: float = _LIMIT_S) -> dict[str, Any]:
    """Run one measurement in a fresh process and return its answer.

    Args:
        question: ``latency``, ``memory``, ``weigh`` or ``energy``.
        request: JSON-ready arguments.
        limit_s: Seconds after which the process is killed.

    Raises:
        MeasurementError: The process died, hung, or answered nonsense; the message has its last words.
    """
    try:
        done = subprocess.run(
            [*command("paretrim.evaluators.probe"), question],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"measuring {question} took more than {limit_s:.0f} s and was stopped") from error
    if done.returncode != 0:
        raise MeasurementError(f"measuring {question}: the process {ending(done.returncode)}{last_words(done.stderr)}")
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise MeasurementError(f"measuring {question}: the answer is not JSON: {done.stdout[:200]!r}") from error
    if not isinstance(answer, dict):
        raise MeasurementError(f"measuring {question}: the answer is no JSON object: {done.stdout[:200]!r}")
    return answer


def command(module: str) -> list[str]:
    """Return the command that runs a module of ours in a fresh process."""
    # -P keeps the current folder off the import path: a user's folder may hold any module names.
    return [sys.executable, "-P", "-m", module]


def ending(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"


def killed(text: str) -> bool:
    """Tell whether a text says, in the words of `ending`, that somebody else killed a process, as want of memory does."""
    return ending(-signal.SIGKILL) in text


def last_words(stderr: str) -> str:
    """Return the last line that a process wrote to its standard error, or nothing."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""


def kept_output() -> BinaryIO:
    """Return this process's standard output, for answers alone: what a runtime prints goes to standard error from now on.

    Nobody waits for answers once whoever asked is dead, and measuring on would disturb others: this process dies too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Printed lines that wait in a buffer would come after the words of an error.
    sys.stdout = sys.stderr
    return answers
