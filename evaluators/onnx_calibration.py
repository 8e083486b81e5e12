"""How ONNX Runtime's quantizer takes the ranges of activations, kept within bounds of time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod

from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Calibrator
from paretrim.evaluators.target import Array

METHODS: Mapping[Calibrator, Any] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# The percentile's ranges would be symmetric around zero, which halves the codes that are left behind a ReLU.
OPTIONS: Mapping[str, Any] = {"CalibTensorRangeSymmetric": False, "CalibPercentile": 99.99}
_BATCH = 64
# The calibrators that make histograms keep what flows between layers for all their samples at once.
_HISTOGRAM_SAMPLES = 256
_BINS = 512
# The package has a function of the same name.
_QUANTIZE: Any = import_module("onnxruntime.quantization.quantize")


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Gives the quantizer batches of a split: all samples, or evenly spaced ones to calibrators that keep all."""

    def __init__(self, split: Split, names: Sequence[str], calibrator: Calibrator) -> None:
        self._batches: Iterator[dict[str, Array]] = (
            dict(zip(names, batch.inputs.arrays(), strict=True))
            for batch in surveyed(split, calibrator).batches(_BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch by the names of the inputs, or None."""
        return next(self._batches, None)


def surveyed(split: Split, calibrator: Calibrator) -> Split:
    """Return the samples of a split that a calibrator sees."""
    if calibrator == "minmax" or len(split) <= _HISTOGRAM_SAMPLES:
        return split
    return split.part(torch.linspace(0, len(split) - 1, _HISTOGRAM_SAMPLES).long())


@contextmanager
def fine_histograms(calibrator: Calibrator) -> Iterator[None]:
    """Let the calibrator by entropy choose among ranges.

    ``quantize_static`` gives it as many bins as there are quantized ones, 128, so that the whole range is its only
    choice, and has no setting for it.
    """
    made = _QUANTIZE.create_calibrator
    if calibrator == "entropy":
        _QUANTIZE.create_calibrator = lambda *given, extra_options, **named: made(
            *given, extra_options={**extra_options, "num_bins": _BINS}, **named
        )
    try:
        yield
    finally:
        _QUANTIZE.create_calibrator = made
