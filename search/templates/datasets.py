"""Data of the Hugging Face datasets library, from local files. Needs paretrim[datasets]."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; see `paretrim init --template weights` and the others."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits: those that the dataset has, the others cut from `train`."""
    return paretrim.data.from_datasets(
        HERE / "dataset",  # a folder of save_to_disk, a .parquet, .json or .csv file, or {"train": file, "test": file}
        inputs="values",  # a column; a tuple or a mapping for a model of several inputs; for texts give a tokenizer
        label="label",
    )
