"""A model from a program of torch.export, without the code that made it.

Export it with a free number of samples, in evaluation mode:

    batch = torch.export.Dim("batch")
    program = torch.export.export(model.eval(), (x,), dynamic_shapes={"x": {0: batch}})  # x: two samples or more
    torch.export.save(program, "model.pt2")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the network; nothing in the file is run or unpickled."""
    return paretrim.models.from_pt2(HERE / "model.pt2")


def data() -> paretrim.Splits:
    """Return the four splits; see `paretrim init --template arrays` and the others."""
    return paretrim.data.from_arrays(np.load(HERE / "inputs.npy"), np.load(HERE / "labels.npy"))
