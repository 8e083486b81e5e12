"""From a job to all that its trials share: the user's model and data, checked, and the baseline's artifact."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from paretrim.errors import DataError, JobError, Problem
from paretrim.evaluators import target
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Split, Splits
from paretrim.search import space as spaces
from paretrim.search import usercode
from paretrim.search.job import Job, impossible
from paretrim.search.store import JobFolder
from paretrim.search.trial import TrialContext, lowering_request
from paretrim.spaces.anatomy import dissect


@dataclass(frozen=True)
class Subject:
    """A user's model and data, loaded and checked.

    Attributes:
        model: The uncompressed model.
        splits: All four splits.
        metric: Scores outputs against labels.
        fingerprints: Hashes by which a resumed search tells what has changed.
    """

    model: nn.Module
    splits: Splits
    metric: Metric
    space: spaces.Space
    fingerprints: dict[str, str]


def load(job: Job) -> Subject:
    """Load and check what a job names.

    Raises:
        UserCodeError: The model's or data's function fails.
        DataError: The data does not fit.
    """
    usercode.use_folder(job.folder)
    metric = usercode.load_metric(job)
    model = usercode.load_model(job)
    splits = usercode.load_data(job)
    usercode.check_fit(model, splits, metric)
    anatomy = dissect(model, splits.search.train.first(2).inputs)
    space = spaces.build(job, anatomy)
    prints = {"model": _model_hash(model), "data": splits.fingerprint(), "space": space.fingerprint()}
    return Subject(model, splits, metric, space, prints)


def prepare(job: Job, subject: Subject, folder: JobFolder) -> TrialContext:
    """Lower the baseline, open it, score it once, and compute the teacher's outputs.

    Raises:
        LoweringError: The model does not export.
        JobError: A relative constraint cannot be met by anything.
    """
    address = target.find(job.target.settings)
    built = address.build()
    request = lowering_request(subject.space, {}, subject.splits.search)
    baseline = built.lower(copy.deepcopy(subject.model), request, folder.artifacts)
    with baseline.unpacked() as path:
        score = AccuracyEvaluator(subject.metric, subject.splits.search.validation).score(built.open(path))
    wrong = [Problem(("constraints",), text) for text in impossible(job.bounds, {score.name: score.value})]
    if wrong:
        raise JobError(wrong, f"with the baseline's {score.name} of {score.value:.4f}, the job")
    return TrialContext(
        model=subject.model,
        splits=subject.splits.search,
        metric=subject.metric,
        space=subject.space,
        teacher=_teacher_outputs(subject),
        baseline=baseline,
        address=address,
        artifacts=folder.artifacts,
        tolerance=job.export_tolerance,
    )


def _teacher_outputs(subject: Subject) -> torch.Tensor | None:
    if not any(part.needs_teacher() for part in subject.space.techniques):
        return None
    train: Split = subject.splits.search.train
    with torch.no_grad():
        outputs = torch.cat([subject.model(batch.inputs) for batch in train.batches(256)])
    if not bool(torch.isfinite(outputs).all()):
        raise DataError("the model answers some training samples with NaN or infinite values; clean the data first")
    return outputs


def _model_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
    return digest.hexdigest()
