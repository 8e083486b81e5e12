"""Models of users whose weights are mostly of no layer: an LSTM that reads digits, and an embedding of made-up tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import paretrim

TOKENS, LENGTH, KINDS = 5000, 16, 4


class RowReader(nn.Module):
    """Reads the rows of an image one after the other: ``(N, 8, 8)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.lstm(x)
        logits: torch.Tensor = self.head(outputs[:, -1])
        return logits


class TokenCounter(nn.Module):
    """Tells which kind of tokens a text has most of: ids ``(N, 16)`` to logits ``(N, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 64)
        self.body = nn.Linear(64, 32)
        self.head = nn.Linear(32, KINDS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(functional.relu(self.body(self.embedding(x).mean(dim=1))))
        return logits


def rows() -> paretrim.Splits:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    return _split(images, digits.target, [900, 950, 1370])


def texts() -> paretrim.Splits:
    source = np.random.default_rng(0)
    ids = (TOKENS * source.random((6000, LENGTH)) ** 10).astype(np.int64)  # some tokens are frequent, most are rare
    counts = np.stack([(ids % KINDS == kind).sum(axis=1) for kind in range(KINDS)], axis=1)
    ordered = np.sort(counts, axis=1)
    clear = ordered[:, -1] > ordered[:, -2]
    return _split(ids[clear], counts[clear].argmax(axis=1), [3000, 3050, 3450])


def row_reader() -> nn.Module:
    return _trained(RowReader, rows, epochs=20, rate=0.01)


def token_counter() -> nn.Module:
    return _trained(TokenCounter, texts, epochs=10, rate=0.003)


def _split(inputs: np.ndarray, labels: np.ndarray, ends: list[int]) -> paretrim.Splits:  # type: ignore[type-arg]
    order = np.random.default_rng(0).permutation(len(inputs))
    train, calibration, validation, test = ((inputs[part], labels[part]) for part in np.split(order, ends))
    return paretrim.Splits(train=train, calibration=calibration, validation=validation, test=test)


def _trained(kind: type[nn.Module], data: Callable[[], paretrim.Splits], epochs: int, rate: float) -> nn.Module:
    torch.manual_seed(0)
    net = kind()
    split = data().search.train
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for epoch in range(epochs):
        for batch in split.batches(50, seed=epoch):
            optimizer.zero_grad()
            functional.cross_entropy(batch.inputs.through(net), batch.labels).backward()
            optimizer.step()
    return net.eval()
