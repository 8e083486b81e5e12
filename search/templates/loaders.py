"""Data from torch's DataLoaders or Datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; see `paretrim init --template weights` and the others."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits: the loaders' datasets are taken, and what is not given is cut from `train`."""
    return paretrim.data.from_loaders(train=loader("train"), validation=loader("validation"))


def loader(split: str) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Put your loaders here, without random transforms: a search augments with space.recovery.augmentation."""
    inputs, labels = (np.load(HERE / f"{split}_{part}.npy") for part in ("inputs", "labels"))
    return DataLoader(TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels)), batch_size=64, shuffle=True)
