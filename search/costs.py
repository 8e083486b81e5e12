"""What a channel costs: the time that each group of coupled channels takes on the target, measured, not counted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from paretrim.errors import ParetrimError
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import time_quietly
from paretrim.search.context import TrialContext
from paretrim.search.station import lay_out
from paretrim.search.workshop import Workshop
from paretrim.spaces.anatomy import Group
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.rewriting import rewrite
from paretrim.spaces.surgery import cut, dependency_graph

_TOGETHER = 8


def with_costs(context: TrialContext) -> TrialContext:
    """Return a search's context with the cost of each group's channels, where one of its techniques asks for it."""
    if not any(part.needs_costs() for part in context.space.techniques):
        return context
    return replace(context, channel_ms=channel_ms(context))


def channel_ms(context: TrialContext) -> Mapping[str, float]:
    """Return the milliseconds that one channel of each group costs, by the group's name.

    Half of a group's channels are cut, alone; the model is lowered and timed in turns with the uncompressed one. A group
    that cannot be lowered so is left out, and one whose cut saves nothing costs 0.
    """
    lane, groups, found = Lane(), context.space.anatomy.groups, {}
    workshop, target = Workshop(context, lane), context.stations[0].address.build()
    with TemporaryDirectory(prefix="paretrim-") as folder:
        bench = lay_out(context.stations[0], context.splits.validation, Path(folder) / "bench", lane)
        for start in range(0, len(groups), _TOGETHER):
            paths: dict[Group, Path] = {}
            for group in groups[start : start + _TOGETHER]:
                try:
                    artifact = workshop.lowered(target, _halved(context, group), Recipe.of({}), Path(folder))
                except ParetrimError:
                    continue
                paths[group] = Path(folder) / f"{artifact.sha256}{artifact.suffix}"
                paths[group].write_bytes(artifact.read())
            if not paths:
                continue
            contest, _ = time_quietly((bench.baseline, *paths.values()), bench, bench.reference_ms)
            whole = contest.models[0].latency_ms[0]
            for group, timed in zip(paths, contest.models[1:], strict=True):
                found[group.name] = max(0.0, whole * (1 - timed.ratio[0])) / group.half
    return found


def _halved(context: TrialContext, group: Group) -> nn.Module:
    model, example = copy.deepcopy(context.model), context.space.anatomy.example()
    rewrite(model, example)
    cut(dependency_graph(model, example), model.get_submodule(group.name), range(group.half))
    return model
