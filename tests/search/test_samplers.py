from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from paretrim.errors import JobError, UsageError
from paretrim.evaluators.signature import Signature
from paretrim.search import samplers
from paretrim.search.job import Job
from paretrim.search.mirror import Ending, Mirror
from paretrim.search.samplers import Pace, SamplerRequest
from paretrim.search.space import Space
from paretrim.search.study import Study
from paretrim.spaces.anatomy import Anatomy, Layer
from paretrim.spaces.dimension import Choice, Condition, Range, Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.testing import OBJECTIVES, sample_record

SPACE = Space(
    (),
    Anatomy(
        (Layer("head", 40, True, True),),
        (),
        (),
        Signature.single((4,)),
    ),
    (
        Range("a.share", 0.0, 0.75, neutral=0.0, step=0.125),
        Choice("a.way", ("near", "far"), "near", when=(Condition("a.share"),)),
        Range("a.rate", 0.001, 0.1, neutral=0.001, log=True, when=(Condition("a.way", ("far",)),)),
        Choice("b.bits", (2, 4, 8, "none"), "none"),
    ),
)
BOUNDS = (parse("accuracy >= baseline - 0.1"),)
SLOW, QUICK = 60.0, 0.05


def a_study(folder: Path, create: bool = True) -> Study:
    return Study(f"sqlite:///{folder / 'study.db'}", "mine-1", OBJECTIVES, BOUNDS, 3, create=create)


def asked_and_told(study: Study, count: int) -> list[Recipe]:
    found = []
    for _ in range(count):
        one = study.ask(SPACE)
        share, bits = one.recipe.number("a.share"), one.recipe.values["b.bits"]
        width = 32 if bits == "none" else float(str(bits))
        metrics = {"accuracy": 0.9 - share / 20 - 0.1 / width, "latency_ms": 1.1 - share, "size_bytes": 1e3 * width}
        study.tell(sample_record(one.number, metrics, kind=one.kind, recipe=one.recipe.values))
        found.append(replace(one.recipe, seed=0))
    return found


def pace(trial_s: float | None, completed: int = 20, ask_s: float | None = None, parallel: int = 2) -> Pace:
    asks = {} if ask_s is None else {"gp": (ask_s,), "tpe": (ask_s,)}
    return Pace(completed, trial_s, asks, parallel)


@pytest.mark.parametrize("name", ["tpe", "gp", "nsga2", "nsga3", "random"])
def test_every_sampler_goes_through_its_start_and_on_and_repeats_nothing(name: str, tmp_path: Path) -> None:
    study = a_study(tmp_path)
    study.use_sampler(9, name)
    recipes = asked_and_told(study, 9)
    assert len(set(recipes)) == len(recipes)
    assert study.asks() == {name: 6}


def test_one_of_another_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:grid", samplers.GROUP)
    monkeypatch.setattr(samplers, "entry_points", lambda group: [point] if group == samplers.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: grid)
    assert samplers.names() == ["auto", "mine"]
    study = a_study(tmp_path)
    study.use_sampler(30, "mine")
    assert [recipe.number("a.share") for recipe in asked_and_told(study, 3)] == [0.75] * 3


def grid(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    return optuna.samplers.PartialFixedSampler({"a.share": 0.75}, optuna.samplers.RandomSampler(seed=request.seed))


def test_a_name_that_no_sampler_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"sampler: unknown sampler 'tpee'; allowed: auto, .*did you mean 'tpe'"):
        Job(model="mine:model", data="mine:data", sampler="tpee")
    with pytest.raises(UsageError, match="unknown sampler 'tpee'"):
        a_study(tmp_path).use_sampler(9, "tpee")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pace(None), "tpe"),
        (pace(SLOW), "gp"),
        (pace(SLOW, ask_s=20.0), "gp"),
        (pace(SLOW, ask_s=40.0), "tpe"),
        (pace(SLOW, ask_s=40.0, parallel=1), "gp"),
        (pace(SLOW, completed=251), "tpe"),
        (pace(5.0, ask_s=0.1), "tpe"),
        (pace(QUICK), "tpe"),
    ],
)
def test_auto_takes_the_gaussian_process_where_workers_need_not_wait_for_it(given: Pace, wanted: str) -> None:
    assert given.chosen() == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(pace(SLOW, ask_s=0.1), 0), (pace(SLOW, ask_s=10.0), 1), (pace(SLOW, ask_s=20.0), 2), (pace(QUICK), 2)],
)
def test_no_more_is_asked_ahead_than_asking_takes_long(given: Pace, wanted: int) -> None:
    assert given.depth("gp") == wanted


def test_a_resumed_search_draws_the_same_conclusions(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    study.use_sampler(30, "auto", 2)
    for _ in range(12):
        one = study.ask(SPACE)
        study.tell(sample_record(one.number, recipe=one.recipe.values, kind="search"))
    again = a_study(tmp_path, create=False)
    again.use_sampler(30, "auto", 2)
    again.ask(SPACE)
    assert again.asks() == {"tpe": 3}


def test_a_queued_recipe_is_made_once_and_before_the_sampler_is_asked(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    asked_and_told(study, 1)
    wish: dict[str, Value] = {"a.share": 0.25, "a.way": "near", "a.rate": 0.01, "b.bits": 4}
    assert study.enqueue(SPACE, [wish, {**wish, "a.rate": 0.02}, {**wish, "b.bits": 8}]) == 2
    for opened in (study, a_study(tmp_path, create=False)):
        made = [dict(opened.prepare(SPACE).recipe.items) for _ in range(2)]
        assert made == [{"a.share": 0.25, "a.way": "near", "b.bits": bits} for bits in (4, 8)]


def test_a_long_history_is_cut_to_the_best_and_the_latest_and_asking_stays_quick() -> None:
    mirror = Mirror(SPACE, [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], history=100)
    sampler = samplers.tpe(SamplerRequest(0, 2, 10, 1000))
    for number in range(1000):
        mirror.begin(number, {"a.share": 0.25, "a.way": "near", "b.bits": 4})
        mirror.end(number, Ending((-1.0 if number != 7 else 5.0, 1.0 + number)))
    assert 100 <= len(mirror.shown) <= 125
    assert [trial.values for trial in mirror.shown][:1] != [[-1.0, 901.0]]
    assert [5.0, 8.0] in [trial.values for trial in mirror.shown]
    assert mirror.shown[-1].values == [-1.0, 1000.0]
    since = time.perf_counter()
    mirror.sample(sampler)
    assert time.perf_counter() - since < 2.0


def test_what_was_stopped_is_worse_than_what_breaks_a_constraint() -> None:
    mirror = Mirror(SPACE, [StudyDirection.MAXIMIZE], history=None)
    for number, ending in enumerate([Ending((0.9,), (0.5,)), Ending(None, (0.0,)), None]):
        mirror.begin(number, {"a.share": 0.0, "b.bits": 4})
        mirror.end(number, ending)
    broken, stopped = mirror.shown  # and nothing is shown of what failed by chance
    assert broken.constraints["c0"] == 0.5
    assert stopped.constraints["c0"] > 1e6


def test_what_failed_for_its_recipe_is_shown_as_bad_as_the_worst() -> None:
    mirror = Mirror(SPACE, [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], history=None)
    ends = [
        Ending(None, (0.0,), unfit=True),  # beside nothing yet, it says nothing
        Ending((0.9, 4.0), (-0.2,)),
        Ending((0.7, 3.0), (0.1,)),
        Ending(None, (0.0,)),
        Ending(None, (0.0,), unfit=True),
    ]
    for number, ending in enumerate(ends):
        mirror.begin(number, {"a.share": 0.0, "b.bits": 4})
        mirror.end(number, ending)
    *_, worst = mirror.shown
    assert len(mirror.shown) == len(ends) - 1
    assert (worst.state, worst.values, dict(worst.constraints)) == (TrialState.COMPLETE, [0.7, 4.0], {"c0": 0.1})


@pytest.mark.parametrize("name", ["gp", "tpe"])
def test_where_all_fails_for_its_recipe_less_is_asked_for(name: str) -> None:
    wide = Space((), SPACE.anatomy, tuple(Range(knob, 0.0, 1.0, neutral=1.0) for knob in ("a.share", "b.share")))

    def failures(seed: int, *, told: bool) -> int:
        """Count the failures where a smaller share is better, and less than half of it fails."""
        mirror, count = Mirror(wide, [StudyDirection.MINIMIZE], None), 0
        sampler = samplers.make(name, SamplerRequest(seed, 1, 8, 60))
        for number in range(24):
            made, values = mirror.sample(sampler)
            mirror.begin(number, values, made)
            share, other = float(str(values["a.share"])), float(str(values["b.share"]))
            count += share < 0.5
            good = Ending((share + 0.3 * (other - 0.5) ** 2,))
            mirror.end(number, good if share >= 0.5 else Ending(None, unfit=True) if told else None)
        return count

    assert sum(failures(seed, told=True) for seed in (0, 2)) < 0.9 * sum(failures(seed, told=False) for seed in (0, 2))
