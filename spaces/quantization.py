"""Quantization of weights: fewer bits per weight, trained in with fake quantization or rounded after training.

Here weights are put on grids. Turning a grid into integers, and activations into 8 bits, is the target's work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from typing import ClassVar, cast

from torch import nn

from paretrim.evaluators.abilities import GRIDS
from paretrim.evaluators.parametrized import owner
from paretrim.evaluators.storage import BLOCK, HALF, PEAK, Activation, Calibrator, Sign, Storage
from paretrim.spaces.anatomy import Anatomy, parts_of
from paretrim.spaces.dimension import Choice, Condition, Dimension, Value
from paretrim.spaces.flow import layers_run
from paretrim.spaces.gridding import put_on_grids, reconstruct, record_of, settle
from paretrim.spaces.quantization_options import PLAIN, RECONSTRUCT, QuantizationOptions
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.rewriting import stand_in
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.spaces.weight_grids import Family, Form, Steps

__all__ = ["QuantizationOptions", "WeightQuantization"]

_BATCHES, _BATCH_SIZE = 4, 32
"""Samples that reconstruction looks at."""


class WeightQuantization(Technique):
    """Puts weights on symmetric grids, with straight-through gradients, and chooses how activations are quantized."""

    name: ClassVar[str] = "quantization"
    stage: ClassVar[int] = 50
    by_default: ClassVar[bool] = True
    branches: ClassVar[bool] = True
    Options: ClassVar[type[TechniqueOptions]] = QuantizationOptions
    options: QuantizationOptions

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        """Return one width for each group that shares it, and what all of 8 bits or fewer share.

        A setting that has its plain value alone is no dimension. Those of activations are of layers only: embeddings and
        recurrent layers take and give floats.
        """
        layers = tuple(
            Choice(f"quantization.bits.{name}", self._widths(any(x.first or x.last for x in layers)), "none")
            for name, layers in anatomy.layer_groups()
        )
        widths = (*layers, *self._other_widths(anatomy, {each.name for each in layers}))
        if not any(width in GRIDS for each in widths for width in each.values):
            return widths
        knobs = [*widths]
        for setting, values in self._settings(anatomy).items():
            concerned = layers if setting in ("activations", "calibration") else widths
            when = tuple(Condition(each.name, GRIDS) for each in concerned)
            if setting == "calibration" and any(each.name == "quantization.activations" for each in knobs):
                when = (Condition("quantization.activations", ("target", "unsigned", "signed")),)
            if values != (PLAIN[setting],) and concerned:
                knobs.append(Choice(f"quantization.{setting}", values, PLAIN[setting], when))
        return tuple(knobs)

    def left_out(self, anatomy: Anatomy) -> Mapping[str, str]:
        """Return that there are no blocks, where they were asked for."""
        if "block" not in self.options.granularity or self._has_blocks(anatomy):
            return {}
        why = "blocks are for weights that are computed with as floats, and all of this model run as integers"
        return {"granularity: block": f"{why}; add none to activations"}

    def anchors(self, anatomy: Anatomy) -> Mapping[str, Mapping[str, Value]]:
        """Return plain float16 and plain int8."""
        groups = (*anatomy.layer_groups(), *anatomy.weight_only_groups())
        names = [f"quantization.bits.{name}" for name, _ in groups]
        return {"float16": dict.fromkeys(names, HALF), "int8": dict.fromkeys(names, 8)}

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Let what only picks channels be a layer where integers run: as slices and padding it would run as floats."""
        bits = _bits(recipe, anatomy, model).values()
        if anatomy.abilities.integers and 2 * sum(width in GRIDS for width in bits) > len(bits):
            stand_in(model, anatomy.example())

    def attach(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Let weights be computed with on their grids, while gradients reach the weights themselves."""
        if _value(recipe, "training") == "aware":
            _put_on_grids(model, recipe, anatomy)

    def refine(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        """Round the weights layer by layer, where that is asked for."""
        if _value(recipe, "training") == RECONSTRUCT:
            forms, family = _grids(model, recipe, anatomy)
            drawn = islice(schooling.batches(_BATCH_SIZE, recipe.seed), _BATCHES)
            with schooling.working():
                done = reconstruct(model.eval(), forms, family, (batch.inputs for batch in drawn))
            rest = {path: form for path, form in forms.items() if path not in done}
            put_on_grids(model, rest, family, recipe.seed)

    def bake(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
        """Replace the weights by those on the grid."""
        if _value(recipe, "training") == "post":
            _put_on_grids(model, recipe, anatomy)
        settle(model)

    def storage(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> Mapping[str, Storage]:
        """Return how what is not left at 32 bits is stored, with the steps that `bake` has left there.

        Embeddings and recurrent layers go by the paths of their weights; they take and give floats in any case.
        """
        integers = _value(recipe, "activations") != "none"
        layers, others = _bits(recipe, anatomy, model), _other_bits(recipe, anatomy, model)
        stored = {name: _stored(model, f"{name}.weight", bits, integers) for name, bits in layers.items()}
        return stored | {path: _stored(model, path, bits, False) for path, bits in others.items()}

    def activation(self, recipe: Recipe) -> Activation | None:
        """Return the sign and the calibration, or None where both are the target's own way."""
        sign, calibrator = _value(recipe, "activations"), _value(recipe, "calibration")
        if sign in ("target", "none") and calibrator == "minmax":
            return None
        return Activation("target" if sign == "none" else cast("Sign", sign), cast("Calibrator", calibrator))

    def _other_widths(self, anatomy: Anatomy, known: Collection[str]) -> tuple[Choice, ...]:
        """Return one width for each group of embeddings and recurrent layers that has not that of some layers."""
        names = [f"quantization.bits.{name}" for name, _ in anatomy.weight_only_groups()]
        return tuple(Choice(name, self.options.weight_bits, "none") for name in names if name not in known)

    def _widths(self, at_end: bool) -> tuple[Value, ...]:
        widths = self.options.weight_bits
        if not at_end:
            return widths
        return tuple(dict.fromkeys(w if w == "none" else max(w, self.options.ends_bits) for w in widths))

    def _has_blocks(self, anatomy: Anatomy) -> bool:
        """Tell whether some weights can be computed with as floats."""
        floats = "none" in self.options.activations or not anatomy.abilities.integers
        return floats or bool(anatomy.weight_only)

    def _settings(self, anatomy: Anatomy) -> dict[str, tuple[Value, ...]]:
        """Return the values of each setting that the target would heed."""
        able, given = anatomy.abilities, self.options
        signs = tuple(a for a in given.activations if able.signs or a not in ("unsigned", "signed"))
        return {
            "family": given.families,
            "granularity": tuple(g for g in given.granularity if g != "block" or self._has_blocks(anatomy))
            or ("channel",),
            "training": given.training,
            "activations": (signs or ("target",)) if able.integers else ("target",),
            "calibration": given.calibration if able.integers and signs != ("none",) else ("minmax",),
        }


def _value(recipe: Recipe, setting: str) -> str:
    return str(recipe.values.get(f"quantization.{setting}", PLAIN[setting]))


def _bits(recipe: Recipe, anatomy: Anatomy, model: nn.Module) -> dict[str, int]:
    """Return the bits of each layer of a model, by module path."""
    known: dict[str, int] = {}
    for name, layers in anatomy.layer_groups():
        width = recipe.values.get(f"quantization.bits.{name}", "none")
        bits = width if isinstance(width, int) else 0
        known |= {part: bits for layer in layers for part in parts_of(model, layer.name)}
    if 2 * sum(bits in GRIDS for bits in known.values()) > len(known):
        # A layer that another technique has put in would break the chain of integers.
        others = layers_run(model, anatomy.example()).keys() - known.keys() - anatomy.unused
        known |= dict.fromkeys(sorted(others), 8)
    return {name: bits for name, bits in known.items() if bits}


def _other_bits(recipe: Recipe, anatomy: Anatomy, model: nn.Module) -> dict[str, int]:
    """Return the bits of each weight of embeddings and recurrent layers, by its path."""
    there = {name for name, _ in model.named_modules()}
    known: dict[str, int] = {}
    for name, modules in anatomy.weight_only_groups():
        width = recipe.values.get(f"quantization.bits.{name}", "none")
        if isinstance(width, int):
            known |= {path: width for each in modules if each.name in there for path in each.weights}
    return known


def _put_on_grids(model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> None:
    put_on_grids(model, *_grids(model, recipe, anatomy), recipe.seed)


def _grids(model: nn.Module, recipe: Recipe, anatomy: Anatomy) -> tuple[dict[str, Form], Family]:
    """Return the form of the grid of each weight that is on one, by the weight's path, and the family of them all."""
    layers = {f"{name}.weight": bits for name, bits in _bits(recipe, anatomy, model).items() if bits in GRIDS}
    others = {path: bits for path, bits in _other_bits(recipe, anatomy, model).items() if bits in GRIDS}
    wanted = cast("Steps", _value(recipe, "granularity"))
    integers = bool(anatomy.abilities.integers) and _value(recipe, "activations") != "none"
    # Folding batch normalization gives each channel a factor of its own, after which no step is common to them.
    normed = layers_run(model, anatomy.example()) if layers and wanted == "tensor" else {}
    own = {f"{name}.weight" for name, meets_norm in normed.items() if meets_norm}
    forms = {}
    for path, bits in (layers | others).items():
        whole = path in own or (wanted == "block" and ((integers and path in layers) or not _is_wide(model, path)))
        peak = anatomy.abilities.peak if integers and path in layers else PEAK
        forms[path] = Form(bits, "channel" if whole else wanted, peak)
    return forms, cast("Family", _value(recipe, "family"))


def _is_wide(model: nn.Module, path: str) -> bool:
    module, name = owner(model, path)
    weight = getattr(module, name)
    return bool(weight.dim() == 2 and weight.shape[1] > BLOCK)


def _stored(model: nn.Module, path: str, bits: int, integers: bool) -> Storage:
    if bits == HALF:
        return Storage(bits)
    record = record_of(model, path)
    if record is None or record.steps is None:
        return Storage(bits, integers)
    in_blocks = record.kind == "block"
    steps = tuple(record.steps.tolist())
    return Storage(bits, integers and not in_blocks, record.kind != "tensor", in_blocks, steps)
