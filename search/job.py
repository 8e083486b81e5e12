"""The job: what to compress, with which data, for which target, over which space, for which objectives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from paretrim.errors import JobError, Problem, nearest
from paretrim.evaluators import evaluator
from paretrim.search import metric, samplers
from paretrim.search.metric import AnyMetric, NamedMetric
from paretrim.search.mistakes import problems
from paretrim.search.sections import Budget, Section, Storage, Strategy, TargetOptions, checked
from paretrim.spaces import technique
from paretrim.spaces.anatomy import Granularity
from paretrim.spaces.importpath import ImportPath
from paretrim.spaces.technique import TechniqueOptions
from paretrim.tracking import constraints
from paretrim.tracking.constraints import Constraint

# Shares of a value within which two measurements count as a tie; see tracking/front.py.
_NOISE = {
    "latency_ms": 0.03,
    "latency_p50_ms": 0.05,
    "latency_p90_ms": 0.1,
    "latency_p99_ms": 0.2,
    "memory_bytes": 0.05,
}


AUTO = "auto"


def _measured() -> list[str]:
    return [name for e in evaluator.installed().values() if not evaluator.why_absent(e) for name in e.metrics]


def _metric_names(info: ValidationInfo) -> list[str]:
    label = info.data["metric"].label
    validated = [f"{label}_cv"] if info.data.get("cross_validation") else []
    return [label, *validated, *_measured()]


def _known_metric(name: str, info: ValidationInfo) -> str:
    allowed = _metric_names(info)
    absent = {n: evaluator.why_absent(e) for e in evaluator.installed().values() for n in e.metrics}
    if absent.get(name):
        raise ValueError(f"{name} cannot be measured on this machine: {absent[name]}")
    if name not in allowed:
        raise ValueError(f"unknown metric '{name}'; allowed: {', '.join(allowed)}{nearest(name, allowed)}")
    return name


def _readable(text: str, info: ValidationInfo) -> str:
    _known_metric(checked(lambda: constraints.parse(text)).metric, info)
    return text


ObjectiveName = Annotated[str, AfterValidator(_known_metric)]
ConstraintText = Annotated[str, AfterValidator(_readable)]


class Job(Section):
    """A search job, the same from YAML and from Python.

    Attributes:
        name: Name of the job; searches are numbered by it: ``digits-1``, ``digits-2``.
        model: Import path, or function, that returns a trained ``torch.nn.Module``.
        data: Import path, or function, that returns `paretrim.Splits`.
        output: Which output of the model counts, by its name or position, where it gives several; by default ``logits``, or the
            only one.
        metric: Name of a metric of torchmetrics, or the import path of ``(outputs, labels) -> float`` of which more is
            better, or a mapping with more about one of them; see search/metric.py.
        cross_validation: Folds of the validation split, for the metric ``METRIC_cv``; none by default.
        space: Techniques by name with their settings; ``off`` leaves one out; ``auto`` for what suits the model and target.
        groups: Whether each group of coupled layers has knobs of its own, or shares them within its block, or all do.
        objectives: Metrics to trade off; by default the metric, latency, size and memory.
        constraints: Bounds that a point of the front must meet.
        target: Where the model will run; what the search is for.
        also: Further targets on which every trial is measured; each has its own front.
        budget: How much to spend.
        priority: On a cluster, searches of a higher one are served first; those of the same one share it evenly.
        sampler: What decides which recipe is next: ``auto``, or a name that docs/search.md lists.
        search: How the search spares itself work.
        earlier: Name of an earlier search of the same model in the store, whose trials are learned from; ``from`` in a job
            file.
        seed: Of everything random.
        storage: Where results lie; by default files in the store.
        export_tolerance: How much the artifact's metric may be worse than the torch model's before a trial fails.
        licence: Of the uncompressed model, for who receives a compressed one: a few words, or the name of a file in `folder`.
        folder: Where the model's and data's modules lie; by default the job file's folder.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "job"
    model: ImportPath
    data: ImportPath
    output: str | Annotated[int, Field(ge=0)] | None = None
    metric: AnyMetric = NamedMetric(name="accuracy")
    cross_validation: Annotated[int, Field(ge=2, le=100)] | None = None
    space: dict[str, TechniqueOptions | None] | Literal["auto"] = "auto"
    groups: Granularity = "per-layer"
    objectives: Annotated[tuple[ObjectiveName, ...], Field(validate_default=True)] = ()
    constraints: tuple[ConstraintText, ...] = ()
    target: TargetOptions = TargetOptions()
    also: tuple[TargetOptions, ...] = ()
    budget: Budget = Field(default_factory=Budget)
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    sampler: str = AUTO
    search: Strategy = Strategy()
    earlier: Annotated[str | None, Field(alias="from")] = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    storage: Storage = Storage()
    export_tolerance: Annotated[float, Field(ge=0)] = 0.02
    licence: Annotated[str, Field(max_length=1000)] = ""
    folder: Path = Field(default_factory=Path.cwd)

    def __init__(self, **given: Any) -> None:
        # A section of which every line is commented out reads as None.
        given = {name: value for name, value in given.items() if value is not None}
        space, found = _read_space(given.get("space", AUTO))
        judge, wrong = metric.read(given.pop("metric", "accuracy"))
        found += wrong
        try:
            super().__init__(**{**given, "space": space, "metric": judge or NamedMetric(name="accuracy")})
        except ValidationError as error:
            found += problems(error, type(self))
        if found:
            raise JobError(found)

    @field_serializer("metric")
    def _short(self, given: AnyMetric) -> str | dict[str, Any]:
        return metric.written(given)

    @field_serializer("space")
    def _off_by_name(self, space: dict[str, TechniqueOptions | None] | str) -> dict[str, Any] | str:
        if isinstance(space, str):
            return space
        # Written as None, a technique that is off would read as one with its defaults.
        return {name: "off" if options is None else options.model_dump(mode="json") for name, options in space.items()}

    @field_validator("objectives")
    @classmethod
    def _distinct(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"an objective is named twice: {', '.join(names)}")
        return names or (_metric_names(info)[0], "latency_ms", "size_bytes", "memory_bytes")

    @field_validator("constraints")
    @classmethod
    def _possible(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        shares = ("accuracy", "f1") if isinstance(info.data["metric"], NamedMetric) else ()
        wrong = list(impossible([constraints.parse(text) for text in texts], {}, shares))
        if wrong:
            raise ValueError("; ".join(wrong))
        return texts

    @field_validator("output", mode="before")
    @classmethod
    def _name_or_position(cls, value: Any) -> Any:
        # Of a choice between a word and a number, pydantic would tell of both what is wrong.
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise ValueError(f"the name of an output, or its position from 0, is needed; given {value!r:.40}")
        return value

    @field_validator("sampler")
    @classmethod
    def _installed(cls, name: str) -> str:
        allowed = samplers.names()
        if name not in allowed:
            raise ValueError(f"unknown sampler '{name}'; allowed: {', '.join(allowed)}{nearest(name, allowed)}")
        return name

    @field_validator("folder")
    @classmethod
    def _exists(cls, folder: Path) -> Path:
        if not folder.is_dir():
            raise ValueError(f"'{folder}' is not a folder")
        return folder.resolve()

    @property
    def techniques(self) -> dict[str, TechniqueOptions | None]:
        """The techniques with the settings that the job gives, None for those that are off; empty for ``auto``."""
        return {} if isinstance(self.space, str) else self.space

    @property
    def targets(self) -> dict[str, TargetOptions]:
        """All targets by name, the one that the search is for first."""
        return {each.label: each for each in (self.target, *self.also)}

    @field_validator("also")
    @classmethod
    def _told_apart(cls, also: tuple[TargetOptions, ...], info: ValidationInfo) -> tuple[TargetOptions, ...]:
        names = [each.label for each in (info.data.get("target"), *also) if each is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two targets are called {', '.join(twice)}; give one of them another 'name'")
        return also

    @property
    def storage_folder(self) -> Path | None:
        """The store that the job names, or None."""
        return None if self.storage.folder is None else self.folder / self.storage.folder

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints, parsed."""
        return tuple(constraints.parse(text) for text in self.constraints)

    @property
    def metric_name(self) -> str:
        """What the metric is called in records and tables."""
        return self.metric.label

    def with_budget(self, changes: Mapping[str, object]) -> Job:
        """Return the job with some fields of its budget changed."""
        return Job(**{**self.model_dump(), "budget": {**self.budget.model_dump(), **changes}}) if changes else self

    def noise(self, name: str) -> float:
        """Return the width of a tie in a metric, as a share of its value."""
        return _NOISE.get(name, 0.0)

    def identity(self) -> str:
        """Return what must not change when a search is resumed, as JSON: all but the budget and where things lie."""
        return self.model_dump_json(exclude={"budget", "priority", "sampler", "folder", "storage", "name"})


def impossible(
    bounds: Iterable[Constraint], baseline: dict[str, float], shares: Collection[str] = ("accuracy", "f1")
) -> Iterable[str]:
    """Yield what is wrong with constraints that nothing can meet.

    Args:
        bounds: The constraints.
        baseline: The baseline's metrics; relative constraints on a metric that is not in it are left out.
        shares: Metrics of which 1 is the most there is; a function of a user's may count accuracy in percent.
    """
    known = [c for c in bounds if c.factor == 0.0 or c.metric in baseline]
    for c in known:
        limit = c.limit(baseline)
        if not c.upper and c.metric in shares and limit > 1.0:
            yield f"'{c.text}' asks for {c.metric} of {limit:.4g}, and 1 is the most there is"
        if c.upper and limit <= 0.0 and c.metric in _measured():
            yield f"'{c.text}' asks for {c.metric} of at most {limit:.4g}, and it is always more than 0"
    for low in (c for c in known if not c.upper):
        for high in (c for c in known if c.upper and c.metric == low.metric):
            if low.limit(baseline) > high.limit(baseline):
                yield f"'{low.text}' and '{high.text}' exclude each other"


def _read_space(given: Any) -> tuple[dict[str, TechniqueOptions | None] | str, list[Problem]]:
    """Return every technique's settings, None for those that are off, and all that is wrong."""
    if given == AUTO:
        return AUTO, []
    if not isinstance(given, dict):
        wanted = f"'{AUTO}', or a mapping of techniques with their settings, is needed"
        return {}, [Problem(("space",), f"{wanted}; given {given!r:.40}")]
    known = technique.installed()
    names = sorted(known)
    wrong = [
        Problem(("space", str(name)), f"unknown technique; allowed: {', '.join(names)}{nearest(str(name), names)}")
        for name in given
        if name not in known
    ]
    space: dict[str, TechniqueOptions | None] = {}
    for name in names:
        try:
            space[name] = _options(known[name].Options, given.get(name, known[name].by_default))
        except ValidationError as error:
            wrong += problems(error, known[name].Options, ("space", name))
    return space, [*wrong, *_exclusions(known, [name for name, options in space.items() if options is not None])]


def _exclusions(known: Mapping[str, type[technique.Technique]], chosen: Collection[str]) -> Iterable[Problem]:
    for name in chosen:
        for other, reason in known[name].excludes.items():
            if other in chosen:
                yield Problem(("space", name), f"does not go together with {other}: {reason}; turn one of them off")


def _options(kind: type[TechniqueOptions], given: Any) -> TechniqueOptions | None:
    # YAML reads the word off as False.
    if given is False or given == "off":
        return None
    if given is True or given is None:
        return kind()
    return given if isinstance(given, kind) else kind.model_validate(given)
