"""What a job can say of quantization."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from paretrim.evaluators.abilities import GRIDS
from paretrim.evaluators.storage import Calibrator
from paretrim.spaces.technique import TechniqueOptions
from paretrim.spaces.weight_grids import Family, Steps

Bits = Literal[2, 3, 4, 5, 6, 7, 8, 16, "none"]
EndBits = Literal[2, 3, 4, 5, 6, 7, 8, 16]
Training = Literal["aware", "post", "reconstruct"]
Activations = Literal["target", "unsigned", "signed", "none"]

RECONSTRUCT = "reconstruct"
EQUAL_STEPS: tuple[Family, ...] = ("uniform", "asymmetric", "lsq")

PLAIN = {
    "family": "uniform",
    "granularity": "channel",
    "training": "aware",
    "activations": "target",
    "calibration": "minmax",
}
"""What a recipe means that does not name a setting, and what the int8 model of every table is made with."""


class QuantizationOptions(TechniqueOptions):
    """Settings of quantization. Where several values are given, each trial has one of them.

    Attributes:
        weight_bits: Widths to choose from for each group of layers; ``none`` keeps 32-bit floats, 16 stores half
            floats that run as floats. Layers of 2 to 8 bits get 8-bit activations and run as integers, unless
            `activations` says otherwise.
        ends_bits: The least width of the first and the last layer, which lose most and weigh least.
        families: Which values the weights of a layer can take: ``uniform`` steps, as many above zero as below;
            ``asymmetric`` (uniform steps from the least weight to the largest; as ``uniform`` at 8 bits), ``lsq`` (uniform
            steps that are learned), ``power_of_two`` (uniform from 5 bits on), ``codebook`` (k-means; uniform at 8 bits),
            ``noise`` (uniform; in training a random half of the weights at a time).
        granularity: Whether each output channel has a step of its own, each ``block`` of 32 weights in a row of it, or all of
            a layer (``tensor``) share one. A layer before batch normalization has one for each channel where others share
            one. Blocks are for matrices that are computed with as floats: linear layers with `activations` ``none`` or on a
            target without integers, embeddings, recurrent layers; all else has a step for each channel beside them.
        training: ``aware`` trains with the weights on their grids; ``post`` rounds them after training;
            ``reconstruct`` too, layer by layer, so that each layer's outputs on some training samples change least.
        activations: The 8-bit codes between integer layers: ``unsigned``, ``signed``, or as the ``target`` says;
            ``none`` keeps floats between layers, and weights are widened.
        calibration: How the ranges of activations are taken: all of what is seen (``minmax``), its bulk
            (``percentile``), or what loses least information (``entropy``).
    """

    weight_bits: tuple[Bits, ...] = (4, 8, "none")
    ends_bits: EndBits = 8
    families: tuple[Family, ...] = ("uniform",)
    granularity: tuple[Steps, ...] = ("channel",)
    training: tuple[Training, ...] = ("aware",)
    activations: tuple[Activations, ...] = ("target",)
    calibration: tuple[Calibrator, ...] = ("minmax",)

    @field_validator("weight_bits", "activations", mode="before")
    @classmethod
    def _none_by_name(cls, value: object) -> object:
        # YAML's null, and Python's None, mean the same as the word.
        return tuple("none" if item is None else item for item in value) if isinstance(value, list | tuple) else value

    @field_validator("families", "granularity", "training", "activations", "calibration", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("weight_bits")
    @classmethod
    def _some_widths(cls, value: tuple[Bits, ...]) -> tuple[Bits, ...]:
        if not value:
            raise ValueError("is empty; name at least one of 2 to 8, 16 and none, or turn quantization off")
        return tuple(dict.fromkeys(value))

    @field_validator("families", "granularity", "training", "activations", "calibration")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty; name at least one value, or leave it out")
        return tuple(dict.fromkeys(value))

    @field_validator("families", "granularity", "training", "activations", "calibration")
    @classmethod
    def _on_grids(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        idle = not any(width in GRIDS for width in info.data.get("weight_bits", GRIDS))
        return cls.heeded(value, info, idle, "without a width of 2 to 8 bits; name one in weight_bits")

    @field_validator("training")
    @classmethod
    def _of_equal_steps(cls, value: tuple[Training, ...], info: ValidationInfo) -> tuple[Training, ...]:
        others = [each for each in info.data.get("families", ()) if each not in EQUAL_STEPS]
        if RECONSTRUCT in value and others:
            raise ValueError(
                f"{RECONSTRUCT} is for grids of equal steps ({', '.join(EQUAL_STEPS)}), and families has {', '.join(others)}; "
                "leave one of the two out"
            )
        return value

    @field_validator("calibration")
    @classmethod
    def _of_integers(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        idle = info.data.get("activations") == ("none",)
        return cls.heeded(value, info, idle, "where floats stay between layers; name another of activations than none")
