"""A 1-D convolutional network that tells seven shoulder exercises apart by the six signals of a smartwatch.

The recordings are those that the package ``seglearn`` carries (Burns et al., "Shoulder Physiotherapy Exercise Recognition",
2018): ten people, 50 samples a second. Nobody is in two splits. It is trained at the first call.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import torch
from seglearn.datasets import load_watch
from torch import nn

import paretrim
from benchmarks.kept import fit, trained

WINDOW, STEP = 150, 25
VALIDATION, TEST = (6, 7), (8, 9, 10)
EPOCHS, BATCH, CALIBRATION = 12, 64, 256


class WatchNet(nn.Module):
    """Four convolutions over time and the mean of what they find: ``(N, 6, samples)`` to logits ``(N, 7)``."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 32, 64, 96, 128)
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Conv1d(before, after, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.features = nn.Sequential(*parts)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 6, samples)`` to logits ``(N, 7)``."""
        logits: torch.Tensor = self.head(self.drop(self.features(x).mean(2)))
        return logits


def model() -> nn.Module:
    """Return the network with its trained weights."""
    net = WatchNet()
    return trained(__file__, net, lambda: fit(net, *_of(_windows(), _others()), epochs=EPOCHS, batch=BATCH))


def data() -> paretrim.Splits:
    """Return windows of three seconds of some people to train with, of two others for validation, of three to test."""
    parts = _windows()
    train, validation, test = (_of(parts, people) for people in (_others(), VALIDATION, TEST))
    calibration = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))[:CALIBRATION]
    return paretrim.Splits(
        train=train, calibration=(train[0][calibration], train[1][calibration]), validation=validation, test=test
    )


def _others() -> tuple[int, ...]:
    return tuple(person for person in range(1, 11) if person not in (*VALIDATION, *TEST))


@cache
def _windows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return all windows ``(N, 6, samples)``, their exercises, and whose they are."""
    given = load_watch()
    cut = [
        (series[start : start + WINDOW].T, kind, person)
        for series, kind, person in zip(given["X"], given["y"], given["subject"], strict=True)
        for start in range(0, len(series) - WINDOW + 1, STEP)
    ]
    signals = torch.from_numpy(np.stack([each[0] for each in cut]).astype(np.float32))
    people = torch.tensor([int(each[2]) for each in cut])
    own = signals[torch.isin(people, torch.tensor(_others()))]
    signals = (signals - own.mean((0, 2))[:, None]) / own.std((0, 2))[:, None]
    return signals, torch.tensor([int(each[1]) for each in cut]), people


def _of(
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor], people: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    signals, kinds, whose = parts
    chosen = torch.isin(whose, torch.tensor(people))
    return signals[chosen], kinds[chosen]
