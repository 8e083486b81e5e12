"""Looks at the far end of a space: what its techniques save there together, measured of models that nobody trains.

What a knob does to the whole model tells little of what it does to a small one: where most channels are gone, 8-bit layers
may take longer than floats. A look costs a second or two and no training, so a search begins with some: with each technique
at its strongest alone, and with all but one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from paretrim.errors import ParetrimError
from paretrim.evaluators.lane import Lane
from paretrim.search.context import TrialContext
from paretrim.search.extremes import families
from paretrim.search.station import Station
from paretrim.search.workshop import Workshop
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import Preview, TrialRecord
from paretrim.tracking.sensitivity import Profile

LOOK = "look"
"""The kind of a look's record, which is in no study and on no front."""


def look(context: TrialContext, sensitivity: Profile) -> tuple[TrialRecord, ...]:
    """Return what was seen, as records of trials that were stopped before training; what cannot be made is left out.

    Args:
        context: The search's model, data, space and targets.
        sensitivity: What each knob does alone.
    """
    lane = Lane()
    with TemporaryDirectory(prefix="paretrim-") as folder:
        looker = _Looker(context, lane, Path(folder))
        found = [looker.record(number, recipe) for number, recipe in enumerate(looked_at(context, sensitivity))]
    return tuple(record for record in found if record is not None)


def looked_at(context: TrialContext, sensitivity: Profile) -> Iterator[Recipe]:
    """Yield the recipes that are looked at."""
    parts = families(context.space, sensitivity)
    if len(parts) < 2:
        return
    alone = [{**knobs} for knobs in parts.values()]
    without = [
        {knob: value for name, knobs in parts.items() if name != left_out for knob, value in knobs.items()}
        for left_out in parts
    ]
    usual = {each.name: each.neutral for each in context.space.dimensions}
    recipes = [context.space.recipe({**usual, **context.space.constants, **some}, 0) for some in (*alone, *without)]
    yield from dict.fromkeys(recipes)


class _Looker:
    def __init__(self, context: TrialContext, lane: Lane, folder: Path) -> None:
        # Neither parents nor teachers: nothing is trained.
        context = replace(context, share=False, nursery=None)
        self._workshop, self._lane, self._folder = Workshop(context, lane), lane, folder
        plan, validation = context.stations[0], context.splits.validation
        self._station = Station(plan, context.metric, validation, folder / "bench", lane)

    def record(self, number: int, recipe: Recipe) -> TrialRecord | None:
        try:
            preview = self._preview(recipe)
        except ParetrimError:
            return None  # a trial of it would say so
        return TrialRecord(number, LOOK, "stopped", recipe.values, recipe.seed, preview=preview, cause="only looked at")

    def _preview(self, recipe: Recipe) -> Preview:
        making = self._workshop.begin(recipe)
        with self._lane.working():
            model = making.untrained()
        return self._station.preview(self._workshop.lowered(self._station.target, model, recipe, self._folder))
