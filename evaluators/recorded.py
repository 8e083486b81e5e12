"""Recorded samples: some inputs, and what an artifact answered to them, in one file of arrays without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretrim.evaluators.signature import INPUT
from paretrim.evaluators.target import Array

_INPUTS, _OUTPUTS = "inputs", "outputs"


@dataclass(frozen=True)
class Recorded:
    """Some samples.

    Attributes:
        inputs: By what they are called in the artifact, in its order, each of shape ``(N, ...)``.
        outputs: What it answered, shape ``(N, ...)``.
    """

    inputs: Mapping[str, Array]
    outputs: Array


def write(path: Path, samples: Recorded) -> None:
    """Write samples: a single input under ``inputs``, several under ``inputs.NAME``, and ``outputs``."""
    single = len(samples.inputs) == 1
    arrays: dict[str, Any] = {
        _INPUTS if single else f"{_INPUTS}.{name}": array for name, array in samples.inputs.items()
    }
    arrays[_OUTPUTS] = samples.outputs
    np.savez_compressed(path, **arrays)


def read(path: Path) -> Recorded:
    """Read samples.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is none of samples.
    """
    with np.load(path, allow_pickle=False) as file:
        several = f"{_INPUTS}."
        inputs = {
            name.removeprefix(several) if name != _INPUTS else INPUT: file[name]
            for name in file.files
            if name == _INPUTS or name.startswith(several)
        }
        if not inputs or _OUTPUTS not in file.files:
            raise ValueError(f"{path.name} has no inputs and outputs")
        return Recorded(inputs, file[_OUTPUTS])
