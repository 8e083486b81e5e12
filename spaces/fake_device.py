"""A device that stands in for a GPU in tests, on machines without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


class _Numbers(TorchDispatchMode):
    """Gives a number wherever one is read of a tensor that holds none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Give a device that stands in for a GPU on a machine without one; all tensors that are made meanwhile hold no numbers.

    What is computed with tensors of two devices raises as it would on a GPU, and so does a result of wrong shape or type. Of
    numbers that are read nothing can be expected. Parameters that are moved are others afterwards.
    """
    before = nn.Module.to
    with FakeTensorMode(allow_non_fake_inputs=True), _Numbers():  # type: ignore[no-untyped-call]
        nn.Module.to = _moved_to  # type: ignore[method-assign, assignment]
        try:
            yield torch.device("meta")
        finally:
            nn.Module.to = before  # type: ignore[method-assign]


def _moved_to(model: nn.Module, device: torch.device) -> nn.Module:
    """Do as `nn.Module.to`, which cannot change tensors without numbers in place."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made = nn.Parameter(parameter.detach().to(device), parameter.requires_grad)
                made.grad = None if parameter.grad is None else parameter.grad.to(device)
                module._parameters[name] = made
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    return model
