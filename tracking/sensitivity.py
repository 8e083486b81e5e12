"""The sensitivity of a model: what each knob does to it alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SCHEMA = 1


@dataclass(frozen=True)
class Effect:
    """What one value of one knob does, all others at neutral.

    Attributes:
        knob: Name of the dimension.
        value: Its value.
        loss_increase: Of the training loss, without recovery; None when the model cannot be made so.
        score_change: Of the job's metric, likewise.
        bytes_saved: Of weights, before packing.
        ms_saved: Of the latency; negative where it is slower. None where it could not be lowered.
        measured: Whether the time was measured, rather than predicted from that of the strongest value.
        failed: Why the model could not be made or lowered so; empty otherwise.
    """

    knob: str
    value: float | int | str | bool | None
    loss_increase: float | None
    score_change: float | None
    bytes_saved: float
    ms_saved: float | None = None
    measured: bool = False
    failed: str = ""

    @property
    def leaves_all(self) -> bool:
        """Whether the model stays as it was: a quarter of 16 channels is no whole block of 8, for one."""
        return self.bytes_saved == 0.0 and self.loss_increase == 0.0 and self.score_change == 0.0


@dataclass(frozen=True)
class Profile:
    """A model's sensitivity.

    Attributes:
        metric: The job's metric.
        samples: Samples on which loss and score were taken.
        loss: Of the uncompressed model.
        score: Likewise.
        latency_ms: Likewise, on the target.
        weight_bytes: Likewise.
        effects: By knob, in the space's order.
    """

    metric: str
    samples: int
    loss: float
    score: float
    latency_ms: float
    weight_bytes: float
    effects: tuple[Effect, ...]

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Profile | None:
        """Read what `to_json` wrote; None when that was another version's."""
        document = json.loads(text)
        if document.pop("schema") != SCHEMA:
            return None
        return cls(**{**document, "effects": tuple(Effect(**each) for each in document["effects"])})

    def families(self) -> dict[str, dict[str, list[Effect]]]:
        """Return the effects by family of knobs, such as ``pruning.ratio``, and in it by layer."""
        found: dict[str, dict[str, list[Effect]]] = {}
        for effect in self.effects:
            technique, what, *place = effect.knob.split(".", 2)
            found.setdefault(f"{technique}.{what}", {}).setdefault(place[0] if place else "", []).append(effect)
        return found
