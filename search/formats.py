"""A point in another format than that of the search: made again, lowered for it, and measured anew, under its own hash."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import nn

from paretrim.errors import ArtifactError, UsageError, nearest
from paretrim.evaluators import machine
from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.artifact import Artifact, pack
from paretrim.evaluators.inputs import Inputs
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.splits import Split, Splits
from paretrim.evaluators.storage import HALF, Storage
from paretrim.evaluators.target import Array, Session, TargetSettings
from paretrim.evaluators.torch_export import Codes, HalfFloats
from paretrim.search.context import TrialContext, score_torch
from paretrim.search.replay import Remade, remade
from paretrim.search.result import Result
from paretrim.search.sections import TargetOptions
from paretrim.search.station import Station, record_samples, samples_path
from paretrim.tracking import fit
from paretrim.tracking.bundle import WEIGHTS
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.report import Row, row_of

Format = Literal["onnx", "openvino", "pt2", "safetensors"]
SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "openvino": ".tar", "pt2": ".pt2", "safetensors": WEIGHTS}
"""How the names of files of each format end."""
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino-ir", "pt2": "torch-compile"}
# Of the score of the torch model, made again; sums of floats differ a little on another processor.
_SCORE_TOLERANCE = 0.005
_COMPARED = 64


@dataclass(frozen=True)
class Point:
    """A point of a front in one format.

    Attributes:
        artifact: The file.
        samples: File of inputs, and of what it answered.
        record: The trial, with what was measured of this file.
        row: The same beside the baseline.
        baseline: The uncompressed model in this format.
        runtime: Name and version of what measured it.
        target: Where it was measured.
    """

    artifact: Artifact
    samples: Path
    record: TrialRecord
    row: Row
    baseline: Row
    runtime: str
    target: TargetSettings


def suffix_of(form: str) -> str:
    """Return how files of a format end.

    Raises:
        UsageError: There is no such format.
    """
    if form not in SUFFIXES:
        raise UsageError(f"unknown format '{form}'; allowed: {', '.join(SUFFIXES)}{nearest(form, tuple(SUFFIXES))}")
    return SUFFIXES[form]


def convert(result: Result, row: Row, form: Format, splits: Splits, scratch: Path, say: Callable[[str], None]) -> Point:
    """Make a point again, in another format, and measure it there beside the baseline.

    Args:
        result: The search.
        row: The point.
        form: The format.
        splits: The job's data; the test split is opened where the point was scored on it.
        scratch: An empty folder for the files.
        say: Told what goes on.

    Raises:
        UsageError: The format cannot hold this model, or this machine cannot run it.
        LoweringError: The model does not lower.
        TrialError: It scores worse than the torch model.
        ArtifactError: The trial, made again, does not score as it did.
    """
    settings = result.job.targets[result.target].settings
    test = splits.test.unseal() if row.test else None
    if form == "safetensors":
        with remade(result, row.trial, say) as made:
            _require_same(made)
            return _weights(made, settings, test, scratch)
    options = TargetOptions(
        runtime=_RUNTIMES[form], threads=settings.threads, batch_size=settings.batch_size, name=f"format.{form}"
    )
    with remade(result, row.trial, say, (options,)) as made:
        _require_same(made)
        say(f"measuring it as {form}")
        try:
            return _lowered(made, test, scratch)
        finally:
            _forget(made.context.stations[1].baseline, result)


def _require_same(made: Remade) -> None:
    if abs(made.score - made.logged) > _SCORE_TOLERANCE * max(1.0, abs(made.logged)):
        raise ArtifactError(
            f"trial {made.record.number}, made again on this machine, scores {made.score:.4f} and then {made.logged:.4f}, so it "
            "is another model; export the file of the search, or run this on the machine that made it"
        )


def _forget(baseline: Artifact, result: Result) -> None:
    """Delete the baseline's file in this format, which belongs to no trial."""
    if all(baseline.sha256 != record.sha256 for record in result.study.records()):
        baseline.path.unlink(missing_ok=True)
        samples_path(baseline.path).unlink(missing_ok=True)


def _lowered(made: Remade, test: Split | None, scratch: Path) -> Point:
    context = made.context
    plan = context.stations[1]
    station = Station(plan, context.metric, context.splits.validation, scratch / "bench", Lane())
    artifact = made.workshop.lowered(station.target, made.model, made.recipe, scratch)
    reference = score_torch(context.model, context.splits.validation, context.metric)
    base = station.score(plan.baseline, reference, {})
    found = station.score(artifact, made.score, {})
    tests = {} if test is None else {a.sha256: station.score_on(a, test) for a in (artifact, plan.baseline)}
    environment = station.environment()
    return _told(made, (artifact, found), (plan.baseline, base), tests, environment, plan.address.settings)


def _weights(made: Remade, settings: TargetSettings, test: Split | None, scratch: Path) -> Point:
    """Keep the weights alone, where the uncompressed network with these in it is the compressed one."""
    context = made.context
    held = _held(made.model, made.workshop.storage(made.model, made.recipe))
    network = _refitted(made, held)
    files = [pack(save(each), scratch, WEIGHTS) for each in (held, _held(context.model, {}))]
    found = [_scored(context, each, file) for each, file in zip((network, context.model), files, strict=True)]
    tests = {}
    if test is not None:
        tests = {
            f.sha256: score_torch(n, test, context.metric) for n, f in zip((network, context.model), files, strict=True)
        }
    record_samples(context.splits.validation, _session(network, context), files[0])
    environment = {**machine.describe(), "runtime": f"torch {torch.__version__}"}
    target = replace(settings, runtime="torch")
    return _told(made, (files[0], found[0]), (files[1], found[1]), tests, environment, target)


def _held(model: nn.Module, stored: Mapping[str, Storage]) -> dict[str, torch.Tensor]:
    """Return a model's tensors as they are kept: codes with their scales, half floats, and the others as they are."""
    held = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    for layer, how in stored.items():
        name = f"{layer}.weight"
        if how.bits == HALF:
            (held[name],) = HalfFloats().right_inverse(held[name])
        else:
            held[name], held[f"{name}{fit.SCALE}"] = Codes(how).right_inverse(held[name])
    return held


def _refitted(made: Remade, held: dict[str, torch.Tensor]) -> nn.Module:
    """Return the uncompressed network with a file's weights in it, if that is the compressed one."""
    weights, inputs = fit.widened(held), made.context.splits.validation.first(_COMPARED).inputs
    reference = copy.deepcopy(made.model).eval()
    reference.load_state_dict(weights)
    with torch.no_grad():
        expected = inputs.through(reference)
        try:
            network = fit.fit(copy.deepcopy(made.context.model), weights)
            same = torch.allclose(inputs.through(network), expected, rtol=1e-3, atol=1e-4)
        except Exception as error:
            raise _unfit(made, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    if not same:
        raise _unfit(made, "it answers otherwise")
    return network


def _unfit(made: Remade, why: str) -> UsageError:
    return UsageError(
        f"trial {made.record.number} cannot be taken as safetensors, which holds weights alone: with them in the place of its "
        f"own the uncompressed network is not the compressed one ({why}); take it as onnx, openvino or pt2, which hold all of it"
    )


def _scored(context: TrialContext, network: nn.Module, file: Artifact) -> tuple[Measurement, ...]:
    score = AccuracyEvaluator(context.metric, context.splits.validation).score(_session(network, context))
    return (
        score,
        Measurement("size_bytes", file.size_bytes, how="packed file that ships (xz)"),
        Measurement("model_bytes", file.model_bytes, how="unpacked file of weights"),
    )


def _session(network: nn.Module, context: TrialContext) -> Session:
    inputs = context.space.anatomy.inputs

    def call(*arrays: Array) -> Array:
        given = Inputs(tuple(map(torch.from_numpy, arrays)), inputs.names if inputs.named else ())
        with torch.inference_mode():
            outputs: Array = given.through(network).numpy()
        return outputs

    return call


def _told(
    made: Remade,
    ours: tuple[Artifact, tuple[Measurement, ...]],
    theirs: tuple[Artifact, tuple[Measurement, ...]],
    tests: Mapping[str, float],
    environment: Mapping[str, str],
    target: TargetSettings,
) -> Point:
    def record(of: TrialRecord, artifact: Artifact, found: tuple[Measurement, ...]) -> TrialRecord:
        return replace(
            of,
            measurements=found,
            sha256=artifact.sha256,
            model_sha256=artifact.model_sha256,
            environment={**of.environment, **environment},
        )

    mine, base = record(made.record, *ours), replace(record(made.record, *theirs), number=0, kind=BASELINE, recipe={})
    rows = [row_of(each, made.context.metric.name, base.metrics, tests) for each in (mine, base)]
    return Point(ours[0], samples_path(ours[0].path), mine, rows[0], rows[1], environment["runtime"], target)
