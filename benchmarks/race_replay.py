"""Trials that are predicted instead of made: models fitted to recorded trials stand for training and measuring.

Randomized trees (Geurts et al., "Extremely randomized trees", 2006) over the knobs predict the scores after each epoch and
in the end, the costs before and after training, and the time of an epoch. They are of another kind than the Gaussian
processes that paretrim's own search is led by. What they miss of the recorded trials, by cross-validation, is said in a
table. Scores get it as noise, as training is a matter of luck; costs do not, since the same recipe weighs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

from benchmarks.race_track import RealTrack, Track, finished
from paretrim.evaluators.measurement import Measurement
from paretrim.search.encoding import Encoding
from paretrim.search.looks import LOOK, looked_at
from paretrim.search.news import News
from paretrim.search.study import Asked
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import Epoch, Preview, TrialRecord
from paretrim.tracking.sensitivity import Profile

Floats = npt.NDArray[np.float64]
Row = tuple[Floats, float, int]
_TREES, _FOLDS = 200, 5
_EPOCHS = "recovery.epochs"
_COSTS = ("latency_ms", "size_bytes", "memory_bytes")


@dataclass(frozen=True)
class Model:
    """A number of a trial, predicted.

    Attributes:
        name: What it is.
        trees: Predict it, or its logarithm.
        log: Whether it is the logarithm.
        missed: Standard deviation of what cross-validation missed it by.
        explained: Share of the variance that cross-validation explained.
        rows: Recorded numbers that it was fitted to.
    """

    name: str
    trees: ExtraTreesRegressor
    log: bool
    missed: float
    explained: float
    rows: int

    def predict(self, features: Floats) -> float:
        """Return a prediction."""
        found = float(self.trees.predict(features[None])[0])
        return math.exp(found) if self.log else found


@dataclass(frozen=True)
class Fit:
    """What recorded trials are like.

    Attributes:
        metric: Name of the job's metric.
        encoding: Of the searched knobs.
        models: By what they predict.
        anchors: A recorded trial of each kind that is not searched.
        glance: The sensitivity that a search begins with, and the seconds it took.
    """

    metric: str
    encoding: Encoding
    models: dict[str, Model]
    anchors: dict[str, TrialRecord]
    glance: tuple[Profile, float]

    def errors(self) -> str:
        """Return what the models miss of the recorded trials, in words."""
        lines = ["what the models miss of the recorded trials, by cross-validation:"]
        for model in self.models.values():
            missed = f"{model.missed:.2%}" if model.log else f"{model.missed:.4f}"
            lines.append(f"  {model.name:14} {model.rows:6} numbers, {missed}; {model.explained:.1%} explained")
        return "\n".join(lines)

    def features(self, values: dict[str, Value], done: float = 1.0) -> Floats:
        """Return what a recipe is predicted from, after a share of its epochs."""
        return _features(self.encoding, values, done)


_FITS: dict[Path, Fit] = {}
"""Processes that are started later have them too."""


def fitted(file: Path, track: RealTrack) -> Fit:
    """Fit the models to the trials in a file, once."""
    if file not in _FITS:
        _FITS[file] = _fit(file, track)
    return _FITS[file]


def _fit(file: Path, track: RealTrack) -> Fit:
    space = track.context.space
    encoding = Encoding(space.searched, space.constants)
    metric = track.context.metric.name
    records = _read(file)
    models = {model.name: model for model in _models(records, encoding, metric)}
    anchors = {r.kind: r for r in records if r.kind in space.anchors(0) and r.complete}
    return Fit(metric, encoding, models, anchors, track.glance())


class Replayed(Track):
    """Trials that are predicted.

    Args:
        real: Where the trials would be made.
        fit: What recorded ones are like.
        seed: Of the noise.
    """

    def __init__(self, real: RealTrack, fit: Fit, seed: int) -> None:
        self.job, self.context, self.objectives, self.folder = real.job, real.context, real.objectives, real.folder
        self._fit, self._seed = fit, seed

    def run(self, asked: Asked, *, preview: bool) -> Iterator[News | TrialRecord]:
        """Tell what a trial would be like: yields what it tells under way, and last its record."""
        if asked.kind in self._fit.anchors:
            known = self._fit.anchors[asked.kind]
            yield finished(asked, known.measurements, known.seconds, known.epochs)
            return
        yield from self._searched(asked, preview=preview)

    def glance(self) -> tuple[Profile, float]:
        """Return the sensitivity that a search begins with, and the seconds it took."""
        return self._fit.glance

    def looks(self, sensitivity: Profile) -> tuple[TrialRecord, ...]:
        """Return what the strongest recipes would cost, untrained."""
        return tuple(self._looked_at(*each) for each in enumerate(looked_at(self.context, sensitivity)))

    def _looked_at(self, number: int, recipe: Recipe) -> TrialRecord:
        preview = self._preview(dict(recipe.values))
        return TrialRecord(number, LOOK, "stopped", recipe.values, recipe.seed, preview=preview)

    def settled(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials as they are: predicted costs are exact."""
        return list(records)

    def _searched(self, asked: Asked, *, preview: bool) -> Iterator[News | TrialRecord]:
        rng = np.random.default_rng((self._seed, asked.number))
        values, fit = dict(asked.recipe.values), self._fit
        whole = fit.features(values)
        costs = {name: fit.models[name].predict(whole) for name in _COSTS}
        seconds: dict[str, float] = {}
        before = self._preview(values) if preview else None
        if before is not None:
            yield News(before, dict(seconds))
        count = values.get(_EPOCHS)
        longest = count if isinstance(count, int) else 0
        epoch_s = fit.models["epoch_s"].predict(whole)
        # A trial's course is its own throughout: one draw for all its epochs.
        luck = float(rng.normal())
        epochs: list[Epoch] = []
        for done in range(1, longest + 1):
            course = fit.models["score"]
            score = course.predict(fit.features(values, done / longest)) + luck * course.missed
            seconds["recover"] = seconds.get("recover", 0.0) + epoch_s
            epochs.append(Epoch(loss=1.0 - score, score=min(1.0, score)))
            yield News(epochs[-1], dict(seconds))
        final = fit.models[fit.metric]
        score = min(1.0, final.predict(whole) + luck * final.missed)
        measurements = (_measured(fit.metric, score), *(_measured(name, costs[name]) for name in _COSTS))
        yield finished(asked, measurements, seconds, epochs, before)

    def _preview(self, values: dict[str, Value]) -> Preview:
        whole = self._fit.features(values)
        found = {name: self._fit.models[name].predict(whole) for name in _COSTS}
        found["size_bytes"] = self._fit.models["size_before"].predict(whole)
        return Preview(tuple(_measured(name, value) for name, value in found.items()))


def _models(records: Sequence[TrialRecord], encoding: Encoding, metric: str) -> Iterator[Model]:
    searched = [r for r in records if r.recipe and r.kind in ("search", "final")]
    done = [r for r in searched if r.complete]

    def rows(of: Sequence[TrialRecord], value: Callable[[TrialRecord], float]) -> Iterator[Row]:
        for place, record in enumerate(of):
            yield _features(encoding, dict(record.recipe), 1.0), value(record), place

    yield _model(metric, rows(done, lambda r: r.metrics[metric]), log=False)
    for name in _COSTS:
        yield _model(name, rows(done, lambda r, name=name: r.metrics[name]), log=True)  # type: ignore[misc]
    known = [r for r in searched if r.preview is not None]
    yield _model("size_before", rows(known, lambda r: r.preview.metrics["size_bytes"] if r.preview else 0.0), log=True)
    # Epochs that another trial had run cost nothing: they would teach a wrong time.
    trained = [r for r in done if r.epochs and not any(e.inherited for e in r.epochs) and "recover" in r.seconds]
    yield _model("epoch_s", rows(trained, lambda r: r.seconds["recover"] / len(r.epochs)), log=True)
    yield _model("score", _courses(searched, encoding), log=False)


def _courses(records: Sequence[TrialRecord], encoding: Encoding) -> Iterator[Row]:
    """Yield the scores on the way, with the share of the epochs that were done."""
    for place, record in enumerate(records):
        longest = record.recipe.get(_EPOCHS)
        for done, epoch in enumerate(record.epochs, 1):
            if isinstance(longest, int) and longest and epoch.score is not None and math.isfinite(epoch.score):
                yield _features(encoding, dict(record.recipe), done / longest), epoch.score, place


def _model(name: str, rows: Iterator[Row], *, log: bool) -> Model:
    features, values, groups = (np.array(column) for column in zip(*rows, strict=True))
    targets = np.log(values) if log else values
    trees = ExtraTreesRegressor(_TREES, min_samples_leaf=2, max_features=0.6, random_state=0)
    guessed = cross_val_predict(trees, features, targets, groups=groups, cv=GroupKFold(_FOLDS))
    missed = targets - guessed
    explained = 1.0 - float(missed.var() / targets.var())
    return Model(name, trees.fit(features, targets), log, float(missed.std()), explained, len(targets))


def _features(encoding: Encoding, values: dict[str, Value], done: float) -> Floats:
    count = values.get(_EPOCHS)
    longest = math.log2(count) if isinstance(count, int) and count else 0.0
    return np.append(encoding.features(values), [longest, done])


def _measured(name: str, value: float) -> Measurement:
    return Measurement(name, value, value, value)


def _read(file: Path) -> list[TrialRecord]:
    return [TrialRecord.from_json(line) for line in file.read_text().splitlines()]
