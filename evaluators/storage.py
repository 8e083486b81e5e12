"""How weights are stored in an artifact, and what is computed with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HALF = 16
PEAK = 127
"""The largest code of an 8-bit weight, either way."""
REDUCED_PEAK = 64
"""The largest of which two, times an unsigned byte each, add up within 16 bits."""
BLOCK = 32
"""Weights in a row of a matrix that have one step, where each block has its own."""

Sign = Literal["target", "unsigned", "signed"]
Calibrator = Literal["minmax", "percentile", "entropy"]


@dataclass(frozen=True)
class Storage:
    """The storage of the weights of a layer, or of a single weight of a module that has several.

    Attributes:
        bits: Per weight. From 2 to 8, weights are signed codes of 8 bits times a step, zero among them; 16 stores half floats.
        integers: Whether the layer computes with integers, which takes 8-bit activations too; otherwise its weights are
            widened, and it computes with floats (weight-only quantization). Embeddings and recurrent layers do so always.
        per_channel: Whether each output channel, or row of a table, has a grid of its own.
        in_blocks: Whether each `BLOCK` weights of a channel have a grid of their own; only for matrices, and where `per_channel`
            is true. The last block of a channel may be shorter.
        steps: Distance between neighbouring codes of each output channel (one number where `per_channel` is false, those of
            a channel's blocks after one another with `in_blocks`) in the torch model, as trained; None where the largest
            weight lies on the outermost code.
    """

    bits: int
    integers: bool = True
    per_channel: bool = True
    in_blocks: bool = False
    steps: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Activation:
    """How what flows between integer layers is put into 8 bits.

    Attributes:
        sign: Of the codes; ``target`` leaves it to the target's settings.
        calibrator: How ranges are taken from the calibration split: the whole range, its bulk, or the range that loses
            least information.
    """

    sign: Sign = "target"
    calibrator: Calibrator = "minmax"


def of_widths(bits: Mapping[str, int]) -> dict[str, Storage]:
    """Return plain storage of each layer by its bits per weight."""
    return {name: Storage(width) for name, width in bits.items()}
