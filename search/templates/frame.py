"""Data from a table: a Parquet file, or a pandas frame."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; see `paretrim init --template weights` and the others."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits: numbers as floats, words as their positions in alphabetical order; no missing values."""
    return paretrim.data.from_frame(
        HERE / "table.parquet",
        label="label",
        # inputs=["age", "height"],                             # by default all but the label and the group
        # inputs={"numbers": ["age", "height"], "city": "city"},  # for a model that takes several inputs by name
        # group="patient",                                      # no group is in two splits
    )
