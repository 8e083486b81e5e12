"""How a job's search goes about."""

from __future__ import annotations

import pytest

from paretrim.search.sections import Finals

from .helper_job import a_job, again, mistakes


@pytest.mark.parametrize(("word", "halving"), [("off", "off"), (False, "off"), (2, 2), (10, 10)])
def test_halving_is_a_number_or_off(word: object, halving: object) -> None:
    job = a_job(search={"halving": word})
    assert job.search.halving == halving
    assert again(job) == job


def test_each_part_of_the_strategy_is_on_unless_it_is_switched_off() -> None:
    strategy = a_job().search
    assert (strategy.preview, strategy.warm_start, strategy.share) == (True, True, True)
    assert strategy.finals.points > 0
    assert isinstance(strategy.halving, int)
    given = {"preview": False, "halving": "off", "warm_start": False, "share": False, "finals": {"points": 0}}
    job = a_job(search=given)
    assert {name: getattr(job.search, name) for name in given} == {**given, "finals": Finals(points=0)}
    assert again(job) == job


def test_every_mistake_in_a_strategy_is_told_at_once() -> None:
    found = mistakes(
        search={
            "preview": "perhaps",
            "halving": 1,
            "warmstart": True,
            "share": 7,
            "finals": {"points": -1, "longer": 0.5, "seeds": 0, "epochs": 3},
        },
        budget={"training_seconds": 0, "patience": 0},
    )
    assert found.keys() == {
        "search.preview",
        "search.halving",
        "search.warmstart",
        "search.share",
        "search.finals.points",
        "search.finals.longer",
        "search.finals.seeds",
        "search.finals.epochs",
        "budget.training_seconds",
        "budget.patience",
    }
    assert found["search.halving"] == "input should be a whole number from 2 to 10, or off; given 1"
    assert "did you mean 'warm_start'" in found["search.warmstart"]
    assert "allowed: points, longer, seeds" in found["search.finals.epochs"]


def test_a_search_that_is_not_a_mapping_is_one_mistake() -> None:
    assert mistakes(search="fast").keys() == {"search"}


def test_an_earlier_search_has_a_word_of_its_own() -> None:
    job = a_job(**{"from": "digits-1"})
    assert job.earlier == "digits-1"
    assert again(job) == job
    assert again(job).earlier == "digits-1"
    assert a_job(earlier="digits-1") == job
    assert job.with_budget({"trials": 3}).earlier == "digits-1"
