"""Networks of several inputs, by name and by position, one of several outputs, and data without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import paretrim
from paretrim.evaluators.splits import Split

WORDS, LENGTH = 40, 8


class Reader(nn.Module):
    """Tells which half of the vocabulary most words of a text are of: ``input_ids`` and ``attention_mask``, both (N, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 32)
        self.inner = nn.Linear(32, 64)
        self.head = nn.Linear(64, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = attention_mask[:, :, None].float()
        words = torch.relu(self.inner(self.embedding(input_ids))) * weights
        pooled = words.sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
        return {"logits": self.head(pooled), "pooled": pooled}


class Halves(nn.Module):
    """Reads the upper and the lower half of an 8x8 digit apart: two tensors ``(N, 32)`` by position."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = nn.Linear(32, 32), nn.Linear(32, 32)
        self.inner = nn.Linear(64, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.relu(self.upper(upper)), torch.relu(self.lower(lower))], dim=1)
        logits: torch.Tensor = self.head(torch.relu(self.inner(both)))
        return logits


def reader() -> nn.Module:
    return _trained(Reader, texts().search.train, 12)


def halves() -> nn.Module:
    return _trained(Halves, pictures().search.train, 12)


def texts() -> paretrim.Splits:
    """Return texts of two to eight words, without a repetition."""
    random = np.random.default_rng(0)
    ids = np.unique(random.integers(0, WORDS, (900, LENGTH)), axis=0)[random.permutation(880)[:800]]
    mask = np.arange(LENGTH)[None] < random.integers(3, LENGTH + 1, len(ids))[:, None]
    ids = ids * mask
    labels = ((ids >= WORDS // 2) * mask).sum(axis=1) * 2 > mask.sum(axis=1)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    return _splits(
        lambda part: ({name: each[part] for name, each in inputs.items()}, labels[part].astype(np.int64)), 800
    )


def pictures() -> paretrim.Splits:
    pixels, digits = _digits()
    return _splits(lambda part: ((pixels[part, :32], pixels[part, 32:]), digits[part]), len(pixels))


def unlabelled() -> paretrim.Splits:
    """Return the same pictures without what they show."""
    pixels, _ = _digits()
    return _splits(lambda part: ((pixels[part, :32], pixels[part, 32:]), None), len(pixels))


def _digits() -> tuple[Any, Any]:
    digits = load_digits()
    return (digits.data / 16.0).astype(np.float32)[:900], digits.target[:900]


def _splits(part: Any, count: int) -> paretrim.Splits:
    order = np.random.default_rng(1).permutation(count)
    cuts = [int(count * share) for share in (0.5, 0.55, 0.8)]
    train, calibration, validation, test = (part(np.sort(each)) for each in np.split(order, cuts))
    return paretrim.Splits(train=train, calibration=calibration, validation=validation, test=test)


def _trained(kind: type[nn.Module], split: Split, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    net = kind()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for epoch in range(epochs):
        for batch in split.batches(50, seed=epoch):
            answer = batch.inputs.through(net.train())
            logits = answer["logits"] if isinstance(answer, dict) else answer
            optimizer.zero_grad()
            functional.cross_entropy(logits, batch.labels).backward()
            optimizer.step()
    return net.eval()
