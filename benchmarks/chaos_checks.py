"""What must be true of a search after any number of kills."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from paretrim.evaluators.measurement import Measurement
from paretrim.search.longer import FINAL
from paretrim.search.result import Result, open_result
from paretrim.search.station import samples_path
from paretrim.search.store import Store
from paretrim.tracking.constraints import hard
from paretrim.tracking.front import baseline_metrics
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import crowded

_STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
_RECORDS = """
    select t.number, t.state, a.value_json from trials t
    left join trial_user_attributes a on a.trial_id = t.trial_id and a.key = 'paretrim:record' order by t.number
"""


def written(store: Path) -> dict[int, str]:
    """Return the records of all trials that ended, by number, as they stand in the database at this moment."""
    return {number: text for number, _, text in _trials(store) if text is not None}


def broken(store: Path, seen: Mapping[int, str], trials: int) -> list[str]:
    """Return what is not as it must be, a line each.

    Args:
        store: The store; it holds one search.
        seen: Records that were written at any time while the search ran.
        trials: The search's budget.
    """
    result = open_result(None, Store(store))
    checks = (_kept(store, seen), _states(store, result.study.records()), _left(result))
    return [*(line for check in checks for line in check), *disagreeing(result, trials)]


def disagreeing(result: Result, trials: int) -> list[str]:
    """Return where study, MLflow, front and artifacts are not of one mind, a line each.

    Args:
        result: The search.
        trials: Its budget.
    """
    checks = (_once(result.study.records(), trials), _logged(result), _last_phase(result))
    return [line for check in (*checks, _front(result), _artifacts(result)) for line in check]


def _trials(store: Path) -> list[tuple[int, str, str | None]]:
    path = store / "study.db"
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            return connection.execute(_RECORDS).fetchall()
    except sqlite3.OperationalError:  # its tables are not made yet
        return []


def _kept(store: Path, seen: Mapping[int, str]) -> Iterator[str]:
    now = written(store)
    for number, text in seen.items():
        if now.get(number) != text:
            yield f"trial {number} had ended, and is now {'another' if number in now else 'lost'}"


def _once(records: list[TrialRecord], trials: int) -> Iterator[str]:
    ordinary = [r for r in records if r.kind != FINAL]
    if len(ordinary) != trials:
        yield f"{len(ordinary)} trials ended, and the budget is {trials}"
    recipes = Counter(json.dumps(dict(r.recipe), sort_keys=True) for r in ordinary)
    for recipe, count in recipes.items():
        if count > 1:
            yield f"a recipe was made {count} times: {recipe}"


def _states(store: Path, records: list[TrialRecord]) -> Iterator[str]:
    known = {r.number: _STATES[r.state] for r in records}
    for number, state, text in _trials(store):
        if text is None and state in _STATES.values():
            yield f"trial {number} is {state} in the study and has no record"
        if text is not None and state != known[number]:
            yield f"trial {number} is {state} in the study and {known[number]} in its record"


def _logged(result: Result) -> Iterator[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(result.folder.places.tracking_uri)
    experiment = client.get_experiment_by_name(result.name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment is not None else []
    of_trials = [run for run in runs if "paretrim.trial" in run.data.tags]
    counts = Counter(int(run.data.tags["paretrim.trial"]) for run in of_trials)
    settled = {r.number: r for r in result.records}
    for record in result.study.records():
        if counts.pop(record.number, 0) != 1:
            yield f"trial {record.number} is not logged exactly once"
    yield from (f"trial {number} is logged and not in the study" for number in counts)
    for run in of_trials:
        number = int(run.data.tags["paretrim.trial"])
        if number in settled:
            yield from (f"trial {number} in MLflow: {line}" for line in _differences(settled[number], run))
    if sum(run.data.tags.get("paretrim.summary") == "true" for run in runs) != 1:
        yield "there is not exactly one summary"


def _differences(record: TrialRecord, run: object) -> Iterator[str]:
    data, info = run.data, run.info  # type: ignore[attr-defined]
    if info.status != ("FAILED" if record.state == "failed" else "FINISHED"):
        yield f"its status is {info.status}"
    for name, value in (("state", record.state), ("kind", record.kind), ("artifact_sha256", record.sha256)):
        if data.tags.get(f"paretrim.{name}") != value:
            yield f"{name} is {data.tags.get(f'paretrim.{name}')} and not {value}"
    recipe = {name: str(value) for name, value in {**record.recipe, "seed": record.seed}.items()}
    if data.params != recipe:
        yield "another recipe"
    wrong = [m.name for m in record.measurements if not _same(m, data.metrics)]
    if wrong:
        yield f"other metrics: {', '.join(wrong)}"


def _same(measurement: Measurement, logged: Mapping[str, float]) -> bool:
    found = logged.get(measurement.name)
    return found is not None and abs(found - measurement.value) <= 1e-9 * max(1.0, abs(measurement.value))


def _last_phase(result: Result) -> Iterator[str]:
    noted = result.study.noted("finalists", {"numbers": []})
    made = [r for r in result.study.records() if r.kind == FINAL]
    expected = len(noted["numbers"]) * result.job.search.finals.seeds
    distinct = {(json.dumps(dict(r.recipe), sort_keys=True), r.seed) for r in made}
    if not len(made) == len(distinct) == expected or len(noted["numbers"]) > result.job.search.finals.points:
        yield (
            f"the last phase has {len(made)} trials, {len(distinct)} different ones, and {expected} were to be made of "
            f"the finalists {noted['numbers']}"
        )


def _front(result: Result) -> Iterator[str]:
    """Compare the front that is shown, and the one that is logged, with one by brute force."""
    records, objectives, bounds = result.records, result.objectives, hard(result.job.bounds)
    base = baseline_metrics(records)
    points = {
        r.number: tuple(o.box(r.metrics[o.name]) for o in objectives)
        for r in records
        if r.complete and all(c.met(r.metrics, base) for c in bounds) and (r.kind == "baseline" or not crowded(r))
    }
    best = {a for a, x in points.items() if not any(_beats(y, x) for y in points.values())}
    shown = {row.trial for row in result.require_report().front}
    if shown != best:
        yield f"the front is {sorted(shown)} and by brute force {sorted(best)}"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(result.folder.places.tracking_uri)
    experiment = client.get_experiment_by_name(result.name)
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id], "tags.pareto = 'true'")
    marked = {int(run.data.tags["paretrim.trial"]) for run in runs}
    if marked != best:
        yield f"MLflow marks {sorted(marked)} as the front, and it is {sorted(best)}"


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(x <= y for x, y in zip(one, other, strict=True))


def _artifacts(result: Result) -> Iterator[str]:
    for record in result.study.records():
        if not record.complete:
            continue
        path = next(result.folder.artifacts.glob(f"{record.sha256}.*.xz"), None)
        if path is None:
            yield f"the artifact of trial {record.number} is gone"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
            yield f"the artifact of trial {record.number} is damaged"
        elif not samples_path(path).exists():
            yield f"the samples of trial {record.number} are gone"


def _left(result: Result) -> Iterator[str]:
    if result.folder.scratch.exists():
        yield "the scratch folder is left"
    for path in result.store.root.rglob("*.partial*"):
        yield f"left: {path.relative_to(result.store.root)}"
    if result.folder.running():
        yield "somebody still drives the search"
