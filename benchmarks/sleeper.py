"""Workers whose trials sleep, and that hold nothing of torch: so many of them fit on one machine."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking.records import TrialRecord

RECORD = "record"


class Sleeper(tune.Trainable):  # type: ignore[misc]
    """Makes trials that sleep for as long as ``seconds`` says."""

    seconds = 1.0

    def setup(self, config: dict[str, Any], **_: Any) -> None:
        """Take the first trial."""
        self._asked = config

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
        record = TrialRecord(
            number,
            self._asked["kind"],
            "complete",
            {},
            0,
            tuple(Measurement(name, value) for name, value in values.items()),
            environment={"began": str(began), "ended": str(time.time())},
        )
        return {"done": True, RECORD: record.to_json()}
