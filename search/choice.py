"""The models of a front that people ask for first, which are registered with MLflow."""

from __future__ import annotations

from paretrim.errors import ArtifactError
from paretrim.evaluators import target
from paretrim.search.result import Result, artifact_of
from paretrim.search.station import samples_path
from paretrim.search.words import quantity
from paretrim.tracking.report import Row
from paretrim.tracking.tracker import Chosen

CHAMPION = "champion"
_BY = {"smallest": "size_bytes", "fastest": "latency_ms"}
_ONNX, _RUNTIME = ".onnx", "onnxruntime"


def choose(result: Result) -> tuple[int, tuple[Chosen, ...]]:
    """Return the trial that is exported by default, and the models to register.

    Raises:
        NothingFoundError: No point of the front meets the default condition.
    """
    picked = result.pick()
    wanted = {CHAMPION: picked}
    for alias, metric in _BY.items():
        if metric in picked.metrics:
            wanted[alias] = result.pick(minimize=metric)
    aliases: dict[int, list[str]] = {}
    for alias, row in wanted.items():
        aliases.setdefault(row.trial, []).append(alias)
    rows = {row.trial: row for row in wanted.values()}
    found = (_model(result, rows[trial], tuple(names)) for trial, names in aliases.items())
    return picked.trial, tuple(each for each in found if each is not None)


def _model(result: Result, row: Row, aliases: tuple[str, ...]) -> Chosen | None:
    """Return a model to register; None for one that MLflow has no runtime for, or whose file is gone."""
    try:
        artifact = artifact_of(result, row.trial)
    except ArtifactError:
        return None
    samples = samples_path(artifact.path)
    if artifact.suffix != _ONNX or not samples.exists():
        return None
    options = result.job.targets[result.target]
    runtime, _, version = target.find(options.settings).build().version().partition(" ")
    # MLflow opens ONNX files in ONNX Runtime, whatever they were measured in.
    needed = f"{runtime}=={version}" if runtime == _RUNTIME else _RUNTIME
    costs = [name for name in ("latency_ms", "size_bytes", "memory_bytes") if name in row.metrics]
    scores = [f"{name} {value:.4f} (validation)" for name, value in row.validation.items()]
    scores += [f"{name} {value:.4f} (held-out test)" for name, value in row.test.items()]
    words = ", ".join([*scores, *(quantity(name, row.metrics[name]) for name in costs)])
    return Chosen(
        aliases=aliases,
        search=result.name,
        trial=row.trial,
        artifact=artifact,
        samples=samples,
        threads=options.threads,
        requirements=(needed,),
        metrics={**row.validation, **{name: row.metrics[name] for name in costs}},
        words=words,
    )
