"""Bundles that are handed over through MLflow: left on its server by one machine, and taken from there by another."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from paretrim.errors import ArtifactError
from paretrim.tracking.mlflow_tracker import SUMMARY
from paretrim.tracking.tracker import TrackingError

_FOLDER = "bundles"
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class Parcel:
    """Where a bundle lies, and what it must be.

    Attributes:
        uri: The tracking server.
        run: The run that holds it.
        path: Its folder there.
        files: Hash of each of its files.
    """

    uri: str
    run: str
    path: str
    files: dict[str, str]


def leave(uri: str, search: str, folder: Path, name: str) -> Parcel:
    """Leave a bundle with the summary of its search.

    Args:
        uri: The tracking server.
        search: Name of the search.
        folder: The bundle.
        name: What it is called there.

    Raises:
        TrackingError: The server cannot be reached, refuses, or has no summary of the search.
    """
    if not uri.startswith(("http://", "https://")):
        raise TrackingError(f"bundles are handed over by an MLflow server, and this search is logged in {uri}")
    path = f"{_FOLDER}/{name}"
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(search)
        runs = (
            [] if experiment is None else client.search_runs([experiment.experiment_id], f"tags.`{SUMMARY}` = 'true'")
        )
        if runs:
            client.log_artifacts(runs[0].info.run_id, str(folder), path)
    except Exception as error:
        raise TrackingError(f"the bundle cannot be left at {uri}: {error}") from error
    if not runs:
        raise TrackingError(f"{search} has no summary at {uri} yet; it gets one when the search ends or is interrupted")
    return Parcel(uri, runs[0].info.run_id, path, _hashes(folder))


def take(parcel: Parcel, folder: Path, uri: str | None = None) -> None:
    """Take a bundle into an empty folder.

    Args:
        parcel: Where it lies.
        folder: Where it shall be.
        uri: The tracking server as this machine reaches it, where that is another address.

    Raises:
        TrackingError: The server cannot be reached, or refuses.
        ArtifactError: A file is not what was left, or there are others.
    """
    uri = uri or parcel.uri
    with TemporaryDirectory(prefix="paretrim-") as scratch:
        try:
            come = Path(MlflowClient(tracking_uri=uri).download_artifacts(parcel.run, parcel.path, scratch))
        except Exception as error:
            raise TrackingError(f"the bundle cannot be taken from {uri}: {error}") from error
        found = _hashes(come)
        if found != parcel.files:
            wrong = sorted(
                name for name in found.keys() | parcel.files.keys() if found.get(name) != parcel.files.get(name)
            )
            raise ArtifactError(f"the bundle that came from {uri} is not the one that was left: {', '.join(wrong)}")
        for name in found:
            shutil.copyfile(come / name, folder / name)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }  # fmt: skip
