"""Five networks from about 20 microseconds to 20 milliseconds a call, with random weights: for timing, not for scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Subject:
    """A network to be measured.

    Attributes:
        name: What it is called in tables.
        make: Makes it, with the share of its width that is left after pruning.
        shape: Shape of one input.
        width: Share of the width of the compressed variant.
    """

    name: str
    make: Callable[[float], nn.Module]
    shape: tuple[int, ...]
    width: float


def subjects() -> tuple[Subject, ...]:
    """Return the five, the fastest first."""
    return (
        Subject("LeNet-300-100", _perceptron, (784,), 1.0),
        Subject("small ResNet, 8x8", lambda w: ResNet((16, 32, 64), 1, w, inputs=1), (1, 8, 8), 0.75),
        Subject("ResNet-20, 32x32", lambda w: ResNet((16, 32, 64), 3, w), (3, 32, 32), 0.75),
        Subject("transformer, 64x256", Encoder, (64, 256), 0.5),
        Subject("ResNet, 128x128", lambda w: ResNet((64, 128, 256), 2, w), (3, 128, 128), 0.75),
    )


def _perceptron(width: float) -> nn.Module:
    first, second = _scaled(300, width), _scaled(100, width)
    return nn.Sequential(nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10))


class ResNet(nn.Module):
    """Residual blocks in three stages, each stage at half the resolution of the one before."""

    def __init__(self, widths: tuple[int, ...], blocks: int, width: float, inputs: int = 3) -> None:
        super().__init__()
        scaled = [_scaled(w, width) for w in widths]
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, scaled[0], 3, 1, 1, bias=False), nn.BatchNorm2d(scaled[0]), nn.ReLU()
        )
        before, layers = scaled[0], []
        for stage, channels in enumerate(scaled):
            for block in range(blocks):
                layers.append(_Block(before, channels, 2 if stage and not block else 1))
                before = channels
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ten scores for each image ``(N, C, H, W)``."""
        out: torch.Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        same = inputs == outputs and stride == 1
        self.skip: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(self.first(x)) + self.skip(x))


class Encoder(nn.Module):
    """A transformer encoder of four layers over embedded tokens."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_EncoderLayer(256, _scaled(1024, width)) for _ in range(4)))
        self.head = nn.Linear(256, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return two scores for each sequence ``(N, tokens, 256)``."""
        out: torch.Tensor = self.head(self.layers(x).mean(1))
        return out


class _EncoderLayer(nn.Module):
    def __init__(self, size: int, hidden: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)
        self.before, self.after = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = self.before(x)
        query, key, value = (
            part(normal).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        hidden: torch.Tensor = x + self.down(functional.gelu(self.up(self.after(x))))
        return hidden


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
