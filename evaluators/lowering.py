"""What the exporters share: the inputs that they trace a model with, and what they say."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, TypedDict

import torch

from paretrim.evaluators.inputs import zeros
from paretrim.evaluators.signature import Signature

FIXED_BATCH = (
    "the model exports with a fixed number of samples only: somewhere it uses the batch size as a number, in a "
    "loop or a reshape; compute over dimension 0 instead"
)


class Traced(TypedDict):
    """What an exporter traces a model with."""

    args: tuple[torch.Tensor, ...]
    kwargs: dict[str, torch.Tensor]
    dynamic_shapes: tuple[Any, ...] | dict[str, Any]


def traced(inputs: Signature) -> Traced:
    """Return inputs to trace a model with, with a free number of samples: two, since one would be taken for none."""
    example, free = zeros(inputs, 2), torch.export.Dim("batch")
    if inputs.named:
        return Traced(
            args=(),
            kwargs=dict(zip(inputs.names, example.parts, strict=True)),
            dynamic_shapes={name: {0: free} for name in inputs.names},
        )
    return Traced(args=example.parts, kwargs={}, dynamic_shapes=tuple({0: free} for _ in example.parts))


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
