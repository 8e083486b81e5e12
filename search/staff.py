"""How many worker processes train one trial, and whether the machines have room for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray

from paretrim.errors import UsageError
from paretrim.evaluators import cores
from paretrim.search.context import TrialContext
from paretrim.search.head import on_cluster
from paretrim.search.job import Job
from paretrim.search.parcel import Material


@dataclass(frozen=True)
class Staff:
    """The training workers of each trial, in a form that travels.

    Attributes:
        size: How many.
        material: Object reference of what all their lessons have in common, a `Material`.
    """

    size: int
    material: Any


def material_of(context: TrialContext) -> Material:
    """Return what all lessons of a search have in common."""
    return Material(context.splits.train, context.teacher, context.teaches)


def staff_of(job: Job, context: TrialContext) -> Staff | None:
    """Return the workers of each trial, whose data is stored once for all; None where a trial trains by itself."""
    size = job.budget.trial_workers
    return Staff(size, ray.put(material_of(context))) if size > 1 else None


def check_room(job: Job) -> None:
    """Check that all workers of all trials find a core; without, trials would wait for ever. To a cluster, some may come.

    Raises:
        UsageError: They do not.
    """
    size, parallel = job.budget.trial_workers, job.budget.parallel
    if size == 1 or on_cluster():
        return
    places = _processors()
    room = sum(each // size for each in places)
    if parallel <= room:
        return
    where = f"this machine has {places[0]}" if len(places) == 1 else f"the machines have {', '.join(map(str, places))}"
    do = f"give a parallel of {room} at most, or fewer trial_workers"
    if room == 0:
        do = f"give at most {max(places)} trial_workers"
    raise UsageError(
        f"budget: {parallel} trials at the same time of {size} trial_workers each need {parallel * size} CPUs, those of a "
        f"trial on one machine, and {where}; {do}"
    )


def _processors() -> list[int]:
    """Return the CPUs of each machine that trials may run on."""
    if ray.is_initialized():
        return [int(each["Resources"].get("CPU", 0)) for each in ray.nodes() if each["Alive"]]
    return [len(cores.usable()) or os.cpu_count() or 1]
