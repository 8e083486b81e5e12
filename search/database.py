"""The database of the studies: Optuna's tables, written faster than Optuna does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy import make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from paretrim.errors import MissingExtraError, StoreError
from paretrim.search.patience import brief, patient

# What a search asks while it runs, which outlasts a restart of the server. Those with an underscore are what Optuna's cache,
# which stands before the database, calls.
_ASKED = (
    "_create_new_trial", "_get_trials", "get_study_user_attrs", "get_trial", "get_trial_number_from_id",
    "set_study_user_attr", "set_trial_state_values", "set_trial_user_attr",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a trial ended, as Optuna keeps it.

    Attributes:
        state: Its state.
        values: Of the objectives; empty unless it is complete.
        user: Attributes of ours.
        system: Attributes of Optuna's, such as constraints.
    """

    state: TrialState
    values: Sequence[float] = ()
    user: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)


class Database(RDBStorage):
    """A database of studies.

    For each knob of a new trial, Optuna looks the trial up and compares the knob with an earlier trial's: tens of
    milliseconds for twenty knobs. A search's space cannot change, which its fingerprint sees to.

    Args:
        url: Of the database.
    """

    def __init__(self, url: str) -> None:
        try:
            super().__init__(url, engine_kwargs=_options(url))
        except Exception as error:
            unusable = _unusable(url, error)
            if unusable is None:
                raise
            raise unusable from error

    def _set_trial_param_without_commit(
        self,
        session: Any,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,  # noqa: ARG002 - Optuna's signature
    ) -> None:
        session.add(
            TrialParamModel(
                trial_id=trial_id,
                param_name=param_name,
                param_value=param_value_internal,
                distribution_json=distribution_to_json(distribution),
            )
        )

    @patient
    def finish(self, trial_id: int, ending: Ended) -> None:
        """Write all that is known at the end of a trial in one transaction; one that has ended stays as it is."""
        with _create_scoped_session(self.scoped_session) as session:
            trial = TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            if trial.state.is_finished():
                return
            kinds = {TrialUserAttributeModel: ending.user, TrialSystemAttributeModel: ending.system}
            for kind, attributes in kinds.items():
                for key, value in attributes.items():
                    self._set_trial_attr_without_commit(session, kind, trial_id, key, value)
            for objective, value in enumerate(ending.values):
                stored, form = TrialValueModel.value_to_stored_repr(value)
                session.add(TrialValueModel(trial_id=trial_id, objective=objective, value=stored, value_type=form))
            trial.state, trial.datetime_complete = ending.state, datetime.now()

    def _set_trial_attr_without_commit(self, session: Any, model_cls: Any, trial_id: int, key: str, value: Any) -> None:
        # Without looking the trial up each time.
        dialect = {"sqlite": sqlite, "postgresql": postgresql}.get(self.engine.name)
        if dialect is None:
            super()._set_trial_attr_without_commit(session, model_cls, trial_id, key, value)
            return
        text = json.dumps(value)
        statement = dialect.insert(model_cls.__table__).values(trial_id=trial_id, key=key, value_json=text)
        session.execute(
            statement.on_conflict_do_update(index_elements=["trial_id", "key"], set_={"value_json": text}),
        )


for _name in _ASKED:
    setattr(Database, _name, patient(getattr(RDBStorage, _name)))


def database_of(study: optuna.Study) -> Database:
    """Return the database of a study, which Optuna wraps."""
    found = getattr(study._storage, "_backend", study._storage)
    if not isinstance(found, Database):
        raise TypeError(f"the study lies in {found!r}; a Database is needed")
    return found


def _unusable(url: str, error: Exception) -> Exception | None:
    """Return in words why a database cannot be opened; None where that is a fault of ours."""
    shown = make_url(url).render_as_string(hide_password=True)
    if isinstance(error, ModuleNotFoundError | ImportError):
        return MissingExtraError("studies in PostgreSQL need its driver: pip install 'paretrim[postgresql]'")
    if url.startswith("postgresql") and isinstance(_behind(error), DBAPIError):
        return StoreError(
            f"the studies' database at {shown} cannot be reached: {brief(error)}; see that the server runs, and that the "
            "environment has its user and password (PGUSER, PGPASSWORD, or the whole URL in PARETRIM_STUDY)"
        )
    return None


def _behind(error: BaseException) -> BaseException:
    """Return the error of the driver that is behind one of Optuna's."""
    while not isinstance(error, DBAPIError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _options(url: str) -> dict[str, Any]:
    if not url.startswith("sqlite:///"):
        # A connection that a restart of the server has ended is noticed before it is used.
        # One to a machine that has vanished is given up after half a minute.
        patient_s = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 30_000}
        return {"pool_pre_ping": True, "pool_size": 2, "connect_args": patient_s}
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return {"creator": _connector(path)}


def _connector(path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # A write-ahead log survives the death of any process; an fsync at each commit, which only the machine's own
        # death would need, costs a third of a second on a busy disk.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return connect
