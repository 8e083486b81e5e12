"""The machines of a Ray cluster, and how many trials find a place on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from paretrim.search.sections import Budget


@dataclass(frozen=True)
class Share:
    """What a trial reserves of a machine.

    Attributes:
        cpus: Cores.
        gpus: GPUs; less than one where trials share one.
    """

    cpus: float
    gpus: float = 0.0

    def fits(self, machine: Mapping[str, Any]) -> int:
        """Return how many trials find a place on a machine, as Ray lists its resources."""
        by_cpus = int(float(machine.get("CPU", 0.0)) / self.cpus)
        # A GPU is not split between trials that each take more than a half of it.
        each = int(1.0 / self.gpus) if 0.0 < self.gpus < 1.0 else 1
        whole = float(machine.get("GPU", 0.0)) / max(1.0, self.gpus)
        return by_cpus if not self.gpus else min(by_cpus, int(whole) * each)


@dataclass(frozen=True)
class Berth:
    """What a trial's process must know of its place.

    Attributes:
        share: What it reserves.
        parallel: Trials of the search at the same time, on all machines.
        alone: Whether the machine is this search's alone, so that its trials share all cores; else each keeps to what it
            has reserved.
        code: Folder of the user's code where it came from another machine: the current folder of those who run it.
    """

    share: Share
    parallel: int
    alone: bool = True
    code: Path | None = None


def share_of(budget: Budget) -> Share:
    """Return what each trial of a job reserves: its training workers lie on one machine."""
    return Share(budget.trial_workers * budget.trial_cpus, budget.trial_workers * budget.trial_gpus)


def room(share: Share) -> int:
    """Return how many trials find a place on the machines of the cluster that are alive."""
    return _room(share, ray.nodes())


def beside(share: Share, most: int) -> int:
    """Return how many trials of a search run on this machine at the same time, itself included, when all do that can."""
    mine = ray.get_runtime_context().get_node_id()
    return max(1, min(most, _room(share, (node for node in ray.nodes() if node["NodeID"] == mine))))


def _room(share: Share, nodes: Iterable[Mapping[str, Any]]) -> int:
    return sum(share.fits(node["Resources"]) for node in nodes if node["Alive"])
