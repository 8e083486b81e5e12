"""A team of processes that torch.distributed connects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed, nn


class Processes:
    """The members of torch's process group, which must be there; this process is one of them.

    Sums come out the same to the bit in all of them: each part of a sum is computed in one process and sent to the others.
    """

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def meet(self) -> None:
        """Wait for all members to come here."""
        self.total([0.0])

    def combine(self, weights: Sequence[nn.Parameter], averages: Sequence[torch.Tensor]) -> None:
        """Replace, in place, gradients by the sum and `averages` by the mean over all members.

        A weight that no member has a gradient for keeps none, since an optimizer passes over it.
        """
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad.to_dense() for each in weights]
        known = torch.tensor([float(each.grad is not None) for each in weights]).to(weights[0].device)
        sums = self._sums([*gradients, *(each / self.size for each in averages), known])
        for weight, found, some in zip(weights, sums, sums[-1].tolist(), strict=False):
            weight.grad = found.view_as(weight).to(weight) if some else None
        for average, found in zip(averages, sums[len(weights) : -1], strict=True):
            average.copy_(found.view_as(average))

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all members."""
        sums = torch.tensor(list(values), dtype=torch.float64)
        distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def follow(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors, in place, by those of the first member."""
        for each in tensors:
            whole = each.detach().contiguous().view(-1)
            distributed.broadcast(whole.view(torch.uint8), 0)  # whatever it holds, as bytes
            each.detach().copy_(whole.view_as(each))

    def _sums(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the sums of tensors over all members, flat, by one exchange."""
        flat = [each.detach().flatten() for each in tensors]
        kind = torch.float64 if any(each.dtype == torch.float64 for each in flat) else torch.float32
        joined = torch.cat([each.to(kind) for each in flat])
        distributed.all_reduce(joined)
        return list(joined.split([len(each) for each in flat]))
