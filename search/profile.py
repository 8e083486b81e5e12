"""The sensitivity profile: what each knob does to the model alone, without training. It answers: which layer hurts?

For each value, loss and score are those of the torch model, before any recovery. Time is measured on the target, all
artifacts in turns with the baseline, for the strongest value of a range and for each kind of number that layers compute
with; between, it is predicted in proportion to the bytes saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paretrim.errors import ParetrimError
from paretrim.evaluators.abilities import GRIDS
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import time_quietly
from paretrim.evaluators.parametrized import weight_path
from paretrim.evaluators.splits import Batch
from paretrim.evaluators.storage import Storage
from paretrim.search.context import TrialContext
from paretrim.search.station import lay_out
from paretrim.search.workshop import Workshop
from paretrim.spaces.device import answers, part_of
from paretrim.spaces.dimension import Choice, Dimension, Range, Value, existing
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import CPU
from paretrim.spaces.technique import TRAINING
from paretrim.tracking.sensitivity import Effect, Profile

_TOGETHER = 8
_SAYING_S = 15.0


@dataclass(frozen=True)
class _Pains:
    """How closely is looked.

    Attributes:
        samples: Whose loss is taken, where the model is small.
        levels: Values of each range.
        work: Floating-point operations, of which a core does some 10^11 in a second: a large model gets fewer samples.
    """

    samples: int
    levels: int
    work: float


_FULL, _GLANCE = _Pains(512, 3, 6e13), _Pains(128, 2, 6e12)
_FEWEST = 16


def profile(context: TrialContext, tell: Callable[[int, int, str], None]) -> Profile:
    """Take the profile of a search's model.

    Args:
        context: The search's model, data, space and targets.
        tell: Told after each step how many are done, of how many, and which knob comes next.
    """
    lane = Lane(gpus=context.gpus)
    taker = _Taker(context, Workshop(context, lane), _FULL)
    effects = taker.effects(tell)
    with TemporaryDirectory(prefix="paretrim-") as folder:
        latency_ms, saved = _timed(context, taker, _to_time(effects), Path(folder), lane)
    return Profile(
        metric=context.metric.name,
        samples=len(taker.batch.inputs),
        loss=taker.loss,
        score=taker.score,
        latency_ms=latency_ms,
        weight_bytes=taker.bytes,
        effects=tuple(_predicted(effect, effects, saved) for effect in effects),
    )


def glance(context: TrialContext, say: Callable[[str], None] = lambda _: None) -> Profile:
    """Take the part of a profile that a search begins with: fewer values on fewer samples, and no times.

    Args:
        context: The search's model, data, space and targets.
        say: Told now and then how far it is, where it takes long.
    """
    taker = _Taker(context, Workshop(context, Lane(gpus=context.gpus)), _GLANCE)
    effects = tuple(taker.effects(_now_and_then(say)))
    return Profile(context.metric.name, len(taker.batch.inputs), taker.loss, taker.score, 0.0, taker.bytes, effects)


def _now_and_then(say: Callable[[str], None]) -> Callable[[int, int, str], None]:
    said = time.monotonic()

    def tell(done: int, total: int, _: str) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAYING_S:
            said = time.monotonic()
            say(f"looked at {done} of {total} values")

    return tell


def _values(dimensions: Sequence[Dimension], context: TrialContext, levels: int) -> Iterator[tuple[Dimension, Value]]:
    acting = {part.name for part in context.space.techniques if part.stage < TRAINING}
    alone = existing(dimensions, _plain(dimensions))
    for dimension in dimensions:
        if dimension.name.partition(".")[0] in acting and dimension.name in alone:
            for value in _levels(dimension, levels):
                yield dimension, value


def _plain(dimensions: Sequence[Dimension]) -> dict[str, Value]:
    """Return the values that all knobs but one have: neutral ones, but a way of doing things that the job allows."""
    return {each.name: _usual(each) for each in dimensions}


def _usual(dimension: Dimension) -> Value:
    if not isinstance(dimension, Choice) or dimension.neutral in dimension.values:
        return dimension.neutral
    # A word that stands only where a knob is turned says how that is done: with which pattern, on which family of grids.
    how = bool(dimension.when) and isinstance(dimension.neutral, str)
    return dimension.values[0] if how else dimension.neutral


def _levels(dimension: Dimension, count: int) -> Iterator[Value]:
    if isinstance(dimension, Choice):
        yield from (value for value in dimension.values if value != dimension.neutral)
        return
    far = dimension.high if dimension.high != dimension.neutral else dimension.low
    levels = (dimension.neutral + (far - dimension.neutral) * i / count for i in range(1, count + 1))
    yield from dict.fromkeys(value for value in (_on_grid(dimension, x) for x in levels) if value != dimension.neutral)


def _on_grid(dimension: Range, value: float) -> float:
    if dimension.step is None:
        return max(dimension.low, value)
    return dimension.low + max(0, round((value - dimension.low) / dimension.step)) * dimension.step


class _Taker:
    """Makes models with one knob turned, and tells what that does to them."""

    def __init__(self, context: TrialContext, workshop: Workshop, pains: _Pains) -> None:
        self._context = context
        self._workshop = workshop
        self._plain = _plain(context.space.dimensions)
        self._turned = list(_values(context.space.dimensions, context, pains.levels))
        self.batch: Batch = context.splits.train.first(self._affordable(pains))
        self.loss, self.score = self._judge(context.model)
        self.bytes = _weight_bytes(context.model, {})

    def effects(self, tell: Callable[[int, int, str], None]) -> list[Effect]:
        found: list[Effect] = []
        for done, (dimension, value) in enumerate(self._turned):
            tell(done, len(self._turned), dimension.name)
            found.append(self.effect(dimension, value))
        return found

    def recipe(self, knob: str, value: Value) -> Recipe:
        return Recipe.of(existing(self._context.space.dimensions, {**self._plain, knob: value}))

    def made(self, recipe: Recipe) -> nn.Module:
        return self._workshop.begin(recipe).untrained()

    def effect(self, dimension: Dimension, value: Value) -> Effect:
        recipe = self.recipe(dimension.name, value)
        try:
            model = self.made(recipe)
        except ParetrimError as error:
            return Effect(dimension.name, value, None, None, 0.0, failed=str(error))
        loss, score = self._judge(model)
        stored = self._workshop.storage(model, recipe)
        saved = self.bytes - _weight_bytes(model, stored)
        return Effect(dimension.name, value, loss - self.loss, score - self.score, saved)

    def lower(self, effect: Effect, folder: Path) -> Path:
        recipe = self.recipe(effect.knob, effect.value)
        target = self._context.stations[0].address.build()
        artifact = self._workshop.lowered(target, self.made(recipe), recipe, folder)
        path = folder / artifact.path.stem
        path.write_bytes(artifact.read())
        return path

    def _affordable(self, pains: _Pains) -> int:
        one = self._context.splits.train.first(1)
        with FlopCounterMode(display=False) as counted:
            answers(self._context.model.eval(), [one], CPU)
        each = max(1, counted.get_total_flops()) * (1 + len(self._turned))
        return max(_FEWEST, min(pains.samples, int(pains.work / each)))

    def _judge(self, model: nn.Module) -> tuple[float, float]:
        metric, batch = self._context.metric, self.batch
        parts = (part_of(batch, start, start + 128) for start in range(0, len(batch.index), 128))
        outputs = answers(model.eval(), parts, self._context.place)
        return float(metric.loss(outputs, batch.labels)), metric(outputs, batch.labels)


def _weight_bytes(model: nn.Module, stored: Mapping[str, Storage]) -> float:
    """Return the bytes of all parameters, those of zeros as few as any packer could make them."""
    modules = {name for name, _ in model.named_modules()}
    widths = {weight_path(name, modules): each.bits for name, each in stored.items()}
    # Weights that two modules have in common come once.
    return sum(_bits_of(parameter, widths.get(name, 32)) / 8 for name, parameter in model.named_parameters())


def _bits_of(parameter: torch.Tensor, width: int) -> float:
    dense = float((parameter != 0).float().mean()) if parameter.numel() else 1.0
    if dense in (0.0, 1.0):
        return parameter.numel() * dense * width
    where = -dense * math.log2(dense) - (1 - dense) * math.log2(1 - dense)
    return parameter.numel() * min(float(width), where + dense * width)


def _kind(effect: Effect) -> object:
    """Return what layers compute with: all codes of 2 to 8 bits run as the same 8-bit integers."""
    return "integers" if effect.knob.startswith("quantization.bits.") and effect.value in GRIDS else "range"


def _to_time(effects: Sequence[Effect]) -> list[Effect]:
    """Return for each knob, and each kind of number that it brings about, the effect that saves most bytes."""
    strongest: dict[tuple[str, object], Effect] = {}
    for effect in effects:
        key = (effect.knob, _kind(effect))
        if not effect.failed and (key not in strongest or effect.bytes_saved > strongest[key].bytes_saved):
            strongest[key] = effect
    return list(strongest.values())


def _timed(
    context: TrialContext, taker: _Taker, effects: Sequence[Effect], folder: Path, lane: Lane
) -> tuple[float, dict[tuple[str, object], float | str]]:
    """Return the baseline's latency, and for each effect the milliseconds that it saves, or why it was not timed."""
    bench = lay_out(context.stations[0], context.splits.validation, folder / "bench", lane)
    saved: dict[tuple[str, object], float | str] = {}
    latency_ms = bench.reference_ms or 0.0
    for start in range(0, len(effects), _TOGETHER):
        paths: dict[tuple[str, object], Path] = {}
        for effect in effects[start : start + _TOGETHER]:
            key = (effect.knob, _kind(effect))
            try:
                paths[key] = taker.lower(effect, folder / f"{start}-{len(paths)}")
            except ParetrimError as error:
                saved[key] = str(error)
        if paths:
            found, _ = time_quietly((bench.baseline, *paths.values()), bench, bench.reference_ms)
            latency_ms = latency_ms or found.models[0].latency_ms[0]
            saved |= {k: latency_ms * (1 - t.ratio[0]) for k, t in zip(paths, found.models[1:], strict=True)}
    return latency_ms, saved


def _predicted(effect: Effect, effects: Sequence[Effect], saved: Mapping[tuple[str, object], float | str]) -> Effect:
    key = (effect.knob, _kind(effect))
    known = saved.get(key)
    if effect.failed or known is None:
        return effect
    if isinstance(known, str):
        return replace(effect, failed=known)
    timed = next(each for each in _to_time(effects) if (each.knob, _kind(each)) == key)
    share = 1.0 if _kind(effect) == "integers" or not timed.bytes_saved else effect.bytes_saved / timed.bytes_saved
    return replace(effect, ms_saved=known * share, measured=effect == timed)
