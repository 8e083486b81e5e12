"""Where databases are named, and that passwords are in no file that paretrim writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paretrim.errors import JobError, UsageError
from paretrim.search.places import STUDY, TRACKING, Places, chosen, known_database, own_places, secret, without_password
from paretrim.search.store import Store

from .conftest import tiny_job


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (STUDY, f"{STUDY}_FILE", TRACKING):
        monkeypatch.delenv(name, raising=False)


def test_by_default_all_is_in_the_store(tmp_path: Path) -> None:
    assert chosen(tmp_path) == own_places(tmp_path)
    assert chosen(tmp_path).tracking_artifacts == tmp_path / "mlartifacts"


def test_a_job_is_asked_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(STUDY, "postgresql://elsewhere/studies")
    monkeypatch.setenv(TRACKING, "http://elsewhere:5000")
    found = chosen(tmp_path, "postgresql://here/studies", "http://here:5000")
    assert found == Places("postgresql+psycopg://here/studies", "http://here:5000")
    assert chosen(tmp_path) == Places("postgresql+psycopg://elsewhere/studies", "http://elsewhere:5000")


def test_the_environments_password_is_used_and_not_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(STUDY, "postgresql://me:hush@db:5432/studies")
    store = Store(tmp_path)
    folder = store.create("digits")
    store.mark_started(folder, chosen(tmp_path))
    assert "hush" not in folder.started.read_text()
    assert "hush" in folder.places.study_url
    monkeypatch.setenv(STUDY, "postgresql://me:hush@another:5432/studies")
    assert "hush" not in folder.places.study_url  # it is of another server


def test_a_store_of_an_early_version_has_its_own_databases(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("digits")
    folder.started.touch()
    assert folder.places == own_places(tmp_path)


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    where = Places("postgresql+psycopg://db/studies", "http://mlflow:5000")
    assert Places.from_plain(json.loads(json.dumps(where.to_plain()))) == where


@pytest.mark.parametrize("name", ["study", "tracking"])
def test_a_job_with_a_password_is_refused(name: str) -> None:
    url = {"study": "postgresql://me:hush@db/studies", "tracking": "http://me:hush@host:5000"}[name]
    with pytest.raises(JobError, match=rf"storage\.{name}: .*holds a password.*environment") as caught:
        tiny_job(storage={name: url})
    assert "hush" not in str(caught.value)


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'mysql://db/x' is no database.*sqlite:///FILE, postgresql://HOST/DATABASE"):
        known_database("mysql://db/x")
    with pytest.raises(JobError, match=r"storage\.study: .*no database"):
        tiny_job(storage={"study": "studies.db"})


def test_a_secret_comes_from_a_file_that_only_its_owner_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "study"
    path.write_text("postgresql://me:hush@db/studies\n")
    path.chmod(0o600)
    monkeypatch.setenv(f"{STUDY}_FILE", str(path))
    assert secret(STUDY) == "postgresql://me:hush@db/studies"
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"others may read it \(mode 640\); chmod 600"):
        secret(STUDY)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        secret(STUDY)
    path.unlink()
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        secret(STUDY)


@pytest.mark.parametrize("url", ["http://me@host:5000", "postgresql://me:@/studies?host=/run/postgres", "http://host"])
def test_a_url_without_a_password_passes(url: str) -> None:
    assert without_password(url, "x") == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hu/sh#@db/studies",
        "postgresql://me:h@sh@db/studies",
        "postgresql://db/studies?user=me&password=hush",
        "postgresql://db/studies?sslpassword=hush",
    ],
)
def test_a_password_is_found_wherever_it_is(url: str) -> None:
    with pytest.raises(UsageError, match="x holds a password") as caught:
        without_password(url, "x")
    assert url not in str(caught.value)
