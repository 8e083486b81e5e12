"""A small network and a few of scikit-learn's digits: a real search over it takes seconds a trial."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import paretrim

FAULTS = "PARETRIM_TEST_FAULTS"


class TinyNet(nn.Module):
    """Three convolutions, two of them coupled by an addition: ``(N, 1, 8, 8)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.inner = nn.Conv2d(32, 32, 3, 1, 1)
        self.outer = nn.Conv2d(32, 32, 3, 1, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = x + self.outer(functional.relu(self.inner(x)))
        logits: torch.Tensor = self.head(functional.relu(x).mean(dim=(2, 3)))
        return logits


class FaultyNet(TinyNet):
    """Suffers a fault in training for each file of that name in a folder; once each.

    A trial's copy of the net suffers one fault at most.
    """

    suffered = False
    faults = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not where it is only tried out, without gradients.
        learns = self.training and torch.is_grad_enabled()
        fault = _take_fault(self.faults) if learns and self.faults and not self.suffered else ""
        self.suffered = self.suffered or bool(fault)
        if fault == "raise":
            raise RuntimeError("the augmentation tripped over its own feet")
        if fault == "hang":
            time.sleep(3600)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x) * (float("nan") if fault == "nan" else 1.0)


Net = TypeVar("Net", bound=TinyNet)


def model() -> nn.Module:
    return _trained(TinyNet)


def faulty_model() -> nn.Module:
    net = _trained(FaultyNet)
    net.faults = os.environ.get(FAULTS, "")
    return net


def data() -> paretrim.Splits:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    parts = np.split(np.random.default_rng(0).permutation(len(images))[:900], [400, 450, 700])
    train, calibration, validation, test = ((images[part], digits.target[part]) for part in parts)
    return paretrim.Splits(train=train, calibration=calibration, validation=validation, test=test)


def _trained(kind: type[Net]) -> Net:
    torch.manual_seed(0)
    net = kind()
    split = data().search.train
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    net.train()
    for epoch in range(6):
        for batch in split.batches(50, seed=epoch):
            optimizer.zero_grad()
            functional.cross_entropy(batch.inputs.through(net), batch.labels).backward()
            optimizer.step()
    return net.eval()


def _take_fault(folder: str) -> str:
    for path in sorted(Path(folder).iterdir()):
        try:
            path.unlink()
        except FileNotFoundError:  # another trial took it
            continue
        return path.name
    return ""
