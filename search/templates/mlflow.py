"""A model that was logged to MLflow, as a program of torch.export or by mlflow.transformers.

Log it so:  mlflow.pytorch.log_model(model, name="net", input_example=x, serialization_format="pt2")  # x: two samples or more
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import nn

import paretrim

HERE = Path(__file__).parent
# models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN/net, or a folder. The tracking server is MLFLOW_TRACKING_URI.
MODEL = os.environ.get("MODEL_URI", "models:/net/1")


def model() -> nn.Module:
    """Return the network; a pickled model is refused."""
    return paretrim.models.from_mlflow(MODEL)


def data() -> paretrim.Splits:
    """Return the four splits; see `paretrim init --template arrays` and the others."""
    return paretrim.data.from_arrays(np.load(HERE / "inputs.npy"), np.load(HERE / "labels.npy"))
