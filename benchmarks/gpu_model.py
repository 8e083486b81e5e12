"""What the benchmark of the GPU trains and times: a small residual network on random images, with torch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.device import Samples
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling

IMAGE, CLASSES = (3, 32, 32), 10


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if (inputs, stride) != (outputs, 1) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y = functional.relu(self.norm1(self.first(x)))
        return functional.relu(self.norm2(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Six blocks of three widths: images ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stem, self.norm = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            *(
                Block(widths[max(0, stage - (part == 0))], wide, 2 if stage and part == 0 else 1)
                for stage, wide in enumerate(widths)
                for part in range(2)
            )
        )
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def resnet(width: int = 32) -> ResNet:
    """Return a network with the same weights each time, in evaluation mode."""
    torch.manual_seed(0)
    return ResNet(width).eval()


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise with a pattern of its class in each image, ``(count, 3, 32, 32)``, and the classes."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    patterns = torch.randn((CLASSES, *IMAGE), generator=source)
    return patterns[labels] + 2.0 * torch.randn((count, *IMAGE), generator=source), labels


def schooling(
    count: int, device: torch.device, working: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Schooling:
    """Return what there is to train with: so many images."""
    inputs, labels = images(count)

    def batches(size: int, seed: int) -> Iterator[Samples]:
        for index in torch.randperm(count, generator=torch.Generator().manual_seed(seed)).split(size):
            yield Samples(Inputs.of(inputs[index]), labels[index], index)

    return Schooling(batches, count, None, _loss, working, device=device)


def recipe(epochs: int, precision: str = "32") -> Recipe:
    """Return how to train."""
    values: dict[str, int | float | str] = {
        "epochs": epochs,
        "batch_size": 128,
        "learning_rate": 0.02,
        "momentum": 0.9,
        "precision": precision,
    }
    return Recipe.of({f"recovery.{name}": value for name, value in values.items()}, 0)


def _loss(outputs: torch.Tensor, labels: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels)
