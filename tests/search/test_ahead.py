from __future__ import annotations

import threading
import time
from pathlib import Path

import optuna
import pytest

from paretrim.search import samplers
from paretrim.search.ahead import Ahead
from paretrim.search.study import Asked, Study
from paretrim.tracking.testing import sample_record
from tests.search.test_samplers import SPACE, a_study


class Slow(optuna.samplers.RandomSampler):
    """Takes its time; may fail."""

    seconds = 0.15
    broken = False

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        if self.broken:
            raise RuntimeError("no idea")
        time.sleep(self.seconds)
        return {}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(samplers, "make", lambda name, request: Slow(request.seed))
    study = a_study(tmp_path)
    study.use_sampler(9, "random", 2)
    for _ in range(4):
        one = study.ask(SPACE)
        study.tell(sample_record(one.number, kind="search", recipe=one.recipe.values))
    return study


def waited(ahead: Ahead) -> Asked:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        asked = ahead.next()
        if asked is not None:
            return asked
        time.sleep(0.005)
    raise AssertionError("nothing was asked")


def test_nothing_waits_for_the_sampler(study: Study) -> None:
    with Ahead(study, SPACE, 2, 100) as ahead:
        waited(ahead)
        time.sleep(4 * Slow.seconds)
        since = time.perf_counter()
        assert ahead.next() is not None
        assert time.perf_counter() - since < Slow.seconds / 2


def test_what_is_recalled_waits_in_the_study_until_more_are_expected(study: Study) -> None:
    with Ahead(study, SPACE, 2, 100) as ahead:
        first = waited(ahead)
        ahead.recall()
        ready = study.prepare(SPACE)
        assert ready.number == first.number + 1
        time.sleep(2 * Slow.seconds)
        assert study.known == 6  # the four before, the first and this one
        ahead.expect(100)
        assert waited(ahead).number == ready.number + 1


def test_trials_are_told_while_the_sampler_thinks(study: Study) -> None:
    with Ahead(study, SPACE, 1, 100) as ahead:
        one = waited(ahead)
        since = time.perf_counter()
        study.tell(sample_record(one.number, kind="search", recipe=one.recipe.values))
        assert time.perf_counter() - since < Slow.seconds
    assert study.ended == 5


def test_what_was_not_handed_out_is_the_next_and_counts_for_nothing(study: Study, tmp_path: Path) -> None:
    with Ahead(study, SPACE, 2, 100) as ahead:
        first = waited(ahead)
        time.sleep(4 * Slow.seconds)
    again = a_study(tmp_path, create=False)
    ready = [again.ask(SPACE) for _ in range(3)]
    assert [one.number for one in ready] == [first.number, first.number + 1, first.number + 2]
    assert [again.cause_of_too_many_attempts(one.number) for one in ready] == ["", "", ""]
    assert again.ended == 4
    assert study.prepare(SPACE) == ready[1]


def test_three_deaths_before_it_was_handed_out_do_not_count_as_attempts(study: Study, tmp_path: Path) -> None:
    prepared = study.prepare(SPACE)
    for _ in range(5):
        study = a_study(tmp_path, create=False)
        assert study.prepare(SPACE) == prepared
    study.hand_out(prepared.number)
    assert study.cause_of_too_many_attempts(prepared.number) == ""


def test_no_more_is_asked_for_than_the_budget(study: Study) -> None:
    with Ahead(study, SPACE, 8, 6) as ahead:
        asked = [waited(ahead), waited(ahead)]
        time.sleep(3 * Slow.seconds)
        assert study.known == 6
    assert [one.number for one in asked] == [4, 5]


def test_an_error_of_the_sampler_is_raised_where_trials_are_asked_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "broken", True)
    with Ahead(study, SPACE, 2, 100) as ahead, pytest.raises(RuntimeError, match="no idea"):
        waited(ahead)


def test_depth_zero_asks_at_once(study: Study) -> None:
    with Ahead(study, SPACE, 0, 100) as ahead:
        assert ahead.next() is not None
    assert not [each for each in threading.enumerate() if each.name == "paretrim-ahead"]


def test_workers_are_busy_with_trials_although_the_sampler_is_slow(study: Study) -> None:
    trial_s, workers, each = 0.6, 2, 4
    busy = [0.0] * workers
    with Ahead(study, SPACE, workers, 100) as ahead:
        time.sleep(4 * Slow.seconds)
        since = time.perf_counter()

        def work(worker: int) -> None:
            for _ in range(each):
                with taking:
                    one = waited(ahead)
                time.sleep(trial_s)
                busy[worker] += trial_s
                with taking:
                    study.tell(sample_record(one.number, kind="search", recipe=one.recipe.values))

        taking = threading.Lock()
        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - since
    assert sum(busy) / (wall * workers) > 0.7, "asking took turns with the trials"
