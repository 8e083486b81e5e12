"""A search outlasts a restart of its PostgreSQL server, and says so when the server stays away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from paretrim.errors import StoreError
from paretrim.search import patience
from paretrim.search.database import Database
from paretrim.search.study import Study
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.testing import OBJECTIVES, sample_record

from .conftest import SPACE
from .servers import Postgres, running


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of these tests' own, since they stop it."""
    with running() as found:
        yield found


def a_study(url: str, *, create: bool = True) -> Study:
    study = Study(url, "digits-1", OBJECTIVES, (), 0, create=create)
    if create:
        study.begin({"baseline": Recipe.of({})})
    study.use_sampler(8, "random")
    return study


def test_trials_are_asked_for_and_told_across_a_restart(server: Postgres) -> None:
    url = server.database()
    study = a_study(url)
    study.tell(sample_record(study.ask(SPACE).number, kind="baseline"))
    asked = study.ask(SPACE)
    server.stop()
    threading.Timer(3.0, server.start).start()
    since = time.monotonic()
    study.tell(sample_record(asked.number, recipe=asked.recipe.values))
    again = study.ask(SPACE)
    assert time.monotonic() - since > 2.0
    study.tell(sample_record(again.number, recipe=again.recipe.values))
    study.note("x", 1)
    later = a_study(url, create=False)
    assert [record.number for record in later.records()] == [0, 1, 2]
    assert later.noted("x", 0) == 1


def test_a_server_that_stays_away_is_told(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    study = a_study(server.database())
    asked = study.ask(SPACE)
    monkeypatch.setattr(patience, "_PATIENCE_S", 1.0)
    server.stop()
    try:
        with pytest.raises(
            StoreError, match=r"studies' database is away.*nothing that was written is lost.*paretrim resume"
        ):
            study.tell(sample_record(asked.number, kind="baseline"))
    finally:
        server.start()


def test_a_server_that_is_not_there_is_told_with_what_to_look_at(server: Postgres) -> None:
    url = server.database()
    server.stop()
    try:
        with pytest.raises(StoreError, match=r"cannot be reached: .*; see that the server runs.*PGPASSWORD"):
            Database(url)
    finally:
        server.start()


def test_what_a_server_refuses_is_not_waited_for(server: Postgres) -> None:
    url = server.database()
    with pytest.raises(StoreError, match="does not exist"):
        Database(url.replace("studies_", "nowhere_"))
