"""What a trial under way tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from paretrim.tracking.records import Epoch, Preview


@dataclass(frozen=True)
class News:
    """Something that a trial under way has come to know.

    Attributes:
        event: What it measured before its training, or an epoch of it.
        seconds: Wall time by stage of the trial's own work so far.
    """

    event: Preview | Epoch
    seconds: Mapping[str, float]

    def to_json(self) -> str:
        """Return it as JSON."""
        # By Python's own writer, which has words for what is infinite or no number; pydantic's has none within a union.
        return json.dumps(_ADAPTER.dump_python(self))

    @classmethod
    def from_json(cls, text: str) -> News:
        """Read what `to_json` wrote."""
        return _ADAPTER.validate_python(json.loads(text))


_ADAPTER = TypeAdapter(News)
