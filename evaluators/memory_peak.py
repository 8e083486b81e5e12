"""How far the resident memory of this process rises above where it stood."""

from __future__ import annotations

from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Rise:
    """Watches this process's memory from its making on.

    What the process held before is taken off at the moment itself: from process to process, the loaded libraries alone
    differ by more than a small model needs.

    Raises:
        OSError: This system does not tell the memory of a process.
    """

    def __init__(self) -> None:
        # Importing a runtime peaks higher than a small model does; Linux can forget a peak.
        _CLEAR.write_text("5")
        self._before = _field("RssAnon") + _field("RssFile") + _field("RssShmem")

    def peak_bytes(self) -> int:
        """Return the peak since then, above what was held then."""
        return _field("VmHWM") - self._before


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the memory of a process")
