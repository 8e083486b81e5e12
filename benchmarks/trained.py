"""Trained models with their data, for benchmarks: LeNet-300-100 and LeNet-5 with MNIST, ResNet-20 with CIFAR-10-JPEG.

A job names them as ``benchmarks.trained:lenet5`` and ``benchmarks.trained:mnist_images``. The folder of the data
(`benchmarks.kept`) has ``mnist.npz`` (as Keras distributes it), ``cifar10-jpeg.tar.xz`` (CIFAR-10's images as JPEG files in
``train/CLASS`` and ``test/CLASS``) and ``resnet20-cifar10-jpeg.safetensors`` (weights of `ResNet20`).
"""

from __future__ import annotations

import io
import tarfile
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import paretrim
from benchmarks.kept import data_folder, trained

TRAINING_IMAGES = 5000
_EVERY = 10
_CALIBRATION, _VALIDATION = 256, 2000
Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class LeNet5(nn.Module):
    """Caffe's LeNet-5 of 431,000 weights: ``(N, 1, 28, 28)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 1, 28, 28)`` to logits ``(N, 10)``."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        logits: torch.Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return logits


class Padded(nn.Module):
    """The shortcut without weights of He et al. (2015), option A: every other pixel, and zeros for the new channels."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, C, H, W)`` to ``(N, C + added, H / 2, W / 2)``."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = Padded(outputs - inputs) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, C, H, W)`` to ``(N, C', H', W')``."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR of 270,000 weights: ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet20() -> nn.Module:
    """Return ResNet-20 with its trained weights."""
    net = ResNet20()
    net.load_state_dict(load_file(data_folder() / "resnet20-cifar10-jpeg.safetensors"), strict=False)
    return net.eval()


def lenet5() -> nn.Module:
    """Return LeNet-5, trained on the spot at the first call."""
    net = LeNet5()
    return trained(__file__, net, lambda: _train(net, mnist_images(), epochs=3), "lenet5")


def lenet300() -> nn.Module:
    """Return LeNet-300-100, trained on the spot at the first call."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    return trained(__file__, net, lambda: _train(net, mnist_images(), epochs=12), "lenet300")


def mnist_images() -> paretrim.Splits:
    """Return MNIST: 54,000 images to train with, 6,000 for validation and calibration, the usual 10,000 for the test."""
    with np.load(data_folder() / "mnist.npz") as file:
        arrays = {name: file[name] for name in file.files}
    order = np.random.default_rng(0).permutation(len(arrays["x_train"]))
    parts = np.split(order, [54_000, 54_000 + _CALIBRATION])
    train, calibration, validation = (
        (_grey(arrays["x_train"][part]), arrays["y_train"][part].astype(np.int64)) for part in parts
    )
    test = (_grey(arrays["x_test"]), arrays["y_test"].astype(np.int64))
    return paretrim.Splits(train=train, calibration=calibration, validation=validation, test=test)


def few_mnist_images() -> paretrim.Splits:
    """Return MNIST with 10,000 images to train with."""
    whole = mnist_images()
    search = whole.search
    few = search.train.part(torch.arange(10_000))
    return paretrim.Splits(
        train=few, calibration=search.calibration, validation=search.validation, test=whole.test.unseal()
    )


def cifar() -> paretrim.Splits:
    """Return CIFAR-10-JPEG with 5,000 images to train with, 2,000 of the test's for validation and 2,000 others to test."""
    train, held = _cifar_images()
    cut = TRAINING_IMAGES
    return paretrim.Splits(
        train=(train[0][:cut], train[1][:cut]),
        calibration=(train[0][cut:], train[1][cut:]),
        validation=(held[0][:_VALIDATION], held[1][:_VALIDATION]),
        test=(held[0][_VALIDATION:], held[1][_VALIDATION:]),
    )


def _grey(images: npt.NDArray[np.uint8]) -> Pixels:
    return ((images / 255 - 0.13066) / 0.30811).astype(np.float32)[:, None]


@cache
def _cifar_images() -> tuple[tuple[Pixels, Labels], tuple[Pixels, Labels]]:
    from PIL import Image

    found: dict[str, list[tuple[str, npt.NDArray[np.uint8]]]] = {"train": [], "test": []}
    counts = {"train": 0, "test": 0}
    with tarfile.open(data_folder() / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            if not member.isfile():
                continue
            split, kind, _ = member.name.split("/")
            counts[split] += 1
            file = archive.extractfile(member)
            # Of the training images some are enough: the model is trained already.
            if file is not None and (split == "test" or counts[split] % (_EVERY - 1) == 0):
                found[split].append((kind, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
    return _colour(found["train"], TRAINING_IMAGES + _CALIBRATION), _colour(found["test"], 2 * _VALIDATION)


def _colour(images: list[tuple[str, npt.NDArray[np.uint8]]], count: int) -> tuple[Pixels, Labels]:
    classes = sorted({kind for kind, _ in images})
    order = np.random.default_rng(0).permutation(len(images))[:count]
    pixels = np.stack([images[i][1] for i in order]) / np.float32(255)
    normal = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32), np.array(
        [classes.index(images[i][0]) for i in order], dtype=np.int64
    )


def _train(net: nn.Module, data: paretrim.Splits, epochs: int) -> None:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    split = data.search.train
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=epochs * -(-len(split) // 128), cycle_momentum=False
    )
    for epoch in range(epochs):
        for batch in split.batches(128, seed=epoch):
            optimizer.zero_grad()
            functional.cross_entropy(batch.inputs.through(net.train()), batch.labels).backward()
            optimizer.step()
            schedule.step()
