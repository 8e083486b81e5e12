"""What NVIDIA's management library tells of GPUs, where it is installed."""

from __future__ import annotations

import os
from typing import Any


def devices() -> tuple[Any, list[Any]] | None:
    """Return the library and a handle for each GPU, or None where there is no library, driver or device."""
    try:
        import pynvml  # noqa: PLC0415 - there only where somebody installed it

        pynvml.nvmlInit()
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001 - it has many ways of saying that there is no GPU
        return None


def foreign_processes() -> int | None:
    """Return how many other processes compute on the GPUs, or None where that cannot be told."""
    found = devices()
    if found is None:
        return None
    library, handles = found
    try:
        running = {process.pid for each in handles for process in library.nvmlDeviceGetComputeRunningProcesses(each)}
    except Exception:  # noqa: BLE001 - as above
        return None
    return len(running - {os.getpid()})
