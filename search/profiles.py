"""Profiles that are taken once for a model, its data, space and target, and kept in the store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from paretrim.search import prepare
from paretrim.search.job import Job
from paretrim.search.profile import profile
from paretrim.search.store import JobFolder, Store
from paretrim.tracking.heatmap import heatmap_page
from paretrim.tracking.sensitivity import Profile

Tell = Callable[[int, int, str], None]


class Profiles:
    """The profiles of a store.

    Args:
        store: Where they lie.
    """

    def __init__(self, store: Store) -> None:
        self._folder = store.root / "profiles"

    def kept(self, job: Job, subject: prepare.Subject) -> Profile | None:
        """Return the profile of a job's model, or None when it was not taken yet."""
        path = self.path(job, subject)
        return Profile.from_json(path.read_text()) if path.exists() else None

    def page(self, job: Job, subject: prepare.Subject) -> Path:
        """Return where the heat map of a profile lies."""
        return self.path(job, subject).with_suffix(".html")

    def keep(self, job: Job, subject: prepare.Subject, found: Profile) -> None:
        """Keep a profile and its heat map, each whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self.page(job, subject), heatmap_page(job.name, found)),
            (self.path(job, subject), found.to_json()),
        ):
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            partial.write_text(text)
            partial.replace(path)

    def path(self, job: Job, subject: prepare.Subject) -> Path:
        """Return where a profile lies, by all that it depends on."""
        depends = {**subject.fingerprints, "metric": job.metric_name, "target": repr(job.target.settings)}
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{job.name}-{digest[:12]}.json"


def take(job: Job, store: Store, say: Callable[[str], None], tell: Tell) -> tuple[Profile, Path]:
    """Return the profile of a job and the page of its heat map, taking it when it is not there yet.

    Raises:
        UsageError: The job's model or data do not do.
        LoweringError: The model does not export.
    """
    subject, profiles = prepare.load(job), Profiles(store)
    found = profiles.kept(job, subject)
    if found is None:
        with TemporaryDirectory(prefix="paretrim-") as folder:
            found = profile(prepare.prepare(job, subject, JobFolder(job.name, Path(folder)), {}, say), tell)
        profiles.keep(job, subject, found)
    return found, profiles.page(job, subject)
