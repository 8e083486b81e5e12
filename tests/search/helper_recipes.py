"""A space whose objectives are known in closed form, so that what proposes recipes is tried without any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.signature import Signature
from paretrim.search.space import Space
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range, Value, existing
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.front import Objective
from paretrim.tracking.records import BASELINE, Epoch, TrialRecord
from paretrim.tracking.sensitivity import Effect, Profile

OBJECTIVES = (
    Objective("accuracy", maximize=True),
    Objective("latency_ms", noise=0.03),
    Objective("size_bytes"),
    Objective("memory_bytes", noise=0.05),
)
# Of each layer, how much it weighs and how much it hurts.
_LAYERS = {"stem": (1.0, 0.3), "inner": (2.0, 0.5), "outer": (4.0, 0.1), "head": (3.0, 0.2)}
_ANATOMY = Anatomy((), (), (), Signature.single((1,)))
_NOISE = 0.004


def _dimensions() -> tuple[Dimension, ...]:
    bits = [Choice(f"quantization.bits.{name}", (4, 8, "none"), "none") for name in _LAYERS]
    narrow = tuple(Condition(each.name, (4, 8)) for each in bits)
    return (
        *(Range(f"pruning.ratio.{name}", 0.0, 0.75, 0.0, step=0.125) for name in _LAYERS),
        *bits,
        Choice("quantization.family", ("uniform", "lsq"), "uniform", narrow),
        Range("recovery.learning_rate", 0.003, 0.1, 0.017, log=True),
        Choice("recovery.epochs", (4,), 0),
    )


SPACE = Space((WeightQuantization(QuantizationOptions()),), _ANATOMY, _dimensions())
NEUTRAL: dict[str, Value] = {each.name: each.neutral for each in SPACE.dimensions}


def objectives(values: Mapping[str, Value]) -> dict[str, float]:
    """Return what a recipe comes out at."""
    size = latency = memory = loss = 0.0
    learned = values.get("quantization.family") == "lsq"
    for name, (weight, hurt) in _LAYERS.items():
        kept = 1.0 - _number(values.get(f"pruning.ratio.{name}", 0.0))
        bits = values.get(f"quantization.bits.{name}", "none")
        width = bits if isinstance(bits, int) else 32
        size += weight * kept * width / 32
        latency += kept**0.7 * (1.0 if width == 32 else 0.45) / len(_LAYERS)
        memory += weight * kept * (1.0 if width == 32 else 0.4)
        rounding = {32: 0.0, 8: 0.01, 4: 0.1 * hurt * (0.6 if learned else 1.0)}[width]
        loss += 0.5 * hurt * (1.0 - kept) ** 2 + rounding
    astray = math.log(_number(values.get("recovery.learning_rate", 0.017)) / 0.02)
    return {
        "accuracy": max(0.1, 0.95 - 0.25 * loss - 0.01 * astray**2),
        "latency_ms": 0.05 + latency,
        "size_bytes": 1000.0 + 1e4 * size,
        "memory_bytes": 2e4 + 1e5 * memory,
    }


def trial(number: int, recipe: Recipe, chance: np.random.Generator | None = None, kind: str = "search") -> TrialRecord:
    """Return the record of a recipe, of which the score is a little off."""
    found = objectives(recipe.values)
    found["accuracy"] += 0.0 if chance is None else float(chance.normal(0.0, _NOISE))
    measured = tuple(Measurement(name, value) for name, value in found.items())
    epochs = (Epoch(0.5, found["accuracy"] - 0.02), Epoch(0.4, found["accuracy"] - 0.01))
    record = TrialRecord(number, kind, "complete", recipe.values, recipe.seed, measured, epochs=epochs)
    # As long as trials take for which thinking is worth it.
    return replace(record, seconds={"recover": 60.0})


def anchors() -> list[TrialRecord]:
    """Return the baseline, and 8 bits everywhere."""
    eight = {name: 8 for name in NEUTRAL if name.startswith("quantization.bits.")}
    recipes = [Recipe.of(existing(SPACE.dimensions, each)) for each in (NEUTRAL, {**NEUTRAL, **eight})]
    return [trial(0, recipes[0], kind=BASELINE), trial(1, recipes[1], kind="int8")]


def drawn(chance: np.random.Generator) -> dict[str, Value]:
    """Return a recipe's searched values at random, as a sampler without knowledge draws them."""
    found: dict[str, Value] = {}
    for each in SPACE.searched:
        if isinstance(each, Choice):
            found[each.name] = each.values[chance.integers(len(each.values))]
        elif each.step is not None:
            steps = round((each.high - each.low) / each.step)
            found[each.name] = each.low + float(chance.integers(steps + 1)) * each.step
        else:
            found[each.name] = each.low * (each.high / each.low) ** float(chance.random())
    return found


def profile() -> Profile:
    """Return what each knob does alone."""
    base, effects = objectives(NEUTRAL), []
    for each in SPACE.searched:
        if each.name.startswith("recovery.") or each.when:
            continue
        values = (8, 4) if isinstance(each, Choice) else (0.375, 0.75)
        for value in values:
            found = objectives({**NEUTRAL, each.name: value})
            loss, saved = 6.0 * (base["accuracy"] - found["accuracy"]), base["size_bytes"] - found["size_bytes"]
            effects.append(Effect(each.name, value, loss, None, saved))
    return Profile("accuracy", 100, 0.1, 0.95, 0.0, base["size_bytes"], tuple(effects))


Propose = Callable[[list[TrialRecord], Callable[[Recipe], bool]], dict[str, Value] | None]


def failed(record: TrialRecord, *, unfit: bool) -> TrialRecord:
    """Return a trial as if it had failed, for what its recipe makes or not."""
    return replace(record, state="failed", measurements=(), epochs=(), unfit=unfit)


def search(
    trials: int,
    seed: int,
    propose: Propose = lambda records, known: None,
    ends: Callable[[TrialRecord], TrialRecord] = lambda record: record,
) -> list[TrialRecord]:
    """Run a search, one trial after the other; what is not proposed is drawn at random.

    Args:
        trials: How many, the anchors included.
        seed: Of what is drawn and of the scores' noise.
        propose: Proposes recipes.
        ends: What becomes of a trial.
    """
    chance, records, tried = np.random.default_rng(seed), anchors(), set()
    while len(records) < trials:
        proposed = propose(records, lambda recipe: recipe.items in tried)
        recipe = SPACE.recipe(drawn(chance) if proposed is None else proposed, len(records))
        tried.add(recipe.items)
        records.append(ends(trial(len(records), recipe, chance)))
    return records


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
