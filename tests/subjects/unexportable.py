"""A model that runs, and that the exporter cannot follow: its path depends on the values of its input."""

from __future__ import annotations

import torch
from tiny import TinyNet
from torch import nn


class Undecided(TinyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.sum()) > 1e6:
            return super().forward(x) * 2
        return super().forward(x)


def model() -> nn.Module:
    torch.manual_seed(0)
    return Undecided().eval()
