"""Taking a model away from a cluster: exported there, checked there, brought here through MLflow, checked again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from paretrim.errors import ClusterError
from paretrim.search.places import TRACKING
from paretrim.search.result import Result
from paretrim.search.service.cluster import Cluster
from paretrim.search.service.remote import named
from paretrim.tracking import bundle, parcels
from paretrim.tracking.bundle import Verdict

_HANDED = "paretrim-handed-over "


def fetch(cluster: Cluster, job: str | None, folder: Path, options: Sequence[str]) -> str:
    """Let a cluster export a point, and bring the bundle here; return what the export printed.

    Args:
        cluster: Where the job is.
        job: Its name.
        folder: Where to write; must not exist.
        options: Of ``paretrim export``.

    Raises:
        UsageError: No job is named.
        OutputExistsError: The folder exists.
        ArtifactError: What came is not what was sent.
        ClusterError: The cluster does not answer, refuses, or its MLflow server is not to be reached from here.
    """
    job = named(job)
    with bundle.appearing(folder) as partial:
        found = cluster.ask(job, ["export", job, "--hand-over", "-o", "bundle", *options])
        if found.code:
            raise ClusterError(f"{job} was not exported: {found.error.strip().removeprefix('Error: ')}")
        *lines, last = found.output.splitlines()
        parcels.take(parcels.Parcel(**json.loads(last.removeprefix(_HANDED))), partial, os.environ.get(TRACKING))
        bundle.check(partial)
    return "\n".join([*lines, f"the bundle is in {folder}; run it with: python {folder / 'predict.py'}", ""])


def hand_over(verdict: Verdict, result: Result) -> str:
    """Leave an exported bundle with MLflow, and return the line that says where it is.

    Raises:
        TrackingError: The server cannot be reached, or refuses.
    """
    name = f"trial-{verdict.trial}-{verdict.sha256[:8]}"
    parcel = parcels.leave(result.folder.places.tracking_uri, result.name, verdict.folder, name)
    return _HANDED + json.dumps(vars(parcel))
