"""Data from images, in one folder for each class: images/cat/1.png. Or such folders in images/train, /val and /test."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; see `paretrim init --template weights` and the others."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits; the names of the classes, and how pixels become inputs, come along into a bundle."""
    return paretrim.data.from_images(
        HERE / "images",
        size=(32, 32),  # height and width that the model takes
        mean=(0.5, 0.5, 0.5),  # after scaling to 0..1, as in the model's training
        std=(0.5, 0.5, 0.5),
    )
