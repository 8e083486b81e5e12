"""What machine a number was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUINFO, _CORES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")
# Instruction sets that change the speed of small integers and halves.
_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimddp")


def describe(core: int = 0) -> dict[str, str]:
    """Return the processor, its instruction sets, its clock governor, cores and system, as far as the system tells.

    Args:
        core: The core that measures, whose governor is read.
    """
    fields = _cpuinfo()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    found = {
        "host": platform.node(),
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cpu_cores": str(os.cpu_count() or ""),
        "cpu_sets": " ".join(name for name in _SETS if name in flags),
        "governor": _text(_CORES / f"cpu{core}" / "cpufreq" / "scaling_governor"),
        "system": f"{platform.system()} {platform.release()}",
    }
    return {name: value for name, value in found.items() if value}


def _cpuinfo() -> dict[str, str]:
    first = _text(_CPUINFO).split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
