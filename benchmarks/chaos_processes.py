"""The processes of one search, also those whose parents are dead: who they are, and killing one of them."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

GCS, RAYLET, ACTOR, MEASURING = "gcs_server", "raylet", "actor", "measuring"


@dataclass(frozen=True)
class Process:
    """A process.

    Attributes:
        pid: Its number.
        since: When it started, in ticks, so that another one of that number is not taken for it.
        parent: Its parent's number.
        command: Its command line or title.
    """

    pid: int
    since: int
    parent: int
    command: str

    @property
    def kind(self) -> str:
        """What part it has in a search; empty for those that are of no interest."""
        first = Path(self.command.split(" ", 1)[0]).name
        if first in (GCS, RAYLET):
            return first
        if "paretrim.evaluators.probe" in self.command or "paretrim.evaluators.served" in self.command:
            return MEASURING
        return ACTOR if first.startswith("ray::") and "Trainable" in self.command else ""


class Herd:
    """All processes that descend from some, seen as often as `look` is called."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Process] = {}

    def add(self, pid: int) -> None:
        """Take up a process."""
        found = _read(pid)
        if found is not None:
            self._known[found.pid, found.since] = found

    def look(self) -> list[Process]:
        """Return the known processes that live, and take up their children."""
        everybody = {p.pid: p for p in map(_read, _pids()) if p is not None}
        alive = {pid for pid, since in self._known if pid in everybody and everybody[pid].since == since}
        fresh = set(alive)
        while fresh:
            fresh = {pid for pid, p in everybody.items() if p.parent in fresh} - alive
            alive |= fresh
        found = [everybody[pid] for pid in alive]
        self._known |= {(p.pid, p.since): p for p in found}
        return found

    def of(self, kind: str) -> list[Process]:
        """Return those of a kind that live."""
        return [process for process in self.look() if process.kind == kind]


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to a process; tell whether it was still there."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int) -> Process | None:
    folder = Path("/proc", str(pid))
    try:
        words = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return None if words[0] == "Z" else Process(pid, int(words[19]), int(words[1]), command)
