"""What machine a number was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUINFO, _CORES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu")
# Instruction sets that change the speed of small integers and halves.
_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimddp")

# What multiplies halves, as the systems name it. For 16-bit floats of x86, torch's own convolutions are 30 and more times as
# slow as for 32 bits, whatever the processor has.
_MULTIPLIES = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"asimdhp"}}


def emulates(precision: str) -> bool:
    """Tell whether the processor is known to have no instructions for a precision of training: it takes far longer then.

    Args:
        precision: ``32``, ``bf16`` or ``fp16``.
    """
    flags = _flags(_cpuinfo())
    return bool(flags) and precision in _MULTIPLIES and flags.isdisjoint(_MULTIPLIES[precision])


def describe(core: int = 0) -> dict[str, str]:
    """Return the processor, its instruction sets, its clock governor, cores and system, as far as the system tells.

    Args:
        core: The core that measures, whose governor is read.
    """
    fields = _cpuinfo()
    flags = _flags(fields)
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


def _flags(fields: dict[str, str]) -> set[str]:
    return set(fields.get("flags", fields.get("Features", "")).split())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
