"""What is remembered of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from paretrim.evaluators.measurement import Measurement

Value = float | int | str | bool | None
State = Literal["complete", "stopped", "failed"]
BASELINE = "baseline"
THREADS = "torch_threads"
"""In a trial's environment: the threads that it was trained with."""
GPU = "gpu"
"""In a trial's environment: the GPU that it was trained or measured on; there only where it was."""
WORKERS = "training_workers"
"""In a trial's environment: the processes that trained it together; there only where they were several."""


@dataclass(frozen=True)
class Epoch:
    """One pass of recovery training.

    Attributes:
        loss: Mean training loss.
        score: The metric on validation, of the torch model; None where it was not taken.
        before: The same before any training, with the first epoch only.
        inherited: Whether it was not run, since another trial had trained the same parent.
    """

    loss: float
    score: float | None = None
    before: float | None = None
    inherited: bool = False


@dataclass(frozen=True)
class Preview:
    """What is known of a candidate before it is trained.

    Attributes:
        measurements: Of the untrained artifact: latency and memory, which hardly depend on trained weights, and the size,
            which does.
    """

    measurements: tuple[Measurement, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The measured values by name."""
        return {m.name: m.value for m in self.measurements}


@dataclass(frozen=True)
class Elsewhere:
    """A trial on a further target.

    Attributes:
        measurements: Of its artifact there.
        sha256: Hash of that artifact's packed file.
        model_sha256: Hash of the model file inside.
        environment: What it was measured with.
        cause: Why it could not be measured there, empty when it was.
    """

    measurements: tuple[Measurement, ...] = ()
    sha256: str = ""
    model_sha256: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cause: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """All that is kept of a trial that ended.

    Attributes:
        number: Its number in the study; 0 is the baseline.
        kind: ``baseline``, ``float16``, ``int8``, or ``search``.
        state: How it ended.
        recipe: Its values by dimension name.
        seed: The recipe's seed.
        measurements: Of the artifact.
        sha256: Hash of the artifact's packed file, empty when it has none.
        model_sha256: Hash of the model file inside.
        elsewhere: The same trial on the job's further targets, by their names.
        environment: What it was measured with: processor, runtime, threads.
        seconds: Wall time by stage of the trial's own work.
        epochs: The course of its training.
        cause: Why it failed or was stopped.
        unfit: Whether it failed for what its recipe makes, as all trials would that are like it.
        preview: What was measured before it was trained; None where nothing was.
    """

    number: int
    kind: str
    state: State
    recipe: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 0
    measurements: tuple[Measurement, ...] = ()
    sha256: str = ""
    model_sha256: str = ""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    cause: str = ""
    unfit: bool = False
    preview: Preview | None = None

    # JSON has no infinity: it is written as a word, and read back.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    @property
    def metrics(self) -> dict[str, float]:
        """The measured values by name."""
        return {m.name: m.value for m in self.measurements}

    @property
    def complete(self) -> bool:
        """Whether it ended with all its measurements."""
        return self.state == "complete"

    def on(self, target: str) -> TrialRecord:
        """Return the trial as it is on one of the job's further targets."""
        if not self.complete:
            return self
        there = self.elsewhere.get(target, Elsewhere(cause=f"not measured on {target}"))
        return replace(
            self,
            state="failed" if there.cause else self.state,
            cause=there.cause,
            measurements=there.measurements,
            sha256=there.sha256,
            model_sha256=there.model_sha256,
            environment=there.environment,
        )

    def to_json(self) -> str:
        """Return the record as JSON."""
        return _ADAPTER.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> TrialRecord:
        """Read a record written by `to_json`."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(TrialRecord)
