"""The calls of ``torch.cuda`` that paretrim makes; what calls them is tested without a GPU, by others in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Before a capture, so that what libraries set up at their first calls is not captured.
_WARM_UP_CALLS = 3
# What libraries say that allocate for themselves, and the driver where there is no room even for a context.
_SHORT = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def missing() -> str:
    """Return why this PyTorch computes on no NVIDIA GPU, or an empty string where it does."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA: install a build with it, see https://pytorch.org"
    if not torch.cuda.is_available():
        return f"no CUDA device: torch {torch.__version__} finds none (torch.cuda.is_available() is false)"
    return ""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device's memory is full."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in _SHORT)


def wait(device: torch.device) -> None:
    """Wait for all that was begun on a device."""
    torch.cuda.synchronize(device)


def give_back() -> None:
    """Give memory of the device that no tensor uses back to whoever shares it; nothing where CUDA was never used."""
    torch.cuda.empty_cache()


def forget_peak() -> None:
    """Begin to look for the peak anew."""
    torch.cuda.reset_peak_memory_stats()


def peak() -> tuple[int, int]:
    """Return the most bytes of tensors, and the most that PyTorch's allocator took for them."""
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def mark() -> Any:
    """Return an event after all that was begun so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds(start: Any, end: Any) -> float:
    """Wait for the second of two events, and return the time between them."""
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def captured(compute: Callable[[], object]) -> Callable[[], object]:
    """Capture what a function does on the device as a CUDA graph, and return what replays it.

    As in PyTorch's notes on CUDA graphs: warmed up on a stream of its own, then captured. A replay reads and writes the
    memory that the function read and wrote.

    Args:
        compute: Works on tensors that stay where they are, and does not wait for the device.

    Raises:
        RuntimeError: Something in it cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_CALLS):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph.replay
