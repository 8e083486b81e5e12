"""What the exporters share: the inputs that they trace a model with, and what they say."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch

FIXED_BATCH = (
    "the model exports with a fixed number of samples only: somewhere it uses the batch size as a number, in a "
    "loop or a reshape; compute over dimension 0 instead"
)


def example_inputs(input_shape: tuple[int, ...], input_dtype: str) -> torch.Tensor:
    """Return inputs to trace a model with, shape ``(2, *input_shape)``: a batch of one would be taken for no batch."""
    return torch.zeros((2, *input_shape), dtype=getattr(torch, input_dtype))


def innermost(error: Exception) -> str:
    """Return the innermost cause in one line, since exporters wrap it in pages of advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters and quantizers: they log, warn and print about things that a user of paretrim cannot change."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
