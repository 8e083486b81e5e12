"""A model of timm with weights from a file, and images in one folder for each class. Needs paretrim[timm]."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the model; further options are those of timm.create_model."""
    return paretrim.models.from_timm("resnet10t", HERE / "weights.safetensors", num_classes=2)


def data() -> paretrim.Splits:
    """Return the four splits, with the mean and deviation that the model was trained with."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return paretrim.data.from_images(HERE / "images", size=(64, 64), mean=mean, std=std)
