from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from paretrim.errors import UnknownJobError
from paretrim.evaluators.signature import Signature
from paretrim.search.job import Job
from paretrim.search.space import build
from paretrim.search.study import Asked, Study
from paretrim.spaces.anatomy import Anatomy, Group, Layer
from paretrim.spaces.dimension import exists
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.constraints import parse
from paretrim.tracking.records import State, TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record

if TYPE_CHECKING:
    from .servers import Postgres

ANATOMY = Anatomy(
    layers=(Layer("stem", 288, True, False), Layer("head", 320, False, True)),
    groups=(Group("stem", ("stem",), 32),),
    left_out=(),
    inputs=Signature.single((1, 8, 8)),
)
SPACE = build(Job(model="mine:model", data="mine:data"), ANATOMY)
BOUNDS = (parse("accuracy >= baseline - 0.1"), parse("size_bytes <= 50000"))
SEED = 5


class Searches:
    """Studies in one database."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.url = url or f"sqlite:///{folder / 'study.db'}"

    def create(self, name: str = "digits-1", seed: int = SEED) -> Study:
        study = Study(self.url, name, OBJECTIVES, BOUNDS, seed, create=True)
        study.begin(SPACE.anchors(seed))
        return study

    def reopen(self, name: str = "digits-1") -> Study:
        return Study(self.url, name, OBJECTIVES, BOUNDS, SEED)

    def stored(self, number: int, name: str = "digits-1") -> FrozenTrial:
        """Return a trial as Optuna has it."""
        return optuna.load_study(study_name=name, storage=self.url).trials[number]

    def write_record_only(self, record: TrialRecord) -> None:
        """Do what a driver did that died between the record and the state."""
        study = optuna.load_study(study_name="digits-1", storage=self.url)
        trial = optuna.Trial(study, study.trials[record.number]._trial_id)
        trial.set_user_attr("paretrim:record", record.to_json())


@pytest.fixture(params=["sqlite", "postgresql"])
def searches(request: pytest.FixtureRequest, tmp_path: Path) -> Searches:
    if request.param == "sqlite":
        return Searches(tmp_path)
    server: Postgres = request.getfixturevalue("postgres")
    return Searches(tmp_path, server.database())


def ask(study: Study, count: int = 1) -> list[Asked]:
    return [study.ask(SPACE) for _ in range(count)]


def tell(study: Study, *asked: Asked, state: State = "complete", **metrics: float) -> None:
    for one in asked:
        record = sample_record(one.number, metrics, kind=one.kind, state=state, recipe=one.recipe.values)
        study.tell(record)


def numbers(study: Study) -> list[int]:
    return [record.number for record in study.records()]


def test_the_baseline_float16_and_int8_come_first(searches: Searches) -> None:
    asked = ask(searches.create(), 4)
    assert [(one.number, one.kind) for one in asked] == [(0, "baseline"), (1, "float16"), (2, "int8"), (3, "search")]
    assert {one.kind: one.recipe for one in asked[:3]} == SPACE.anchors(SEED)


def test_the_anchors_come_first_also_after_a_death_before_the_first_trial(searches: Searches) -> None:
    searches.create()
    assert [one.kind for one in ask(searches.reopen(), 3)] == ["baseline", "float16", "int8"]


def test_sampled_recipes_lie_in_the_space_and_have_its_constants(searches: Searches) -> None:
    study = searches.create()
    study.use_sampler(12)
    for _ in range(12):
        (one,) = ask(study)
        tell(study, one, size_bytes=1000.0 * (one.number + 1))
        there = [dimension for dimension in SPACE.dimensions if exists(dimension, one.recipe.values)]
        assert set(one.recipe.values) == {dimension.name for dimension in there}
        if one.kind == "search":
            assert all(dimension.allows(one.recipe.values[dimension.name]) for dimension in there)


def test_pruning_ratios_lie_on_the_grid_of_steps(searches: Searches) -> None:
    asked = ask(searches.create(), 12)[3:]
    assert all((one.recipe.number("pruning.ratio.stem") / 0.125).is_integer() for one in asked)


def test_every_trial_has_a_seed_of_its_own(searches: Searches) -> None:
    seeds = [one.recipe.seed for one in ask(searches.create(), 8)[3:]]
    assert len(set(seeds)) == len(seeds)


def test_one_seed_gives_one_course(tmp_path: Path) -> None:
    courses = []
    for name in ("a", "b"):
        study = Searches(tmp_path).create(name)
        study.use_sampler(12)
        courses.append([one.recipe for one in ask(study, 6)])
    assert courses[0] == courses[1]


def test_another_seed_gives_another_course(searches: Searches) -> None:
    courses: list[list[Recipe]] = []
    for seed in (1, 2):
        study = searches.create(f"digits-{seed}", seed)
        study.use_sampler(12)
        courses.append([one.recipe for one in ask(study, 6)[3:]])
    assert not {recipe.items for recipe in courses[0]} & {recipe.items for recipe in courses[1]}


def test_a_search_that_goes_on_does_not_repeat_its_random_start(searches: Searches) -> None:
    study = searches.create()
    study.use_sampler(30)
    first = ask(study, 6)
    tell(study, *first)
    again = searches.reopen()
    again.use_sampler(30)
    assert not {one.recipe.items for one in first[3:]} & {one.recipe.items for one in ask(again, 3)}


def test_records_come_by_number_whatever_the_order_in_which_trials_end(searches: Searches) -> None:
    study = searches.create()
    tell(study, *reversed(ask(study, 4)))
    assert numbers(study) == [0, 1, 2, 3]


def test_records_are_found_as_they_were_told(searches: Searches) -> None:
    study = searches.create()
    one = ask(study)[0]
    record = sample_record(0, recipe=one.recipe.values)
    study.tell(record)
    assert study.records() == searches.reopen().records() == [record]


def test_a_complete_trial_is_told_with_its_objectives(searches: Searches) -> None:
    study = searches.create()
    tell(study, *ask(study), accuracy=0.8, latency_ms=0.5, size_bytes=10.0, memory_bytes=20.0)
    stored = searches.stored(0)
    assert (stored.state, stored.values) == (TrialState.COMPLETE, [0.8, 0.5, 10.0, 20.0])


@pytest.mark.parametrize(("state", "wanted"), [("failed", TrialState.FAIL), ("stopped", TrialState.PRUNED)])
def test_a_trial_without_measurements_is_told_without_values(
    searches: Searches, state: State, wanted: TrialState
) -> None:
    study = searches.create()
    tell(study, *ask(study), state=state)
    assert searches.stored(0).state == wanted
    assert [record.state for record in searches.reopen().records()] == [state]


def test_constraints_are_told_as_excesses_relative_to_the_baseline(searches: Searches) -> None:
    study = searches.create()
    first, second = ask(study, 2)
    tell(study, first, accuracy=0.9, size_bytes=100_000.0)
    tell(study, second, accuracy=0.6, size_bytes=25_000.0)
    assert sorted(searches.stored(0).constraints.values()) == pytest.approx([-0.125, 1.0])
    assert sorted(searches.stored(1).constraints.values()) == pytest.approx([-0.5, 0.25])


def test_the_sampler_is_told_of_objectives_and_constraints_and_goes_on(searches: Searches) -> None:
    study = searches.create()
    study.use_sampler(9)
    for _ in range(8):
        (one,) = ask(study)
        tell(study, one, state="failed" if one.number == 4 else "complete", accuracy=0.5 + one.number / 20)
    assert numbers(study) == list(range(8))


@pytest.mark.parametrize("unfit", [True, False])
def test_the_sampler_is_shown_what_failed_for_its_recipe_only(searches: Searches, unfit: bool) -> None:
    study = searches.create()
    *anchors, fourth = ask(study, 4)
    tell(study, *anchors, accuracy=0.9)
    record = sample_record(fourth.number, state="failed", kind=fourth.kind, recipe=fourth.recipe.values)
    study.tell(replace(record, unfit=unfit))
    assert searches.stored(fourth.number).state == TrialState.FAIL
    for each in (study, searches.reopen()):
        each.prepare(SPACE)
        mirror = each._adviser._mirror
        assert mirror is not None
        # float16 everywhere is no recipe of the space.
        assert [trial.values is not None for trial in mirror.shown] == [True] * (3 if unfit else 2)


def test_telling_twice_keeps_the_first(searches: Searches) -> None:
    study = searches.create()
    (one,) = ask(study)
    tell(study, one, accuracy=0.9)
    tell(study, one, accuracy=0.1)
    tell(study, one, state="failed")
    for opened in (study, searches.reopen()):
        assert [record.metrics["accuracy"] for record in opened.records()] == [0.9]


def test_telling_of_a_trial_that_was_not_asked_for_changes_nothing(searches: Searches) -> None:
    study = searches.create()
    study.tell(sample_record(7))
    assert study.records() == []


def test_interrupted_trials_are_handed_out_again_under_their_numbers(searches: Searches) -> None:
    study = searches.create()
    asked = ask(study, 6)
    tell(study, asked[0], asked[2], asked[4])
    assert ask(searches.reopen(), 3) == [asked[1], asked[3], asked[5]]


def test_after_the_interrupted_trials_come_new_ones(searches: Searches) -> None:
    ask(searches.create(), 4)
    study = searches.reopen()
    tell(study, *ask(study, 4))
    assert [one.number for one in ask(study, 2)] == [4, 5]


def test_an_interrupted_trial_can_be_told(searches: Searches) -> None:
    ask(searches.create(), 4)
    study = searches.reopen()
    tell(study, *ask(study, 4))
    assert numbers(searches.reopen()) == [0, 1, 2, 3]
    assert [searches.stored(number).state for number in range(4)] == [TrialState.COMPLETE] * 4


def test_a_trial_that_was_interrupted_before_it_had_a_recipe_gets_one(searches: Searches) -> None:
    study = searches.create()
    tell(study, *ask(study, 3))
    raw = optuna.load_study(study_name="digits-1", storage=searches.url).ask()
    raw.suggest_float("pruning.ratio.stem", 0.0, 0.75, step=0.125)
    (one,) = ask(searches.reopen())
    assert (one.number, one.kind) == (3, "search")
    assert one.recipe.values["pruning.ratio.stem"] == raw.params["pruning.ratio.stem"]
    assert set(one.recipe.values) == {each.name for each in SPACE.dimensions if exists(each, one.recipe.values)}


@pytest.mark.parametrize(
    ("state", "wanted"),
    [("complete", TrialState.COMPLETE), ("failed", TrialState.FAIL), ("stopped", TrialState.PRUNED)],
)
def test_a_record_that_was_written_before_the_state_is_finished_when_the_search_goes_on(
    searches: Searches, state: State, wanted: TrialState
) -> None:
    ask(searches.create(), 2)
    record = sample_record(0, state=state)
    searches.write_record_only(record)
    study = searches.reopen()
    assert study.records() == [record]
    assert searches.stored(0).state == TrialState.RUNNING, "opening alone must change nothing"
    study.use_sampler(10)
    assert searches.stored(0).state == wanted
    assert [one.number for one in ask(study)] == [1]


def test_a_record_that_was_written_before_the_state_keeps_its_values_and_constraints(searches: Searches) -> None:
    ask(searches.create())
    searches.write_record_only(sample_record(0, accuracy=0.8, size_bytes=25_000.0))
    searches.reopen().use_sampler(10)
    stored = searches.stored(0)
    assert stored.values is not None
    assert stored.values[0] == 0.8
    assert sorted(stored.constraints.values()) == pytest.approx([-0.5, -1 / 7])


def test_a_trial_that_was_under_way_at_three_deaths_is_given_up(searches: Searches) -> None:
    study, causes = searches.create(), []
    for _ in range(4):
        (one,) = ask(study)
        causes.append(study.cause_of_too_many_attempts(one.number))
        study = searches.reopen()
    assert causes[:3] == ["", "", ""]
    assert "died 3 times while this trial was under way" in causes[3]


def test_orderly_stops_are_not_counted_as_deaths(searches: Searches) -> None:
    study = searches.create()
    for _ in range(5):
        (one,) = ask(study)
        assert one.number == 0
        assert study.cause_of_too_many_attempts(0) == ""
        study.release(0)
        study = searches.reopen()


def test_the_attempts_of_one_trial_do_not_count_for_another(searches: Searches) -> None:
    study = searches.create()
    for _ in range(3):
        ask(study)
        study = searches.reopen()
    _, other = ask(study, 2)
    assert study.cause_of_too_many_attempts(other.number) == ""


def test_two_studies_in_one_database_do_not_mix(searches: Searches) -> None:
    first, second = searches.create("digits-1"), searches.create("digits-2")
    tell(first, *ask(first, 2))
    (one,) = ask(second)
    first.note("key", "value")
    assert (one.number, one.kind) == (0, "baseline")
    assert numbers(searches.reopen("digits-1")) == [0, 1]
    assert numbers(searches.reopen("digits-2")) == []
    assert searches.reopen("digits-2").noted("key") is None
    assert ask(searches.reopen("digits-2"))[0].number == 0


def test_a_study_that_is_not_there_is_named(searches: Searches) -> None:
    searches.create()
    with pytest.raises(UnknownJobError, match="no search 'digits-9'"):
        searches.reopen("digits-9")


@pytest.mark.parametrize("value", [True, 0, 1.5, "text", None, {"a": [1, 2]}], ids=repr)
def test_a_note_is_kept(searches: Searches, value: object) -> None:
    searches.create().note("key", value)
    assert searches.reopen().noted("key", "default") == value


def test_a_note_that_was_never_taken_has_a_default(searches: Searches) -> None:
    assert searches.create().noted("key", 7) == 7


def test_a_later_note_takes_the_place_of_an_earlier_one(searches: Searches) -> None:
    study = searches.create()
    study.note("key", 1)
    study.note("key", 2)
    assert (study.noted("key"), searches.reopen().noted("key")) == (2, 2)


DRIVER = """
import sys
from pathlib import Path
sys.path.append(sys.argv[2])
from test_study import Searches, ask, tell
study = Searches(Path(sys.argv[1]), sys.argv[3]).create()
asked = ask(study, 5)
tell(study, asked[0], asked[3])
for one in asked:
    print(one.number, one.recipe.to_json(), flush=True)
sys.stdin.read()
"""


def kill_a_driver(folder: Path, url: str = "") -> dict[int, str]:
    """Let another process ask for five trials and tell two, kill it, and return the recipes by number."""
    command = [sys.executable, "-c", DRIVER, str(folder), str(Path(__file__).parent), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return {int(number): recipe.strip() for number, _, recipe in (line.partition(" ") for line in lines)}


def test_a_killed_driver_loses_nothing(searches: Searches, tmp_path: Path) -> None:
    recipes = kill_a_driver(tmp_path, searches.url)
    study = searches.reopen()
    assert numbers(study) == [0, 3]
    again = ask(study, 3)
    assert {one.number: one.recipe.to_json() for one in again} == {n: recipes[n] for n in (1, 2, 4)}
    assert [one.kind for one in again] == ["float16", "int8", "search"]
