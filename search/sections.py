"""The sections of a job: the target, the budget, and how the search spares itself work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from paretrim.errors import UsageError
from paretrim.evaluators import target
from paretrim.evaluators.target import Activations, Optimization, ReduceRange, TargetSettings
from paretrim.search.places import known_database, without_password
from paretrim.spaces.device import DeviceName


class Section(BaseModel):
    """A mapping of which every name is known and that does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TargetOptions(Section):
    """Where the model will run.

    Attributes:
        runtime: Name of a target; ``onnxruntime`` runs on the CPU. See docs/targets.md for the others.
        threads: Threads that compute one batch.
        batch_size: Samples per call when latency and memory are measured.
        activations: Sign of the 8-bit activations between quantized layers; which is faster depends on the processor.
        optimization: How far the runtime rewrites the graph when it loads one.
        reduce_range: Whether weights of integer layers keep to 7 bits, which processors without VNNI need; ``auto`` looks at
            this machine's.
        throughput_batches: Samples per call when the throughput is measured, one number for each.
        name: What it is called where a job has several; by default its runtime.
    """

    runtime: str = "onnxruntime"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 1
    activations: Activations = "unsigned"
    optimization: Optimization = "all"
    reduce_range: ReduceRange = "auto"
    throughput_batches: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = (1, 16)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = None

    @field_validator("runtime")
    @classmethod
    def _known(cls, value: str) -> str:
        checked(lambda: target.find(TargetSettings(runtime=value)))
        return value

    @field_validator(*target.OPTIONAL)
    @classmethod
    def _taken(cls, value: str, info: ValidationInfo) -> str:
        if "runtime" in info.data:  # else it is unknown, which is told already
            given: dict[str, Any] = {"runtime": info.data["runtime"], str(info.field_name): value}
            checked(lambda: target.find(TargetSettings(**given)))
        return value

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.runtime

    @property
    def settings(self) -> TargetSettings:
        """The same for the evaluators."""
        return TargetSettings(
            self.runtime, self.threads, self.batch_size, self.activations, self.optimization, self.reduce_range
        )


class Finals(Section):
    """The last phase: the best points are trained longer, from several seeds.

    Attributes:
        points: Points of the front that are trained again; 0 for none.
        longer: Their epochs, as a multiple of the recipe's.
        seeds: Times that each is trained.
    """

    points: Annotated[int, Field(ge=0, le=100)] = 3
    longer: Annotated[float, Field(ge=1, le=100)] = 2.0
    seeds: Annotated[int, Field(ge=1, le=20)] = 2


class Strategy(Section):
    """How the search spares itself work. Each part can be switched off.

    Attributes:
        preview: Whether candidates are lowered and measured before they are trained, and not trained when they could
            not matter.
        halving: How many times fewer trials go on at each rung of successive halving; ``off`` for none.
        warm_start: Whether the model's sensitivity and what trials have shown predict a front, whose points are tried first.
        share: Whether what several trials have in common is trained once.
        finals: The last phase.
    """

    preview: bool = True
    halving: Annotated[int, Field(ge=2, le=10)] | Literal["off"] = 3
    warm_start: bool = True
    share: bool = True
    finals: Finals = Finals()

    @field_validator("halving", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        if value is False or value == "off":  # YAML reads the word off as False
            return "off"
        # Of a choice between a number and a word, pydantic would tell of both what is wrong.
        if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= 10:
            raise ValueError(f"input should be a whole number from 2 to 10, or off; given {value!r:.40}")
        return value


class Storage(Section):
    """Where a search keeps what it makes; what is not given comes from the environment (docs/cluster.md).

    Attributes:
        folder: Folder of results, artifacts, checkpoints and cache; on a cluster one that all machines share.
        study: URL of the studies' database, ``postgresql://HOST/DATABASE`` on a cluster, without a password.
        tracking: MLflow tracking URI.
        keep_mb: Megabytes of artifacts off the front that stay, during a search (those older than `budget.trial_minutes`)
            and when it ends; `paretrim replay` makes others again.
    """

    keep_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2000.0
    folder: str | None = None
    study: str | None = None
    tracking: str | None = None

    @field_validator("study", "tracking")
    @classmethod
    def _open(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else str(checked(lambda: without_password(value, f"storage.{info.field_name}")))

    @field_validator("study")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        return None if value is None else str(checked(lambda: known_database(value)))


def _parallel(given: Mapping[str, Any]) -> int:
    return min(8, max(1, (os.cpu_count() or 1) // int(given.get("trial_workers", 1))))


class Budget(Section):
    """How much to spend; whatever ends first ends the search.

    Attributes:
        trials: Trials that end, the three anchors included, failures too.
        minutes: Wall time, or None for no limit.
        training_seconds: Seconds of training in all, those of the profile included, or None for no limit.
        patience: Trials in a row that do not raise the hypervolume by a thousandth, after which the search ends; None
            to go on.
        trial_workers: Processes on one machine that train each trial together, each with its share of every batch.
        trial_cpus: Cores that each of these processes reserves on a cluster; on one machine alone trials share all cores.
        trial_gpus: GPUs that each of them reserves, such as 0.25 where four share one.
        device: Where trials train: ``auto`` for the GPU where they reserve one, or a share of one, and torch has CUDA, else
            the CPU; ``cpu`` or ``cuda`` for that alone.
        parallel: Trials at the same time; by default one for each core, or for `trial_workers` cores, at most 8.
        trial_minutes: A trial that takes longer is stopped and counted as failed.
    """

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 24
    minutes: Annotated[float, Field(gt=0)] | None = None
    training_seconds: Annotated[float, Field(gt=0)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    trial_workers: Annotated[int, Field(ge=1, le=256)] = 1
    trial_cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    trial_gpus: Annotated[float, Field(ge=0, le=16)] = 0.0
    device: DeviceName = "auto"
    parallel: Annotated[int, Field(ge=1, le=4096)] = Field(default_factory=_parallel)
    trial_minutes: Annotated[float, Field(gt=0)] = 30.0

    @field_validator("device")
    @classmethod
    def _reserved(cls, value: str, info: ValidationInfo) -> str:
        if value == "cuda" and info.data.get("trial_gpus") == 0:
            raise ValueError("is cuda, and trials reserve no GPU; give trial_gpus, such as 0.25 where four share one")
        return value

    @property
    def wanted(self) -> DeviceName:
        """Where trials shall train: ``auto`` for a GPU where there is one."""
        return self.device if self.trial_gpus else "cpu"


def checked(check: Callable[[], Any]) -> Any:
    """Let pydantic collect an error of ours with the others."""
    try:
        return check()
    except UsageError as error:
        raise ValueError(str(error)) from None
