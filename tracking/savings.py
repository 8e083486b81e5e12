"""What a search spared itself. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretrim.tracking.records import TrialRecord

_EPOCHS = "recovery.epochs"


@dataclass(frozen=True)
class Savings:
    """What a search spared itself.

    Attributes:
        never_trained: Candidates that were stopped before any training.
        stopped_early: Trials that were stopped in their training.
        epochs_run: Epochs that were run.
        epochs_not_run: Epochs of those two that were not, and those that came with a parent.
        parents_shared: Trials that began from a parent that another one had trained.
    """

    never_trained: int
    stopped_early: int
    epochs_run: int
    epochs_not_run: int
    parents_shared: int


def savings(records: Sequence[TrialRecord]) -> Savings:
    """Return what a search spared itself."""
    stopped = [record for record in records if record.state == "stopped"]
    inherited = [sum(epoch.inherited for epoch in record.epochs) for record in records]
    return Savings(
        never_trained=sum(not record.epochs for record in stopped),
        stopped_early=sum(bool(record.epochs) for record in stopped),
        epochs_run=sum(len(record.epochs) for record in records) - sum(inherited),
        epochs_not_run=sum(max(0, _planned(record) - len(record.epochs)) for record in stopped) + sum(inherited),
        parents_shared=sum(count > 0 for count in inherited),
    )


def _planned(record: TrialRecord) -> int:
    given = record.recipe.get(_EPOCHS, 0)
    return int(given) if isinstance(given, int | float) else 0
