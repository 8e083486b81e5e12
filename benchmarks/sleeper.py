"""Workers whose trials sleep, and that hold nothing of torch: so many of them fit on one machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from paretrim.evaluators.measurement import Measurement
from paretrim.search.crew import Crew
from paretrim.tracking.records import TrialRecord

RECORD = "record"
_PATIENCE_S = 600.0


class Sleeper(tune.Trainable):  # type: ignore[misc]
    """Makes trials that sleep for as long as ``seconds`` says, and begins when all workers are there, as real ones do."""

    seconds = 1.0

    def setup(self, config: dict[str, Any], scratch: Path, crew: int, **_: Any) -> None:
        """Take the first trial."""
        self._asked = config
        self._crew = Crew(scratch, ray.get_runtime_context().get_job_id(), crew, _PATIENCE_S)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._asked = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Sleep, and tell of a trial that ended."""
        began = time.time()
        time.sleep(self.seconds)
        number = int(self._asked["number"])
        # Spread out, so that samplers have something to model.
        values = {"accuracy": 0.9 + 0.001 * (number % 97), "latency_ms": 1.0 + 0.01 * (number % 89)}
        values |= {"size_bytes": 1e5 + number % 83, "memory_bytes": 1e6 + number % 79}
        environment = {"began": str(began), "ended": str(time.time()), "worker": str(os.getpid())}
        record = TrialRecord(
            number,
            self._asked["kind"],
            "complete",
            {},
            0,
            tuple(Measurement(name, value) for name, value in values.items()),
            environment={**environment, "torch": str("torch" in sys.modules)},
        )
        self._crew.wait()
        return {"done": True, RECORD: record.to_json()}
