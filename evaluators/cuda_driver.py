"""NVIDIA's driver, asked through its C interface: a process that serves an ONNX file must not import torch for it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256


def trouble() -> str:
    """Return why there is no CUDA device, with what was looked for, or an empty string when there is one."""
    try:
        driver = _driver()
    except OSError:
        return f"no CUDA device: {_LIBRARY}, the library of NVIDIA's driver, is not on this machine"
    count, code = ctypes.c_int(), driver.cuInit(0)
    if code != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return f"no CUDA device: {_LIBRARY} is there and finds none (cuInit answered {code})"
    return ""


def visible() -> tuple[str, ...]:
    """Return the UUIDs of the devices that this process may use, the first one first; empty where there is none.

    They are the same in all processes of the machine, whatever CUDA_VISIBLE_DEVICES makes of their numbers.
    """
    if trouble():
        return ()
    driver, count = _driver(), ctypes.c_int()
    _checked("cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    return tuple(_uuid(_device(number)) for number in range(count.value))


def name() -> str:
    """Return what the maker calls the first device, or an empty string where there is none."""
    if trouble():
        return ""
    text = ctypes.create_string_buffer(_NAME_BYTES)
    _checked("cuDeviceGetName", _driver().cuDeviceGetName(text, _NAME_BYTES, _device(0)))
    return text.value.decode(errors="replace")


def used_bytes() -> int:
    """Return the bytes in use on the first device, by all processes together.

    Raises:
        OSError: There is no driver, or it does not answer.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context() as driver:
        _checked("cuMemGetInfo", driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    return total.value - free.value


class Stream:
    """A stream of the first device, and marks of time on it.

    It keeps its order with the default stream, on which copies are made. It lasts as long as the process, since a runtime may
    look at it once more when a session ends.

    Raises:
        OSError: There is no driver, or it does not answer.
    """

    def __init__(self) -> None:
        self._stream = ctypes.c_void_p()
        with _context() as driver:
            _checked("cuStreamCreate", driver.cuStreamCreate(ctypes.byref(self._stream), 0))

    @property
    def address(self) -> int:
        """The stream, as CUDA's runtime and its users know it too."""
        return self._stream.value or 0

    def mark(self) -> Event:
        """Return an event after all that was begun on the stream so far."""
        event = Event()
        with _context() as driver:
            _checked("cuEventRecord", driver.cuEventRecord(event.handle, self._stream))
        return event

    def wait(self) -> None:
        """Wait for all that was begun on the stream."""
        with _context() as driver:
            _checked("cuStreamSynchronize", driver.cuStreamSynchronize(self._stream))


class Event:
    """A mark of time on a stream."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        with _context() as driver:
            _checked("cuEventCreate", driver.cuEventCreate(ctypes.byref(self.handle), 0))

    def seconds_to(self, end: Event) -> float:
        """Wait for a later event, and return the time between the two."""
        milliseconds = ctypes.c_float()
        with _context() as driver:
            _checked("cuEventSynchronize", driver.cuEventSynchronize(end.handle))
            found = driver.cuEventElapsedTime(ctypes.byref(milliseconds), self.handle, end.handle)
            _checked("cuEventElapsedTime", found)
        return milliseconds.value / 1e3

    def __del__(self) -> None:
        if self.handle.value:
            _driver().cuEventDestroy_v2(self.handle)


@contextmanager
def _context() -> Iterator[Any]:
    """Yield the driver, while the first device's context is this thread's: the one that all libraries here share."""
    driver, context, device = _driver(), ctypes.c_void_p(), _device(0)
    # It is made when it is first asked for.
    _checked("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    _checked("cuCtxPushCurrent", driver.cuCtxPushCurrent_v2(context))
    try:
        yield driver
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))


def _device(number: int) -> ctypes.c_int:
    driver, device = _driver(), ctypes.c_int()
    _checked("cuInit", driver.cuInit(0))
    _checked("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), number))
    return device


def _uuid(device: ctypes.c_int) -> str:
    held = (ctypes.c_ubyte * 16)()
    # The second version tells the parts of a divided GPU (MIG) apart.
    _checked("cuDeviceGetUuid", _driver().cuDeviceGetUuid_v2(ctypes.byref(held), device))
    return str(UUID(bytes=bytes(held)))


def _driver() -> Any:
    return ctypes.CDLL(_LIBRARY)


def _checked(name: str, code: Any) -> None:
    if code != 0:
        raise OSError(f"{name} of {_LIBRARY} answered {code}")
