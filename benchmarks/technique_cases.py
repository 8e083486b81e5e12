"""What `benchmarks/techniques.py` tries: the techniques' mild settings, the pairs, and the trained models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from paretrim.search.jobfile import EXAMPLE
from paretrim.spaces.dimension import Value

HERE = Path(__file__).resolve().parents[1]

Settings = Mapping[str, Value]
"""Values by the beginning of a knob's name: ``quantization.bits`` for the bits of all layers."""

EVERYTHING: dict[str, Any] = {
    "pruning": {"scope": "balanced", "importance": ["l2", "taylor", "geometric_median"]},
    "depth": {},
    "lowrank": {"energy": [0.5, 1.0]},
    "sparsity": {"scope": "balanced", "patterns": ["unstructured", "2:4"], "amount": [0.0, 0.95], "step": 0.05},
    "quantization": {
        "weight_bits": [2, 3, 4, 5, 8, 16, "none"],
        "families": ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"],
        "activations": ["target", "none"],
    },
    "distillation": {"methods": ["logits", "decoupled"], "transfers": ["none", "attention", "similarity"]},
}
MILD = 0.25
ALONE: dict[str, Settings] = {
    "recovery only": {},
    "pruning 25%": {"pruning.ratio": MILD},
    "pruning 25%, Taylor": {"pruning.ratio": MILD, "pruning.importance": "taylor"},
    "pruning 25%, geometric median": {"pruning.ratio": MILD, "pruning.importance": "geometric_median"},
    "depth: a block": {"depth.blocks": 1},
    "low rank": {"lowrank.energy": 0.9},
    "sparsity 50%": {"sparsity.amount": 0.5},
    "sparsity 2:4": {"sparsity.amount": 0.5, "sparsity.pattern": "2:4"},
    "float16": {"quantization.bits": 16},
    "8 bits": {"quantization.bits": 8},
    "8 bits, weights only": {"quantization.bits": 8, "quantization.activations": "none"},
    "4 bits": {"quantization.bits": 4},
    "4 bits, asymmetric": {"quantization.bits": 4, "quantization.family": "asymmetric"},
    "4 bits, LSQ": {"quantization.bits": 4, "quantization.family": "lsq"},
    "4 bits, powers of two": {"quantization.bits": 4, "quantization.family": "power_of_two"},
    "4 bits, codebook": {"quantization.bits": 4, "quantization.family": "codebook"},
    "4 bits, noise": {"quantization.bits": 4, "quantization.family": "noise"},
    "distillation": {"distillation.weight": 0.5, "distillation.temperature": 4.0},
    "distillation, decoupled": {
        "distillation.weight": 0.5,
        "distillation.temperature": 4.0,
        "distillation.method": "decoupled",
    },
    "distillation, attention": {"distillation.transfer": "attention", "distillation.transfer_weight": 1.0},
    "distillation, similarity": {"distillation.transfer": "similarity", "distillation.transfer_weight": 1.0},
}
PAIRED = ("pruning 25%", "depth: a block", "low rank", "sparsity 50%", "8 bits", "distillation")
TELLING = (
    ("pruning 25%", "8 bits"),
    ("pruning 25%", "4 bits"),
    ("sparsity 50%", "4 bits"),
    ("low rank", "8 bits"),
    ("pruning 25%", "distillation"),
    ("depth: a block", "distillation"),
)
SPEED: dict[str, Settings] = {
    "half the channels": {"pruning.ratio": 0.5},
    "half the channels + 8 bits": {"pruning.ratio": 0.5, "quantization.bits": 8},
}
QUICK = ("pruning 25%", "low rank", "sparsity 50%", "8 bits", "4 bits, codebook", "distillation")


@dataclass(frozen=True)
class Model:
    """A trained model with its data.

    Attributes:
        name: What it is called in the table.
        job: The parts of its job.
        rate: Learning rate of its recovery; what misses the bar on accuracy is made once more at half of it.
        recovery: Further settings of its recovery.
        epochs: How long it recovers; after channels were cut, so many times as long.
    """

    name: str
    job: dict[str, Any]
    rate: float
    recovery: dict[str, Any] = field(default_factory=dict)
    epochs: tuple[int, int] = (4, 1)


MODELS = (
    Model("digits", {"model": "digits:model", "data": "digits:data", "folder": EXAMPLE.parent}, 0.03),
    Model(
        "LeNet-5, MNIST",
        {"model": "benchmarks.trained:lenet5", "data": "benchmarks.trained:few_mnist_images", "folder": HERE},
        0.01,
        epochs=(2, 1),
    ),
    Model(
        "ResNet-20, CIFAR-10-JPEG",
        {"model": "benchmarks.trained:resnet20", "data": "benchmarks.trained:cifar", "folder": HERE},
        0.005,
        {"augment": ["flip", "shift"]},
        epochs=(4, 2),
    ),
)


def cases(model: str, quick: bool) -> Iterator[tuple[str, Settings]]:
    """Yield what is tried on a model."""
    yield from ((name, ALONE[name]) for name in (QUICK if quick else ALONE))
    if model == "digits" and not quick:
        yield from ((f"{a} + {b}", {**ALONE[a], **ALONE[b]}) for a, b in combinations(PAIRED, 2))
    if model.startswith("ResNet-20"):
        yield from ((f"{a} + {b}", {**ALONE[a], **ALONE[b]}) for a, b in (TELLING if not quick else ()))
        yield from SPEED.items()


def milder(case: str, settings: Settings) -> tuple[str, Settings]:
    """Return a case with half as many channels cut: a quarter is no mild setting where few images are there to recover with."""
    if settings.get("pruning.ratio") != MILD:
        return case, settings
    return case.replace(f"{MILD:.0%}", f"{MILD / 2:.1%}"), {**settings, "pruning.ratio": MILD / 2}
