"""Small trained models of each kind of question beside one of several classes: numbers, labels, tokens, rankings, yes or no."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn
from torch.nn import functional

import paretrim

PAD = -100
Pair = tuple[torch.Tensor, torch.Tensor]


class Tagger(nn.Module):
    """Reads the rows of an 8x8 digit one by one and says of each whether most of it is ink: (N, 8, 8) to (N, 8, 2)."""

    def __init__(self) -> None:
        super().__init__()
        # Of half the width, scales, biases and the graph are a third of the file: no widths make that a quarter.
        self.reader = nn.GRU(8, 64, batch_first=True)
        self.inner = nn.Linear(64, 64)
        self.head = nn.Linear(64, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        read, _ = self.reader(rows)
        logits: torch.Tensor = self.head(torch.relu(self.inner(read)))
        return logits


class Ranker(nn.Module):
    """Scores each of four digits that lie side by side: (N, 4, 64) to (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.score = perceptron(64, 1)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.score(items).squeeze(-1)
        return scores


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


@cache
def digits() -> Pair:
    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(found.data / 16).float()[order], torch.from_numpy(found.target)[order]


def numbers() -> paretrim.Splits:
    found = load_diabetes()
    targets = torch.from_numpy(found.target).float()
    return split(torch.from_numpy(found.data).float() * 20, (targets - targets.mean()) / targets.std())


def labels() -> paretrim.Splits:
    pixels, kinds = digits()
    return split(pixels, torch.stack([kinds % 2, (kinds > 4).long(), (kinds % 3 == 0).long()], dim=1))


def yes_or_no() -> paretrim.Splits:
    pixels, kinds = digits()
    return split(pixels, kinds % 2)


def tokens() -> paretrim.Splits:
    rows = digits()[0].view(-1, 8, 8)
    inked = (rows.mean(2) > 0.35).long()
    inked[::3, -2:] = PAD
    return split(rows, inked)


class Segmenter(nn.Module):
    """Says of each pixel of a digit whether it is ink, of its edge, or neither: (N, 1, 8, 8) to (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = block(1, 16)
        self.inner = block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge = block(32, 16)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine = self.down(images)
        coarse = self.up(self.inner(functional.max_pool2d(fine, 2)))
        logits: torch.Tensor = self.head(self.merge(torch.cat([coarse, fine], dim=1)))
        return logits


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())


def pixels() -> paretrim.Splits:
    images = digits()[0].view(-1, 1, 8, 8)
    ink = (images > 0.5).float()
    near = functional.max_pool2d(ink, 3, stride=1, padding=1)
    kinds = (2 * ink + (near - ink)).squeeze(1).long()
    kinds[::5, 0] = PAD
    return split(images, kinds)


def dollars() -> paretrim.Splits:
    """Numbers in the thousands."""
    targets = torch.from_numpy(load_diabetes().target).float()
    return split(torch.from_numpy(load_diabetes().data).float() * 20, 1000 * targets)


def ranks() -> paretrim.Splits:
    pixels, kinds = digits()
    count = len(pixels) // 4
    return split(pixels[: 4 * count].view(count, 4, 64), kinds[: 4 * count].view(count, 4))


def split(inputs: torch.Tensor, wanted: torch.Tensor) -> paretrim.Splits:
    parts = [slice(0, None, 2), slice(1, None, 4), slice(3, None, 4)]
    train, validation, test = ((inputs[part], wanted[part]) for part in parts)
    calibration = (train[0][:64], train[1][:64])
    return paretrim.Splits(train=train, calibration=calibration, validation=validation, test=test)


def for_numbers() -> nn.Module:
    return trained(perceptron(10, 1), numbers(), lambda out, wanted: functional.mse_loss(out[:, 0], wanted))


def for_dollars() -> nn.Module:
    targets = torch.from_numpy(load_diabetes().target).float()
    net = for_numbers()
    with torch.no_grad():
        for name in ("weight", "bias"):
            net.get_parameter(f"4.{name}").mul_(1000 * targets.std())
        net.get_parameter("4.bias").add_(1000 * targets.mean())
    return net


def for_pixels() -> nn.Module:
    return trained(Segmenter(), pixels(), lambda out, kinds: functional.cross_entropy(out, kinds, ignore_index=PAD))


def for_labels() -> nn.Module:
    return trained(perceptron(64, 3), labels(), binary)


def for_yes_or_no() -> nn.Module:
    return trained(perceptron(64, 1), yes_or_no(), lambda out, wanted: binary(out[:, 0], wanted))


def for_tokens() -> nn.Module:
    def loss(out: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(out.flatten(0, 1), wanted.flatten(), ignore_index=PAD)

    return trained(Tagger(), tokens(), loss)


def for_ranks() -> nn.Module:
    def loss(out: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(out, wanted / wanted.sum(1, keepdim=True).clamp_min(1))

    return trained(Ranker(), ranks(), loss)


def binary(out: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(out, wanted.float())


def trained(
    net: nn.Module, data: paretrim.Splits, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> nn.Module:
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            bound = max(1, parameter[0].numel()) ** -0.5
            parameter.uniform_(-bound, bound, generator=source)
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=3e-3)
    for epoch in range(12):
        for batch in data.search.train.batches(32, seed=epoch):
            optimizer.zero_grad()
            loss(batch.inputs.through(net), batch.labels).backward()
            optimizer.step()
    return net.eval()
