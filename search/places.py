"""Where a search's databases are: named in the job file, in the environment, or files in the store.

Passwords are in none of the files that paretrim writes. They come from the environment, or from a file that nobody else
may read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretrim.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import URL

_USUAL_PORT = 5432
STUDY, TRACKING = "PARETRIM_STUDY", "PARETRIM_TRACKING"
_KINDS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgresql+psycopg": "postgresql+psycopg"}


@dataclass(frozen=True)
class Places:
    """Where a search's databases are, as it is noted beside the search.

    Attributes:
        study: URL of the studies' database, without a password.
        tracking: MLflow tracking URI, without a password.
        artifacts: Folder of MLflow's files, for a tracking database without a server; None leaves it to the server.
    """

    study: str
    tracking: str
    artifacts: str | None = None

    @property
    def study_url(self) -> str:
        """URL of the studies' database, with the password that the environment has for it."""
        given = secret(STUDY)
        if given is None or not self.study.startswith("postgresql"):
            return self.study
        ours, theirs = _url(self.study), _url(given)
        same = _place(ours) == _place(theirs)
        return given if same else self.study

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI; a server may have another address by now, which the environment tells."""
        given = os.environ.get(TRACKING)
        return given if given and self.tracking.startswith("http") else self.tracking

    @property
    def tracking_artifacts(self) -> Path | None:
        """Folder of MLflow's files, or None."""
        return None if self.artifacts is None else Path(self.artifacts)

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Places:
        """Return what `to_plain` was made of."""
        return cls(**plain)


def own_places(root: Path) -> Places:
    """Return the databases of a store, which are files in it."""
    return Places(f"sqlite:///{root / 'study.db'}", f"sqlite:///{root / 'mlflow.db'}", str(root / "mlartifacts"))


def chosen(root: Path, study: str | None = None, tracking: str | None = None) -> Places:
    """Return where a new search's databases are: as its job says, or the environment, or in the store.

    Args:
        root: The store.
        study: What the job names.
        tracking: What the job names.

    Raises:
        UsageError: The environment names what does not do.
    """
    own, study = own_places(root), study or secret(STUDY)
    tracking = tracking or os.environ.get(TRACKING)
    found = own if study is None else replace(own, study=known_database(_shown(study)))
    if tracking is None:
        return found
    return replace(found, tracking=without_password(tracking, TRACKING), artifacts=None)


def secret(name: str) -> str | None:
    """Return what an environment variable holds, or the file that ``NAME_FILE`` names.

    Raises:
        UsageError: The file cannot be read, or others than its owner may read it.
    """
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        return os.environ.get(name) or None
    return read_secret(Path(path), f"{name}_FILE")


def read_secret(path: Path, where: str) -> str:
    """Return what is in a file that only its owner may read.

    Args:
        path: The file.
        where: What named it, for the message.

    Raises:
        UsageError: The file cannot be read, is empty, or others than its owner may read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"{where}: cannot read {path}: {error.strerror}") from None
    if mode & 0o077:
        raise UsageError(f"{where}: {path} holds a secret and others may read it (mode {mode:o}); chmod 600 {path}")
    if not text:
        raise UsageError(f"{where}: {path} is empty")
    return text


def without_password(url: str, where: str) -> str:
    """Return a URL of which it was made sure that it holds no password.

    Raises:
        UsageError: It holds one.
    """
    if _shown(url) != url:
        raise UsageError(
            f"{where} holds a password, which would be written with every search; leave it out, and give it to the processes "
            f"in the environment: {STUDY} (or {STUDY}_FILE) with the whole URL or PGPASSWORD for the studies, "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for MLflow"
        )
    return url


def known_database(url: str) -> str:
    """Return a database's URL with the driver that paretrim uses.

    Raises:
        UsageError: It is of another kind of database.
    """
    kind, mark, rest = url.partition("://")
    if not mark or kind not in _KINDS:
        raise UsageError(
            f"'{_shown(url)}' is no database that studies can lie in; allowed: sqlite:///FILE, postgresql://HOST/DATABASE"
        )
    return f"{_KINDS[kind]}://{rest}"


def _shown(url: str) -> str:
    """Return a URL without its password, wherever in it that is, and however it is written."""
    kind, mark, rest = url.partition("://")
    if not mark:
        return url
    # Up to the last @, since a password may have any character.
    named, at, place = rest.rpartition("@")
    user, _, password = named.partition(":")
    place, question, query = place.partition("?")
    kept = [part for part in query.split("&") if "password" not in part.partition("=")[0].lower()]
    query = question + "&".join(kept) if kept != [""] else ""
    return f"{kind}://{user if password else named}{at}{place}{query}"


def _place(url: URL) -> tuple[object, ...]:
    return url.host, url.port or _USUAL_PORT, url.database, url.query.get("host")


def _url(text: str) -> URL:
    from sqlalchemy import make_url  # noqa: PLC0415 - only for PostgreSQL

    return make_url(known_database(text))
