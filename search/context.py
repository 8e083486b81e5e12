"""What all trials of a search share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from paretrim.evaluators import cuda_driver
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Batch, SearchSplits, Split
from paretrim.evaluators.target import on_device
from paretrim.search.parents import Nursery
from paretrim.search.space import Space
from paretrim.search.station import StationPlan
from paretrim.spaces.device import DeviceName, answers, chosen
from paretrim.spaces.schooling import CPU
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.sensitivity import Profile


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share. The test split is not among it.

    Attributes:
        model: The uncompressed model.
        splits: Training, calibration and validation data.
        metric: Scores outputs against labels.
        space: The techniques and the model's anatomy.
        teacher: The teacher's outputs on the training split, or None when nothing is distilled.
        stations: The targets; the first is the one that the search is for.
        artifacts: Folder that keeps artifacts.
        folds: Parts of the validation split for cross-validation; fewer than two for none.
        channel_ms: Milliseconds that a channel of each group costs on the target; empty unless a technique asks for it.
        tutor: The model that teaches, or None where it is the uncompressed one.
        seed: Of the search.
        share: Whether recipes that differ only in what branches off late are trained from a common parent.
        nursery: Keeps these parents; None where nothing is kept.
        teaching_seconds: What it took to compute the teacher's outputs.
        sensitivity: What each knob does alone; None where it was not taken.
        earlier: Trials of an earlier search of the same model.
        looks: What recipes at the far end of the space cost; see search/looks.py.
        preview: Whether candidates are measured before they are trained.
        origin: What the search was made with, by name; see search/provenance.py.
        device: Where models are trained and scored: ``auto`` for a GPU in each process that sees one.
    """

    model: nn.Module
    splits: SearchSplits
    metric: Metric
    space: Space
    teacher: torch.Tensor | None
    stations: tuple[StationPlan, ...]
    artifacts: Path
    folds: int = 0
    channel_ms: Mapping[str, float] = field(default_factory=dict)
    tutor: nn.Module | None = None
    seed: int = 0
    share: bool = False
    nursery: Nursery | None = None
    preview: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)
    teaching_seconds: float = 0.0
    sensitivity: Profile | None = None
    earlier: tuple[TrialRecord, ...] = ()
    looks: tuple[TrialRecord, ...] = ()
    device: DeviceName = "cpu"

    @property
    def teaches(self) -> nn.Module:
        """The model that teaches."""
        return self.model if self.tutor is None else self.tutor

    @property
    def place(self) -> torch.device:
        """Where this process trains and scores models."""
        return chosen(self.device)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that this process computes on, to train or for a target, by the names of their lanes."""
        used = self.place.type == "cuda" or any(on_device(each.address.build()) for each in self.stations)
        return cuda_driver.visible() if used else ()


def score_torch(model: nn.Module, split: Split, metric: Metric, device: torch.device = CPU) -> float:
    """Return the metric of a torch model on a split, computed on a device."""
    labels: list[torch.Tensor] = []

    def noted() -> Iterator[Batch]:
        for batch in split.batches(256):
            labels.append(batch.labels)
            yield batch

    outputs = answers(model.eval(), noted(), device)
    return metric(outputs, torch.cat(labels))
