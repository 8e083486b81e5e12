"""The model and the data of the job: edit these two functions, or write your own.

Handwritten digits (8 x 8 pixels, 1,797 of them, shipped with scikit-learn) and a small residual network that is
trained in seconds on the spot. A job file names the two functions as ``digits:model`` and ``digits:data``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import paretrim

EPOCHS = 20


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al., 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, C, H, W)`` to ``(N, C', H', W')``."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """A residual network of 254,000 weights: ``(N, 1, 8, 8)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 48, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.block1 = Block(48, 48, 1)
        self.block2 = Block(48, 48, 1)
        self.block3 = Block(48, 48, 1)
        self.block4 = Block(48, 96, 2)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 1, 8, 8)`` to logits ``(N, 10)``."""
        x = functional.relu(self.norm(self.stem(x)))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def data() -> paretrim.Splits:
    """Return the four splits. The search never sees the test split."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    train, calibration, validation, test = np.split(order, [900, 1000, 1400])
    return paretrim.Splits(
        train=(images[train], digits.target[train]),
        calibration=(images[calibration], digits.target[calibration]),
        validation=(images[validation], digits.target[validation]),
        test=(images[test], digits.target[test]),
        # For who receives an exported model: what its outputs mean, and how raw images become inputs.
        labels=[str(digit) for digit in range(10)],
        preprocessing=paretrim.Preprocessing(scale=1 / 16, shape=(1, 8, 8)),
    )


def model() -> nn.Module:
    """Return the trained network; it must be the same one at every call, so it is kept in a cache."""
    net = DigitsNet()
    cached = _cache_file()
    if not cached.exists():
        train(net, EPOCHS, seed=0)
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = cached.with_suffix(f".{os.getpid()}")
        save_file(net.state_dict(), partial)
        partial.replace(cached)
    net.load_state_dict(load_file(cached))
    return net.eval()


def train(net: nn.Module, epochs: int, seed: int) -> None:
    """Train a network in place on the training split."""
    torch.manual_seed(seed)
    split = data().search.train
    steps = epochs * -(-len(split) // 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    net.train()
    for epoch in range(epochs):
        for batch in split.batches(64, seed=seed + epoch):
            optimizer.zero_grad()
            functional.cross_entropy(batch.inputs.through(net), batch.labels).backward()
            optimizer.step()
            schedule.step()
    net.eval()


def _cache_file() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return root / "paretrim" / f"digits-{source}.safetensors"
