"""A model of your own code with weights from a file: a state_dict, as safetensors or as torch.save writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import paretrim

HERE = Path(__file__).parent


class Net(nn.Module):
    """Put your network here, or import it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 64)`` to logits ``(N, 10)``."""
        logits: torch.Tensor = self.head(nn.functional.relu(self.hidden(x)))
        return logits


def model() -> nn.Module:
    """Return the trained network. Also .pt, .pth, .bin and .ckpt; names that do not fit are told, with the nearest."""
    return paretrim.models.with_weights(Net(), HERE / "weights.safetensors")


def data() -> paretrim.Splits:
    """Return the four splits; see `paretrim init --template arrays` and the others."""
    return paretrim.data.from_arrays(np.load(HERE / "inputs.npy"), np.load(HERE / "labels.npy"))
