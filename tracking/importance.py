"""How much each knob matters for each objective, as a table; search/importance.py reckons it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

SCHEMA = 1


@dataclass(frozen=True)
class Weight:
    """What a knob matters for an objective.

    Attributes:
        share: Of all knobs' importance, from 0 to 1.
        clear: Whether it is more than chance gives.
    """

    share: float
    clear: bool


@dataclass(frozen=True)
class Importance:
    """What each knob matters for each objective.

    Attributes:
        objectives: Their names.
        knobs: A weight for each objective by the knob's name, the knob with the largest share first.
        trials: Trials that were looked at.
        why_none: Why there are no knobs, where there are none.
    """

    objectives: tuple[str, ...]
    knobs: Mapping[str, tuple[Weight, ...]]
    trials: int
    why_none: str = ""

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2)

    def to_csv(self) -> str:
        """Return it as CSV with a heading, one line a knob."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("knob", *(f"{name}{part}" for name in self.objectives for part in ("", "_clear"))))
        for name, weights in self.knobs.items():
            writer.writerow((name, *(cell for each in weights for cell in (each.share, each.clear))))
        return text.getvalue()
