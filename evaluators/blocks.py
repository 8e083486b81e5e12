"""Rows of a matrix in blocks, each of which has a step of its own."""

from __future__ import annotations

import numpy as np

from paretrim.evaluators.storage import BLOCK
from paretrim.evaluators.target import Array


def count(columns: int) -> int:
    """Return how many blocks a row of so many weights has; the last may be shorter."""
    return -(-columns // BLOCK)


def spread(scales: Array, columns: int) -> Array:
    """Return the scale of each weight of a matrix.

    Args:
        scales: Of each block of each row, shape ``(rows, blocks)``.
        columns: Weights in a row.

    Returns:
        Shape ``(rows, columns)``.
    """
    return np.repeat(scales, BLOCK, axis=1)[:, :columns]


def peaks(matrix: Array) -> Array:
    """Return the largest magnitude in each block of each row, shape ``(rows, blocks)``."""
    starts = np.arange(0, matrix.shape[1], BLOCK)
    found: Array = np.maximum.reduceat(np.abs(matrix), starts, axis=1)
    return found
