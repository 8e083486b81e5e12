"""The scheduler on a real Ray Tune run: two actors that are used again, no training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import Searcher

from paretrim.search import driver  # noqa: F401 - sets what Ray reads when it is imported
from paretrim.search.scheduler import HalvingScheduler

EPOCHS = 3
TRIALS = 6


class Stepper(tune.Trainable):  # type: ignore[misc]
    """Writes a line for each epoch that it really runs."""

    def setup(self, config: dict[str, Any], folder: Path) -> None:
        self._folder = folder
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._number, self._epoch = new_config["number"], 0
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        with (self._folder / str(self._number)).open("a") as lines:
            lines.write(f"{self._epoch}\n")
        if self._number == 4:
            raise RuntimeError("a user's code")
        return {"done": self._epoch == EPOCHS, "number": self._number, "epoch": self._epoch}


class Counting(Searcher):  # type: ignore[misc]
    """Hands out numbered trials, two at a time, and counts how often the end of each is told."""

    def __init__(self) -> None:
        super().__init__(metric=None, mode=None)
        self.live: dict[str, int] = {}
        self.given = 0
        self.ended: Counter[int] = Counter()
        self.last: dict[int, int] = {}
        self.most = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.given == TRIALS:
            return None if self.live else Searcher.FINISHED
        if len(self.live) == 2:
            return None
        self.live[trial_id] = self.given
        self.most = max(self.most, len(self.live))
        self.given += 1
        return {"number": self.live[trial_id]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self.live.pop(trial_id)
        self.ended[number] += 1
        self.last[number] = result["epoch"] if result else 0

    def __getstate__(self) -> dict[str, Any]:
        return {}


def test_stopped_trials_run_no_further_epoch_and_end_once(one_ray: None, tmp_path: Path) -> None:
    lines, asked = tmp_path / "lines", []
    lines.mkdir()

    def judge(trial_id: str, result: dict[str, Any]) -> str:
        asked.append((searcher.live[trial_id], result["epoch"]))
        return "worse than the others" if result["number"] % 2 and result["epoch"] == 2 else ""

    searcher = Counting()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Stepper, folder=lines), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=HalvingScheduler(judge), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    tuner.fit()

    epochs = {number: (lines / str(number)).read_text().split() for number in range(TRIALS)}
    whole, half = ["1", "2", "3"], ["1", "2"]
    assert epochs == {0: whole, 1: half, 2: whole, 3: half, 4: ["1"], 5: half}
    assert searcher.ended == Counter(range(TRIALS))
    assert searcher.last == {0: 3, 1: 2, 2: 3, 3: 2, 4: 0, 5: 2}
    assert searcher.most == 2
    # The last step of a trial that ends by itself is none of the judge's business.
    assert sorted(asked) == [(n, e) for n in range(TRIALS) if n != 4 for e in (1, 2)]


def test_a_snapshot_holds_nothing(tmp_path: Path) -> None:
    scheduler = HalvingScheduler(lambda trial_id, result: "")
    scheduler.save(str(tmp_path / "state"))
    scheduler.restore(str(tmp_path / "state"))
    assert scheduler.__getstate__() == {}
    assert [*tmp_path.iterdir()] == []
    assert scheduler.debug_string() == "successive halving"
    assert not scheduler.supports_buffered_results


class Waiting:
    """Stands for a trial of Tune's."""

    def __init__(self, name: str, status: str) -> None:
        self.trial_id, self.status = name, status


@pytest.mark.parametrize("end", ["on_trial_error", "on_trial_complete", "on_trial_remove"])
def test_first_come_first_run(end: str) -> None:
    scheduler = HalvingScheduler(lambda trial_id, result: "")
    trials = [Waiting("b", "RUNNING"), Waiting("c", "PENDING"), Waiting("a", "PENDING")]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    assert scheduler.choose_trial_to_run(None) is trials[1]
    assert scheduler.choose_trial_to_run(None) is trials[1]
    getattr(scheduler, end)(None, trials[1], *([{}] if end == "on_trial_complete" else []))
    assert scheduler.choose_trial_to_run(None) is trials[2]
    trials[2].status = "RUNNING"
    assert scheduler.choose_trial_to_run(None) is None
