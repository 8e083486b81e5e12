"""Syne Tune's MOASHA as a rival, with its ordering put right.

In version 0.16 its order by non-dominated sorting gives back which trial comes first, second and so on where the brackets
expect each trial's place, so that about half of all dominated pairs are judged the wrong way round. Here each trial gets
its place, from Syne Tune's own fronts and its own spread within them.

It wants Syne Tune without what that depends on, which would bring gigabytes of CUDA:
``pip install --no-deps syne-tune==0.16.0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks.race_track import Track
from paretrim.search.candidate import Candidate
from paretrim.spaces.dimension import Choice

if TYPE_CHECKING:
    from syne_tune.backend.trial_status import Trial


class Moasha:
    """Stops trials as MOASHA does: rungs at 1, 3, 9... epochs, of which one trial in three goes on.

    Args:
        track: Where it competes; costs of a candidate are told with each epoch as they were measured before training.
        seed: Of the spread's beginnings.
    """

    def __init__(self, track: Track, seed: int) -> None:
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        np.random.seed(seed)  # Syne Tune draws from it
        counts = next(d for d in track.context.space.dimensions if d.name == "recovery.epochs")
        self.longest = max(v for v in counts.values if isinstance(v, int)) if isinstance(counts, Choice) else 0
        self.epochs = 0
        self._objectives, self._metric = track.objectives, track.context.metric.name
        self._scheduler = MOASHA(
            {}, [o.name for o in track.objectives], max_t=max(2, self.longest), multiobjective_priority=_Places()
        )
        self._known: dict[int, Trial] = {}

    def verdict(self, candidate: Candidate) -> str:
        """Return why a trial under way shall stop, or nothing when it goes on."""
        if not candidate.epochs or candidate.preview is None:
            return ""
        self.epochs += 1
        done, score = len(candidate.epochs), candidate.epochs[-1].score
        metrics = {**candidate.preview.metrics, self._metric: float("-inf") if score is None else score}
        result = {o.name: o.box(metrics[o.name]) for o in self._objectives}
        if done >= self.longest:
            return ""
        decision = self._scheduler.on_trial_result(self._trial(candidate), {**result, "training_iteration": done})
        return f"stopped after epoch {done} by MOASHA" if decision == "STOP" else ""

    def _trial(self, candidate: Candidate) -> Trial:
        import datetime

        from syne_tune.backend.trial_status import Trial

        number = candidate.asked.number
        if number not in self._known:
            self._known[number] = Trial(number, {}, datetime.datetime.now(tz=datetime.UTC))
            self._scheduler.on_trial_add(self._known[number])
        return self._known[number]


class _Places:
    """Each trial's place among all at a rung."""

    def __call__(self, objectives: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        from syne_tune.optimizer.schedulers.multiobjective.non_dominated_priority import (
            compute_epsilon_net,
            nondominated_sort,
        )

        places = np.empty(len(objectives))
        before = 0
        for front in nondominated_sort(objectives, flatten=False):
            members = np.asarray(front)
            places[members] = before + compute_epsilon_net(objectives[members])
            before += len(members)
        return places
