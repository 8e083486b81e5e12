"""The bridge between Ray Tune and the halving: after each epoch, a judge says whether the trial goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

Judge = Callable[[str, dict[str, Any]], str]
"""From Tune's name of a trial and the result of one of its steps to the cause for stopping it, empty to go on."""

Failed = Callable[[str, str], None]
"""Takes Tune's name of a trial, and why it failed."""


class HalvingScheduler(TrialScheduler):  # type: ignore[misc]
    """Runs trials in the order of their coming and stops those that the judge gives a cause for.

    It never pauses one: paused trials count as live, and would keep the searcher from handing out new ones. Tune tells
    the searcher of the end of a stopped trial, with its last result, as of any other; but not of its last epoch.

    Args:
        judge: Asked after each step of a trial but its last, before the next one begins.
        failed: Told in Ray's words why a trial's process is gone, before Tune tells the searcher that it is.
        workers: How many processes to keep between two trials, now. Tune by itself keeps one: of two trials that end
            before the next one is there, the second one's process would end with it, and a fresh one takes seconds.
    """

    # Results that wait in a buffer would be epochs that were run before their trial could be stopped.
    _supports_buffered_results = False

    def __init__(self, judge: Judge, workers: Callable[[], int] | None = None, failed: Failed | None = None) -> None:
        super().__init__()
        self._failed = failed
        self._workers, self._kept = workers, 0
        self._judge = judge
        self._live: dict[str, Trial] = {}
        self._of: Any = None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002 - Tune's protocol
        """Ask the judge."""
        decision: str = self.STOP if self._judge(trial.trial_id, result) else self.CONTINUE
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the first trial that waits, or None; it looks at the live ones, since all of them become thousands."""
        if self._of is not None:
            self._keep(tune_controller, self._of)
        return next((trial for trial in self._live.values() if trial.status == Trial.PENDING), None)

    def _keep(self, tune_controller: Any, of: Any) -> None:
        """Let Tune keep as many processes as may be busy, which it has no public way to be told."""
        if self._workers is None:
            return
        wanted = self._workers()
        # Without, it holds on to one that another search waits for.
        tune_controller._actor_cache._may_keep_one = wanted > 0
        tune_controller._actor_cache.increase_max(of, wanted - self._kept)
        self._kept = wanted

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take up a new trial."""
        if self._workers is not None and self._of is None:
            self._of = trial.placement_group_factory
            self._keep(tune_controller, self._of)
        self._live[trial.trial_id] = trial

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002 - as above
        """Let go of a trial that failed, and say why; the searcher is told by Tune that it did, but not why."""
        self._live.pop(trial.trial_id, None)
        if self._failed is None:
            return
        with suppress(OSError, TypeError):  # no file, where Tune has not even begun with it
            self._failed(trial.trial_id, Path(trial.error_file).read_text(encoding="utf-8", errors="replace"))

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
