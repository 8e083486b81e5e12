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
    return _of_each(np.maximum, np.abs(matrix))


def lowest(matrix: Array) -> Array:
    """Return the least of each block of each row and zero, shape ``(rows, blocks)``."""
    return _of_each(np.minimum, matrix).clip(max=0)


def highest(matrix: Array) -> Array:
    """Return the largest of each block of each row and zero, shape ``(rows, blocks)``."""
    return _of_each(np.maximum, matrix).clip(min=0)


def _of_each(reduce: np.ufunc, matrix: Array) -> Array:
    found: Array = reduce.reduceat(matrix, np.arange(0, matrix.shape[1], BLOCK), axis=1)
    return found
