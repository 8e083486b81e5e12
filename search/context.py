"""What all trials of a search share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import SearchSplits, Split
from paretrim.search.parents import Nursery
from paretrim.search.space import Space
from paretrim.search.station import StationPlan
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

    @property
    def teaches(self) -> nn.Module:
        """The model that teaches."""
        return self.model if self.tutor is None else self.tutor


def score_torch(model: nn.Module, split: Split, metric: Metric) -> float:
    """Return the metric of a torch model on a split."""
    model.eval()
    outputs, labels = [], []
    with torch.no_grad():
        for batch in split.batches(256):
            outputs.append(batch.inputs.through(model))
            labels.append(batch.labels)
    return metric(torch.cat(outputs), torch.cat(labels))
