"""From a job to all that its trials share: the user's model and data, checked, and the baseline's artifact."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from paretrim.errors import DataError, JobError, Problem, UsageError
from paretrim.evaluators import machine, target, torch_cuda
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import time_quietly
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.served import served
from paretrim.evaluators.splits import Split, Splits
from paretrim.evaluators.storage import Activation
from paretrim.search import outputs, teaching, unlabelled, usercode
from paretrim.search import space as spaces
from paretrim.search.cache import Cache
from paretrim.search.context import TrialContext
from paretrim.search.head import on_cluster
from paretrim.search.job import Job, impossible
from paretrim.search.parents import Nursery
from paretrim.search.provenance import origin
from paretrim.search.station import StationPlan, lay_out
from paretrim.search.store import JobFolder
from paretrim.search.workshop import lowering_request
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.device import chosen


@dataclass(frozen=True)
class Subject:
    """A user's model and data, loaded and checked.

    Attributes:
        model: The uncompressed model.
        splits: All four splits.
        metric: Scores outputs against labels.
        fingerprints: Hashes by which a resumed search tells what has changed.
        teacher: Another model that teaches, or None where the uncompressed one does.
    """

    model: nn.Module
    splits: Splits
    metric: Metric
    space: spaces.Space
    fingerprints: dict[str, str]
    teacher: nn.Module | None = None


def load(job: Job) -> Subject:
    """Load and check what a job names.

    Raises:
        UsageError: This machine cannot run a target.
        UserCodeError: The model's or data's function fails.
        DataError: The data does not fit.
    """
    for options in job.targets.values():
        reason = target.find(options.settings).build().unavailable()
        if reason:
            raise UsageError(f"the runtime '{options.runtime}' cannot run on this machine: {reason}")
    if job.budget.device == "cuda" and not on_cluster() and (reason := torch_cuda.missing()):
        raise UsageError(f"budget.device is cuda, and trials cannot train there: {reason}")
    usercode.use_folder(job.folder)
    metric = usercode.load_metric(job)
    model = usercode.load_model(job)
    splits = usercode.load_data(job)
    outputs.settle(model, splits.search.train.first(2).inputs, job.output, "the model")
    splits = unlabelled.with_answers(model, splits, metric)
    usercode.check_fit(model, splits, metric)
    if (job.cross_validation or 0) > len(splits.search.validation):
        raise DataError(
            f"the validation split has {len(splits.search.validation)} samples, which do not make {job.cross_validation} "
            "folds; ask for a smaller cross_validation"
        )
    abilities = target.find(job.target.settings).build().abilities()
    anatomy = dissect(model, splits.search.train.first(2).inputs, abilities, job.groups)
    space = spaces.build(job, anatomy)
    prints = {"model": _model_hash(model), "data": splits.fingerprint(), "space": space.fingerprint()}
    teacher = _other_teacher(space, model, splits.search.train)
    if teacher is not None:
        prints["teacher"] = _model_hash(teacher)
    return Subject(model, splits, metric, space, prints, teacher)


def prepare(
    job: Job, subject: Subject, folder: JobFolder, references: Mapping[str, float], say: Callable[[str], None]
) -> TrialContext:
    """Lower the baseline, open it, score it once and time it, and compute the teacher's outputs.

    Args:
        job: The job.
        subject: Its model and data.
        folder: The search's folder.
        references: The baseline's latencies by target, in milliseconds, where an earlier run has taken them.
        say: Told what the user should know.

    Raises:
        LoweringError: The model does not export.
        JobError: A relative constraint cannot be met by anything.
    """
    _warn_of_emulation(job, subject.space, say)
    stations = tuple(_station(job, name, subject, folder, references, say) for name in job.targets)
    with stations[0].baseline.unpacked() as path, served(stations[0].address, path) as session:
        score = AccuracyEvaluator(subject.metric, subject.splits.search.validation).score(session)
    shares = ("accuracy", "f1") if score.value <= 1.0 else ()
    wrong = [Problem(("constraints",), text) for text in impossible(job.bounds, {score.name: score.value}, shares)]
    if wrong:
        raise JobError(wrong, f"with the baseline's {score.name} of {score.value:.4f}, the job")
    since = time.monotonic()
    cache = Cache(folder.cache)
    teacher = _teacher_outputs(subject, cache, chosen(job.budget.wanted))
    return TrialContext(
        model=subject.model,
        splits=subject.splits.search,
        metric=subject.metric,
        space=subject.space,
        teacher=teacher,
        teaching_seconds=time.monotonic() - since,
        stations=stations,
        artifacts=folder.artifacts,
        folds=job.cross_validation or 0,
        tutor=subject.teacher,
        seed=job.seed,
        share=job.search.share,
        nursery=Nursery(cache, _identity(job, subject)) if job.search.share else None,
        preview=job.search.preview,
        origin=origin(job.folder, subject.fingerprints),
        device=job.budget.wanted,
    )


def _warn_of_emulation(job: Job, space: spaces.Space, say: Callable[[str], None]) -> None:
    precision = str(space.constants.get("recovery.precision", "32"))
    if job.budget.trial_gpus == 0 and not on_cluster() and machine.emulates(precision):
        say(
            f"space.recovery.precision is {precision}, for which this processor has no fast instructions: training may take "
            "ten times as long as with 32, or longer"
        )


def _identity(job: Job, subject: Subject) -> str:
    """Return all that training, and the scores in its course, depend on beside a recipe."""
    prints = dict(sorted(subject.fingerprints.items()))
    models = [model for model in (subject.model, subject.teacher) if model is not None]
    paths = [teaching.named_augmentation(subject.space), getattr(job.metric, "function", None)]
    paths += [type(part).__module__ for part in subject.space.techniques]
    code = [*map(teaching.code_of, models), *(usercode.source(path) for path in paths if path is not None)]
    return f"{prints} {job.metric_name} {job.model_dump_json(include={'metric'})} {job.seed} {code}"


def _station(
    job: Job,
    name: str,
    subject: Subject,
    folder: JobFolder,
    references: Mapping[str, float],
    say: Callable[[str], None],
) -> StationPlan:
    options = job.targets[name]
    address = target.find(options.settings)
    validation = subject.splits.search.validation
    request = lowering_request(subject.space, {}, Activation(), subject.splits.search)
    with torch.no_grad():
        shape = tuple(validation.first(2).inputs.through(subject.model).shape[1:])
    plan = StationPlan(
        name=name,
        address=address,
        baseline=address.build().lower(copy.deepcopy(subject.model), request, folder.artifacts),
        reference_ms=references.get(name),
        throughput_batches=options.throughput_batches,
        tolerance=job.export_tolerance,
        output_shape=shape,
    )
    return plan if plan.reference_ms is not None else replace(plan, reference_ms=_reference(plan, validation, say))


def _reference(plan: StationPlan, validation: Split, say: Callable[[str], None]) -> float:
    """Return the baseline's latency, from which those of all trials are reckoned by their ratios to it."""
    with TemporaryDirectory(prefix="paretrim-") as folder:
        bench = lay_out(plan, validation, Path(folder), Lane())
        found, _ = time_quietly((bench.baseline, bench.baseline), bench, None)
    if found.crowded:
        say(
            "others keep this machine busy: latencies in milliseconds may be too long; ratios to the baseline hold, and "
            "trials that are disturbed too much are timed again at the end"
        )
    return found.models[0].latency_ms[0]


def _other_teacher(space: spaces.Space, model: nn.Module, train: Split) -> nn.Module | None:
    """Load the user's teacher, where there is one, and check that their augmentation imports, before any work."""
    augmentation, path = teaching.named_augmentation(space), teaching.named_teacher(space)
    if augmentation is not None:
        usercode.check_function(augmentation, "space.recovery.augmentation")
    if path is None:
        return None
    teacher = usercode.load_network(path, "space.distillation.teacher").requires_grad_(False)
    teaching.check_teacher(teacher, model, train, path)
    return teacher


def _teacher_outputs(subject: Subject, cache: Cache, device: torch.device) -> torch.Tensor | None:
    if not any(part.needs_teacher() for part in subject.space.techniques):
        return None
    teacher, prints = subject.teacher or subject.model, subject.fingerprints
    return teaching.outputs(teacher, prints.get("teacher", prints["model"]), subject.splits.search.train, cache, device)


def _model_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        )
    return digest.hexdigest()
