"""How much each knob matters for each objective, from the trials of a search, by PED-ANOVA.

The importance of a knob is how much its values among the best trials of an objective differ from its values among all
(Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
IJCAI 2023), as Optuna reckons it. A knob that exists under a condition only is compared among the trials that have it,
as in "Conditional PED-ANOVA: Hyperparameter Importance in Hierarchical & Dynamic Search Spaces" (2026): were it given its
neutral value elsewhere, it would inherit the importance of the knob that brings it about.

Trials differ by chance too, and shares always add up to one. So each knob's importance is held against what it is when an
objective's values are dealt out anew, twenty times: a knob is clear that is four standard deviations above its own mean
there (on roots, since an importance is a sum of squares). Values are dealt out among trials that were made one after the
other, since a sampler that closes in on good recipes moves all knobs at once, and the late trials are both better and more
alike. What is left of that cannot be told from importance: it is an association in the trials that were made.
"""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from paretrim.spaces.dimension import Choice, Dimension, Value
from paretrim.tracking.front import Objective
from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import crowded

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

LEAST_TRIALS = 50
"""Trials below which nothing is told: the method wants five among the best tenth. With half as many, made-up objectives
that hang on three knobs of sixteen were not told from ones that hang on none."""
_BEST_SHARE = 0.1
# More trials are thinned out evenly: the time grows with them, and the numbers hardly change.
_MOST_TRIALS = 400
_DEALS, _TOGETHER = 20, 5
_CLEAR, _ALIKE = 4.0, 1e-9


def importance(
    records: Sequence[TrialRecord], dimensions: Sequence[Dimension], objectives: Sequence[Objective]
) -> Importance:
    """Return what each knob matters for each objective; the same for the same records.

    Only trials of the sampler count that are complete and whose latency was not disturbed, not the anchors.

    Args:
        records: All trials that ended.
        dimensions: The knobs that are searched.
        objectives: What is optimized.
    """
    names = tuple(o.name for o in objectives)
    used = [record for record in records if record.kind == "search" and record.complete and not crowded(record)]
    if not dimensions:
        return Importance(names, {}, len(used), "no knob is searched")
    if len(used) < LEAST_TRIALS:
        why = (
            f"the importance of knobs takes {LEAST_TRIALS} searched trials that are complete and were timed undisturbed"
        )
        return Importance(names, {}, len(used), f"{why}; there are {len(used)}")
    used = _thinned(used)
    study = _study(used, dimensions)
    found = [_weights(study, _losses(used, o)) for o in objectives]
    none = Weight(0.0, clear=False)
    knobs = {d.name: tuple(each.get(d.name, none) for each in found) for d in dimensions}
    order = sorted(knobs, key=lambda name: -max(weight.share for weight in knobs[name]))
    return Importance(names, {name: knobs[name] for name in order}, len(used))


def _thinned(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    count = min(len(records), _MOST_TRIALS)
    return [records[i * len(records) // count] for i in range(count)]


def _losses(records: Sequence[TrialRecord], objective: Objective) -> list[float]:
    sign = -1.0 if objective.maximize else 1.0
    return [sign * record.metrics[objective.name] for record in records]


def _weights(study: optuna.Study, losses: Sequence[float]) -> dict[str, Weight]:
    found = _evaluated(study, losses)
    total, clear = sum(found.values()), _clear(found, [_evaluated(study, deal) for deal in _deals(losses)])
    return {name: Weight(value / total if total > 0 else 0.0, name in clear) for name, value in found.items()}


def _deals(losses: Sequence[float]) -> Iterator[list[float]]:
    dealer = random.Random(0)
    for _ in range(_DEALS):
        groups = [list(losses[start : start + _TOGETHER]) for start in range(0, len(losses), _TOGETHER)]
        for group in groups:
            dealer.shuffle(group)
        yield [loss for group in groups for loss in group]


def _clear(found: Mapping[str, float], deals: Sequence[Mapping[str, float]]) -> set[str]:
    """Return the knobs whose importance is far above what it is in the deals."""
    return {name for name, value in found.items() if _distance(value, [deal[name] for deal in deals]) > _CLEAR}


def _distance(value: float, usual: Sequence[float]) -> float:
    """Return how many standard deviations of the usual values a value is above their mean, on roots."""
    roots = [math.sqrt(each) for each in usual]
    spread = statistics.stdev(roots)
    return (math.sqrt(value) - statistics.fmean(roots)) / spread if spread > _ALIKE else 0.0


def _evaluated(study: optuna.Study, losses: Sequence[float]) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # noqa: PLC0415 - slow to import

    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    with warnings.catch_warnings():
        # It warns of conditions that hold in few trials, and that less is taken to be better, which is meant.
        warnings.simplefilter("ignore")
        return get_param_importances(
            study, evaluator=evaluator, target=lambda trial: losses[trial.number], normalize=False
        )


def _study(records: Sequence[TrialRecord], dimensions: Sequence[Dimension]) -> optuna.Study:
    import optuna  # noqa: PLC0415 - as above

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    distributions = {d.name: _distribution(d) for d in dimensions}
    trials = []
    for record in records:
        places = {d.name: _place(d, record.recipe[d.name]) for d in dimensions if d.name in record.recipe}
        params = {name: place for name, place in places.items() if place is not None}
        own = {name: distributions[name] for name in params}
        trials.append(optuna.trial.create_trial(params=params, distributions=own, value=0.0))
    study.add_trials(trials)
    return study


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution  # noqa: PLC0415 - as above

    if isinstance(dimension, Choice):
        # Not a categorical one: of those Optuna smooths the counts away, so that even twelve of twelve alike weigh little.
        return IntDistribution(0, len(dimension.values) - 1)
    if dimension.step is not None:
        return IntDistribution(0, max(0, _steps(dimension.high - dimension.low, dimension.step)))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _place(dimension: Dimension, value: Value) -> float | int | None:
    """Return a value as it stands in its distribution; None for one that is not of those that are searched."""
    if not dimension.allows(value):
        return None
    if isinstance(dimension, Choice):
        return dimension.values.index(value)
    number = float(value)  # type: ignore[arg-type]  # a range allows numbers only
    return number if dimension.step is None else _steps(number - dimension.low, dimension.step)


def _steps(length: float, step: float) -> int:
    return round(length / step)
