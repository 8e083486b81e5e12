"""The bridge between Ray Tune and the halving: after each epoch, a judge says whether the trial goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

Judge = Callable[[str, dict[str, Any]], str]
"""From Tune's name of a trial and the result of one of its steps to the cause for stopping it, empty to go on."""


class HalvingScheduler(TrialScheduler):  # type: ignore[misc]
    """Runs trials in the order of their coming and stops those that the judge gives a cause for.

    It never pauses one: paused trials count as live, and would keep the searcher from handing out new ones. Tune tells
    the searcher of the end of a stopped trial, with its last result, as of any other; but not of its last epoch.

    Args:
        judge: Asked after each step of a trial but its last, before the next one begins.
        workers: Processes to keep between two trials. Tune by itself keeps one: of two trials that end before the next
            one is there, the second one's process would end with it, and a fresh one takes seconds.
    """

    # Results that wait in a buffer would be epochs that were run before their trial could be stopped.
    _supports_buffered_results = False

    def __init__(self, judge: Judge, workers: int = 0) -> None:
        super().__init__()
        self._workers = workers
        self._judge = judge
        self._live: dict[str, Trial] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002 - Tune's protocol
        """Ask the judge."""
        decision: str = self.STOP if self._judge(trial.trial_id, result) else self.CONTINUE
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:  # noqa: ARG002 - as above
        """Return the first trial that waits, or None; it looks at the live ones, since all of them become thousands."""
        return next((trial for trial in self._live.values() if trial.status == Trial.PENDING), None)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take up a new trial, or one whose machine was lost."""
        if self._workers:
            # Tune has no public way to say so.
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self._workers)
            self._workers = 0
        self._live[trial.trial_id] = trial

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002 - as above
        """Let go of a trial that failed; the searcher is told by Tune."""
        self._live.pop(trial.trial_id, None)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002 - as above
        """Let go of a trial that ended; the searcher is told by Tune."""
        self._live.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002 - as above
        """Let go of a trial that never ran; the searcher is told by Tune."""
        self._live.pop(trial.trial_id, None)

    def debug_string(self) -> str:
        """Return what Tune prints of it."""
        return "successive halving"

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the rungs are built from the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the rungs are built from the study."""

    def __getstate__(self) -> dict[str, Any]:
        # For Tune's snapshots, which nothing reads.
        return {}
