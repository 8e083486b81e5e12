"""NVIDIA's driver, asked through its C interface: a process that serves an ONNX file must not import torch for it."""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARY = "libcuda.so.1"


def trouble() -> str:
    """Return why there is no CUDA device, with what was looked for, or an empty string when there is one."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"no CUDA device: {_LIBRARY}, the library of NVIDIA's driver, is not on this machine"
    count, code = ctypes.c_int(), driver.cuInit(0)
    if code != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return f"no CUDA device: {_LIBRARY} is there and finds none (cuInit answered {code})"
    return ""


def used_bytes() -> int:
    """Return the bytes in use on the first device, by all processes together.

    Raises:
        OSError: There is no driver, or it does not answer.
    """
    driver = ctypes.CDLL(_LIBRARY)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _checked("cuInit", driver.cuInit(0))
    _checked("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    # The context that every library of this process shares; it is made when it is first asked for.
    _checked("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _checked("cuCtxPushCurrent", driver.cuCtxPushCurrent_v2(context))
    try:
        _checked("cuMemGetInfo", driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    return total.value - free.value


def _checked(name: str, code: Any) -> None:
    if code != 0:
        raise OSError(f"{name} of {_LIBRARY} answered {code}")
