"""Data from NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; see `paretrim init --template weights` and the others."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits: the same shares of each class, and no group in two of them."""
    return paretrim.data.from_arrays(
        np.load(HERE / "inputs.npy"),  # (N, ...); a tuple or a mapping of such for a model of several inputs
        np.load(HERE / "labels.npy"),  # (N,) whole numbers for classes
        # test=(np.load(HERE / "test_inputs.npy"), np.load(HERE / "test_labels.npy")),  # taken as it is
        # groups=np.load(HERE / "patients.npy"),
        shares=paretrim.data.Shares(validation=0.2, test=0.2, calibration=512, seed=0),
    )
