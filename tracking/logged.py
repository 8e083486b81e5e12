"""Models that were logged to MLflow, as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow.artifacts
import yaml
from mlflow.exceptions import MlflowException

from paretrim.errors import SourceError

_INDEX = "MLmodel"


@dataclass(frozen=True)
class LoggedModel:
    """A model's files.

    Attributes:
        folder: Where they lie.
        flavors: What MLflow says of them, by flavor.
    """

    folder: Path
    flavors: Mapping[str, Mapping[str, Any]]


@contextmanager
def logged_model(uri: str, tracking_uri: str | None = None) -> Iterator[LoggedModel]:
    """Give the files of a model for as long as the context lasts; nothing of them is loaded.

    Args:
        uri: ``models:/name/1``, ``models:/name@alias``, ``runs:/id/model``, another URI of MLflow's, or a folder.
        tracking_uri: Of the tracking server; by default what MLflow is set to.

    Raises:
        SourceError: There is no such model.
    """
    if Path(uri).is_dir():
        yield _described(Path(uri), uri)
        return
    with TemporaryDirectory(prefix="paretrim-") as folder:
        try:
            place = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri, registry_uri=tracking_uri
            )
        except (MlflowException, OSError, ValueError) as error:
            where = tracking_uri or mlflow.get_tracking_uri()
            raise SourceError(f"MLflow at {where} has no model '{uri}': {error}") from error
        yield _described(Path(place), uri)


def _described(folder: Path, uri: str) -> LoggedModel:
    index = folder / _INDEX
    if not index.is_file():
        raise SourceError(
            f"'{uri}' is no model of MLflow's: there is no file {_INDEX} in it; name one that log_model wrote"
        )
    return LoggedModel(folder, yaml.safe_load(index.read_text())["flavors"])
