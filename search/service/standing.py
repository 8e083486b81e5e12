"""How a job stands, read from its store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from paretrim.search.result import Result, open_result
from paretrim.search.store import Store
from paretrim.search.study import FINISHED, STATE, UNDER_WAY

DIED = "died"


@dataclass(frozen=True)
class Standing:
    """How a job stands.

    Attributes:
        name: Its name.
        state: ``running``, ``finished``, ``interrupted`` or ``died``, which `resume` goes on with.
        trials: Trials that ended.
        of: Trials that are to end.
        failed: Those of them that failed.
        stopped: Those of them that were stopped early.
        front: Points of the front.
        hypervolume: Of the front.
        minutes: Wall time so far.
        tracking: Where its runs are logged.
    """

    name: str
    state: str
    trials: int
    of: int
    failed: int
    stopped: int
    front: int
    hypervolume: float
    minutes: float
    tracking: str

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def standing(name: str | None, store: Store) -> Standing:
    """Return how a job of a store stands; by default the one that was started last.

    Raises:
        UnknownJobError: There is no such job.
    """
    result = open_result(name, store)
    records, report = result.records, result.report
    return Standing(
        name=result.name,
        state=_state(result),
        trials=len(records),
        of=max(result.job.budget.trials, len(records)),
        failed=sum(record.state == "failed" for record in records),
        stopped=sum(record.state == "stopped" for record in records),
        front=0 if report is None else len(report.front),
        hypervolume=result.hypervolume,
        minutes=float(result.study.noted("wall_seconds", 0.0)) / 60.0,
        tracking=result.folder.places.tracking_uri,
    )


def _state(result: Result) -> str:
    if result.folder.running():
        return UNDER_WAY
    noted = str(result.study.noted(STATE, FINISHED))
    return DIED if noted == UNDER_WAY else noted
