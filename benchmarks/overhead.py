"""What does the search cost beside its trials? Trials that do nothing, through everything that real ones go through.

Job, context and space are those of the bundled example; Ray Tune, the study in SQLite, the sampler, MLflow and the plain
log are the real ones, and only what makes a trial does nothing. Beside it stand a plain Optuna loop over the same space
and Ray Tune with its own OptunaSearch. The sampler's own ask is timed alone, in memory, with the same trials.

The bar, on two cores: at 1,000 trials at most 60 ms a trial beyond the sampler's own ask; at 5,000 trials no more than a
quarter more than at 1,000; the sampler's ask under 300 ms at 5,000 trials; and with trials that take 5 seconds at least
95% of the workers' time goes into trials.

    python benchmarks/overhead.py [--quick] [--json FILE] [--no-bar] [--only PART]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also starts as a script

import optuna
from optuna.study import StudyDirection
from ray import tune
from rich.console import Console

from paretrim.evaluators import machine
from paretrim.evaluators.measurement import Measurement
from paretrim.search import knobs, prepare, samplers
from paretrim.search.actor import TrialActor
from paretrim.search.backlog import Backlog
from paretrim.search.driver import drive
from paretrim.search.head import started
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.search.mirror import Ending, Mirror
from paretrim.search.monitor import Outline
from paretrim.search.result import objectives_of
from paretrim.search.samplers import SamplerRequest
from paretrim.search.space import Space
from paretrim.search.store import Store
from paretrim.search.study import Asked, Study
from paretrim.search.terminal import PlainLines
from paretrim.search.trial import TrialRunner
from paretrim.spaces.dimension import Value, existing
from paretrim.tracking.apart import apart
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.view import View

MOST_MS, MOST_ASK_MS, MOST_GROWTH, LEAST_SHARE = 60.0, 300.0, 1.25, 0.95
_OBJECTIVES = ("accuracy", "latency_ms", "size_bytes", "memory_bytes")
_FURTHER = 10


@dataclass(frozen=True)
class Taken:
    """Wall time of trials that do nothing.

    Attributes:
        what: Whose.
        trials: How many there were.
        total_ms: Wall time of all of them, for each.
        last_ms: Wall time of the last fifth of them, for each.
        ask_ms: The sampler's own ask, alone and in memory, on average over them; None where it was not taken.
        last_ask_ms: The same at the end.
    """

    what: str
    trials: int
    total_ms: float
    last_ms: float
    ask_ms: float | None = None
    last_ask_ms: float | None = None

    @property
    def beyond_ms(self) -> float | None:
        """Wall time of a trial beyond the sampler's own ask."""
        return None if self.ask_ms is None else self.total_ms - self.ask_ms

    @property
    def last_beyond_ms(self) -> float | None:
        """The same at the end."""
        return None if self.last_ask_ms is None else self.last_ms - self.last_ask_ms


@dataclass(frozen=True)
class Shared:
    """How busy workers were.

    Attributes:
        sampler: As the job named it.
        trial_s: Seconds that each trial slept.
        trials: How many.
        share: Of the workers' time, while all are there and have something to do, that which went into trials.
        used: Asks by sampler; those of the random start and of the predicted front are not counted.
    """

    sampler: str
    trial_s: float
    trials: int
    share: float
    used: dict[str, int]


class Idle(TrialRunner):
    """Makes trials that do nothing, or sleep."""

    seconds: ClassVar[float] = 0.0

    def __init__(self, *_: Any) -> None:
        pass

    def run(self, asked: Asked, seconds: dict[str, float]) -> Iterator[TrialRecord]:  # noqa: ARG002 - as a real one
        """Yield the record of a trial."""
        began = time.time()
        time.sleep(self.seconds)
        yield record_of(asked, began, time.time())


class IdleActor(TrialActor):
    """A trial actor whose trials do nothing."""

    Runner = Idle


def record_of(asked: Asked, began: float, ended: float) -> TrialRecord:
    """Return a record with as many measurements as a real one has, made up from the recipe."""
    digest = hashlib.sha256(str(asked.recipe.items).encode()).hexdigest()
    shares = [int(digest[i : i + 8], 16) / 16**8 for i in range(0, 32, 8)]
    values = dict(zip(_OBJECTIVES, made_up(asked.recipe.values, shares), strict=True))
    further = {f"further_{i}": float(i) for i in range(_FURTHER)}
    measurements = tuple(Measurement(n, v, low=v * 0.99, high=v * 1.01, how="made up") for n, v in values.items())
    return TrialRecord(
        number=asked.number,
        kind=asked.kind,
        state="complete",
        recipe=asked.recipe.values,
        seed=asked.recipe.seed,
        measurements=(*measurements, *(Measurement(name, v, how="made up") for name, v in further.items())),
        sha256=digest,
        model_sha256=digest,
        environment={"began": repr(began), "ended": repr(ended), "worker": str(os.getpid())},
        seconds={"idle": ended - began},
    )


def made_up(values: dict[str, Value], shares: list[float]) -> tuple[float, float, float, float]:
    """Return objectives that trade off: what is kept against what it costs, with some noise."""
    ratios = [float(v) for n, v in values.items() if ".ratio" in n and isinstance(v, int | float)] or [0.0]
    bits = [float(v) if isinstance(v, int | float) else 32.0 for n, v in values.items() if ".bits" in n] or [32.0]
    kept, width = 1 - mean(ratios), mean(bits) / 32
    loss = 0.1 * (1 - kept) ** 2 + 0.02 / max(1.0, mean(bits)) + 0.01 * shares[0]
    return 0.95 - loss, 0.1 + kept * (0.4 + 0.6 * width) + 0.05 * shares[1], 1e4 + 1e5 * kept * width, 1e6 * (1 + kept)


def main() -> int:
    """Measure, print, and return 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="up to 1,000 trials, fewer of the others': under 5 minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--no-bar", action="store_true", help="only print")
    parser.add_argument("--only", choices=("ours", "optuna", "tune", "workers"), help="one part of it")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parts: dict[str, Callable[[Place], list[Taken | Shared]]] = {
        "ours": lambda place: list(ours(place, (10, 100, 1000) if options.quick else (10, 100, 1000, 5000))),
        "workers": lambda place: list(workers(place, options.quick)),
        "optuna": lambda place: list(plain_optuna(place, (10, 100) if options.quick else (10, 100, 1000))),
        "tune": lambda place: list(tune_with_optuna(place, (10,) if options.quick else (10, 100))),
    }
    found: list[Taken | Shared] = []
    with TemporaryDirectory() as folder:
        place = Place(Path(folder))
        with started(place.job):
            for name, part in parts.items():
                if options.only in (None, name):
                    print(f"measuring {name}", file=sys.stderr, flush=True)
                    found += part(place)
    taken, shared = [f for f in found if isinstance(f, Taken)], [f for f in found if isinstance(f, Shared)]
    facts = machine.describe()
    print(f"{facts.get('cpu', '')}, {facts.get('cpu_cores', '')} cores; {len(place.space.searched)} knobs\n")
    show(taken, shared)
    missed = list(misses(taken, shared))
    print("\n".join(["", *missed]) if missed else "\nthe bar is met")
    if options.json:
        document = {"machine": facts, "taken": [asdict(t) for t in taken], "workers": [asdict(s) for s in shared]}
        options.json.write_text(json.dumps({**document, "missed": missed}, indent=2))
    return 1 if missed and not options.no_bar else 0


class Place:
    """The bundled example, prepared once for all that is measured."""

    def __init__(self, folder: Path, parallel: int = 2) -> None:
        self.job = load(EXAMPLE).with_budget({"parallel": parallel})
        self.store = Store(folder / "store")
        self.folder = folder
        self.subject = prepare.load(self.job)
        self.context = prepare.prepare(self.job, self.subject, self.store.create("context"), {}, lambda _: None)
        self.space: Space = self.context.space
        self.objectives = objectives_of(self.job, self.subject.metric.maximize)

    def search(self, trials: int, actor: type[tune.Trainable], sampler: str = "auto") -> tuple[Study, list[float]]:
        """Run a search; return its study and when each trial ended, in seconds from the first one's start."""
        changes = {
            **self.job.model_dump(),
            "sampler": sampler,
            "budget": {**self.job.budget.model_dump(), "trials": trials},
        }
        job = Job(**changes)
        folder = self.store.create("idle")
        study = Study(self.store.own.study, folder.name, self.objectives, job.bounds, job.seed, create=True)
        study.begin(self.space.anchors(job.seed))
        view = View(job.metric_name, list(_OBJECTIVES[1:]), [d.name for d in self.space.searched])
        watch = _Watch()
        watch.begin(Outline(folder.name, job.metric_name, self.objectives, job.bounds, trials, None), [])
        with apart(self.store.own.tracking, folder.name, self.store.own.tracking_artifacts, view) as tracker:
            tracker.ready()
            drive(job, self.context, study, Backlog(tracker, watch), folder, watch, actor)
        return study, watch.ended


class _Watch(PlainLines):
    """The plain log, into nothing, with the time of each trial's end."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), width=100))
        self._begun: float | None = None
        self.ended: list[float] = []

    def started(self, number: int) -> None:
        """Take the time of the first."""
        if self._begun is None:
            self._begun = time.perf_counter()
        super().started(number)

    def finished(self, record: TrialRecord) -> None:
        """Take the time."""
        super().finished(record)
        self.ended.append(time.perf_counter() - (self._begun or 0.0))


def ours(place: Place, counts: tuple[int, ...]) -> Iterator[Taken]:
    """Yield what paretrim takes: one search as long as the longest, looked at on its way."""
    study, ended = place.search(counts[-1], IdleActor)
    asks = asks_alone(place, study.records())
    for count in counts:
        before = [ms for number, ms in asks if number < count]
        yield Taken("paretrim", count, ended[count - 1] / count * 1e3, _last(ended, count), mean(before), before[-1])


def _last(ended: list[float], count: int) -> float:
    fifth = max(1, count // 5)
    since = ended[count - 1 - fifth] if count > fifth else 0.0
    return (ended[count - 1] - since) / fifth * 1e3


def asks_alone(place: Place, records: list[TrialRecord]) -> list[tuple[int, float]]:
    """Return what the default sampler's ask takes in memory after so many of these trials, in milliseconds."""
    request = SamplerRequest(0, len(place.objectives), 10, len(records))
    sampler = samplers.make(samplers.TPE, request)
    mirror = Mirror(place.space, _directions(place), samplers.history(samplers.TPE))
    found = []
    for at, record in enumerate(records):
        if at % max(1, len(records) // 200) == 0:
            seconds = []
            for _ in range(2):
                since = time.perf_counter()
                mirror.sample(sampler)
                seconds.append(time.perf_counter() - since)
            found.append((at, min(seconds) * 1e3))
        mirror.begin(at, dict(record.recipe))
        mirror.end(at, Ending(tuple(record.metrics[o.name] for o in place.objectives)))
    return found


def workers(place: Place, quick: bool) -> Iterator[Shared]:
    """Yield how busy the workers are with trials that sleep."""
    for sampler, seconds, trials in (("auto", 5.0, 17), *(() if quick else (("auto", 12.0, 41),))):
        runner = type("Sleeping", (Idle,), {"seconds": seconds})
        study, _ = place.search(trials, type("SleepingActor", (TrialActor,), {"Runner": runner}), sampler)
        yield Shared(sampler, seconds, trials, _share(study.records()), study.asks())


def _share(records: list[TrialRecord]) -> float:
    """Return the share of the workers' time that went into trials, while all of them were there and had something to do."""
    times = sorted(
        (float(r.environment["began"]), float(r.environment["ended"]), r.environment["worker"]) for r in records
    )
    workers = {worker for _, _, worker in times}
    since = max(next(began for began, _, who in times if who == worker) for worker in workers)
    until = min(max(ended for _, ended, who in times if who == worker) for worker in workers)
    busy = sum(max(0.0, min(ended, until) - max(began, since)) for began, ended, _ in times)
    return busy / ((until - since) * len(workers))


def plain_optuna(place: Place, counts: tuple[int, ...]) -> Iterator[Taken]:
    """Yield what a plain loop of ask and tell takes, its study in SQLite, the knobs asked for as they come to exist."""
    for count in counts:
        study = optuna.create_study(
            storage=f"sqlite:///{place.folder / f'plain-{count}.db'}", directions=_directions(place)
        )
        since, ended = time.perf_counter(), []
        for _ in range(count):
            trial = study.ask()
            values = {
                d.name: knobs.from_sampled(d, trial._suggest(d.name, knobs.distribution(d)))
                for d in place.space.searched
            }
            study.tell(trial, made_up(existing(place.space.dimensions, values), [0.5] * 4))
            ended.append(time.perf_counter() - since)
        yield Taken("plain Optuna, SQLite", count, ended[-1] / count * 1e3, _last(ended, count))


def tune_with_optuna(place: Place, counts: tuple[int, ...]) -> Iterator[Taken]:
    """Yield what Ray Tune takes with its OptunaSearch, a study in memory, a fresh actor for each trial."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    space = {d.name: knobs.distribution(d) for d in place.space.searched}

    def nothing(config: dict[str, Any]) -> dict[str, float]:
        return dict(zip(_OBJECTIVES, made_up(config, [0.5] * 4), strict=True))

    for count in counts:
        search = OptunaSearch(
            space, metric=list(_OBJECTIVES), mode=["max" if o.maximize else "min" for o in place.objectives]
        )
        since = time.perf_counter()
        tune.Tuner(
            tune.with_resources(nothing, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=search, num_samples=count, max_concurrent_trials=2),
            run_config=tune.RunConfig(name=f"tune-{count}", storage_path=str(place.folder), verbose=0),
        ).fit()
        total = (time.perf_counter() - since) / count * 1e3
        yield Taken("Ray Tune, OptunaSearch", count, total, total)


def _directions(place: Place) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE if o.maximize else StudyDirection.MINIMIZE for o in place.objectives]


def show(taken: list[Taken], shared: list[Shared]) -> None:
    """Print the tables."""
    print(f"{'ms a trial':<24}{'trials':>8}{'all':>9}{'ask':>8}{'beyond':>9}{'at the end':>13}{'ask':>8}{'beyond':>9}")
    for t in taken:
        numbers = (t.total_ms, t.ask_ms, t.beyond_ms, t.last_ms, t.last_ask_ms, t.last_beyond_ms)
        cells = ["-" if number is None else f"{number:.1f}" for number in numbers]
        print(
            f"{t.what:<24}{t.trials:>8}" + "".join(f"{c:>{w}}" for c, w in zip(cells, (9, 8, 9, 13, 8, 9), strict=True))
        )
    print(
        "ask: the sampler's own, alone and in memory; beyond: the rest; at the end: over the last fifth of the trials"
    )
    if shared:
        print(f"\n{'sampler':<24}{'trials':>8}{'seconds':>9}{'busy':>8}  asks")
    for s in shared:
        print(f"{s.sampler:<24}{s.trials:>8}{s.trial_s:>9.1f}{s.share:>8.1%}  {s.used}")


def misses(taken: list[Taken], shared: list[Shared]) -> Iterator[str]:
    """Yield what misses the bar."""
    by_count = {t.trials: t for t in taken if t.what == "paretrim"}
    thousand, most = by_count.get(1000), by_count.get(5000)
    if thousand is not None and (thousand.beyond_ms or 0.0) > MOST_MS:
        yield f"missed: {thousand.beyond_ms:.1f} ms a trial at 1,000 trials beyond the sampler's ask; at most {MOST_MS:g}"
    if thousand is not None and most is not None:
        if (most.last_beyond_ms or 0.0) > MOST_GROWTH * max(1.0, thousand.last_beyond_ms or 0.0):
            yield f"missed: it grows from {thousand.last_beyond_ms:.1f} ms at 1,000 trials to {most.last_beyond_ms:.1f} at 5,000"
        if (most.last_ask_ms or 0.0) > MOST_ASK_MS:
            yield f"missed: an ask takes {most.last_ask_ms:.0f} ms at 5,000 trials; at most {MOST_ASK_MS:g}"
    for s in shared:
        if s.share < LEAST_SHARE:
            yield f"missed: {s.share:.1%} of the workers' time in trials of {s.trial_s:g} s; at least {LEAST_SHARE:.0%}"


if __name__ == "__main__":
    sys.exit(main())
