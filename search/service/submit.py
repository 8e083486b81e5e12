"""Sending a job to a cluster, and letting the cluster go on with one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from paretrim.errors import UsageError
from paretrim.search.job import Job
from paretrim.search.service.cluster import SUCCEEDED, Cluster, Turn
from paretrim.search.service.package import gather

JOB_FILE = "paretrim-job.yaml"
_DIGITS = 8
# Ray keeps what a job needs installed with the job, where all that may submit can read it.
_WITH_SECRET = re.compile(r"https?://[^/\s@]+@|://[^/\s@:]+:[^/\s@]+@")


@dataclass(frozen=True)
class Sent:
    """A job that a cluster has.

    Attributes:
        name: The job's name there.
        new: Whether it was not there before.
        files: How many files went along.
        bytes: What they weigh.
    """

    name: str
    new: bool
    files: int
    bytes: int


def submit(cluster: Cluster, job: Job, requirements: Path | None, *, check: bool = True) -> Sent:
    """Send a job with its folder. The same job, code and requirements twice are one job, which goes on if it had failed.

    Args:
        cluster: Where to.
        job: The job.
        requirements: File of the packages that the user's code needs on the cluster, in pip's form.
        check: Whether the whole path is tried there before the search begins.

    Raises:
        UsageError: The folder weighs too much, the requirements cannot be read, or the job names a store of its own.
        ClusterError: The cluster does not answer, or refuses.
    """
    if job.storage.folder is not None:
        raise UsageError(
            "storage.folder: where results lie on a cluster is the cluster's to say (PARETRIM_STORE of its processes); leave "
            "it out of a job that is submitted"
        )
    package, packages, document = gather(job.folder), _packages(requirements), _document(job)
    digest = hashlib.sha256(json.dumps([package.digest(), packages, document], sort_keys=True).encode()).hexdigest()
    name = f"{job.name}-{digest[:_DIGITS]}"
    with TemporaryDirectory(prefix="paretrim-") as folder:
        package.copy(Path(folder))
        (Path(folder) / JOB_FILE).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        environment: dict[str, Any] = {"working_dir": folder, **_pip(packages)}
        turns = cluster.turns(name)
        if turns and (turns[-1].running or turns[-1].state == SUCCEEDED):
            return Sent(name, new=False, files=len(package.files), bytes=package.bytes)
        words = [*_drive(name), JOB_FILE, *([] if check else ["--no-check"])]
        new = cluster.submit(_turn(name, turns), name, words, environment)
    return Sent(name, new, len(package.files), package.bytes)


def resume(cluster: Cluster, name: str, requirements: Path | None, options: Sequence[str] = ()) -> str:
    """Let a cluster go on with a job that was interrupted, or has a larger budget; return the turn's name.

    Args:
        cluster: Where the job is.
        name: The job's name.
        requirements: As for `submit`; by default those of the job's last turn.
        options: Of ``paretrim resume``.

    Raises:
        UsageError: It is running.
        ClusterError: The cluster does not answer, or refuses.
    """
    turns = cluster.turns(name)
    if turns and turns[-1].running:
        raise UsageError(f"{name} is running at {cluster.address}; `paretrim logs {name} -f` shows what it does")
    # The code lies with the search.
    turn = _turn(name, turns)
    cluster.submit(turn, name, [*_drive(name), *options], dict(_pip(_packages(requirements))) or _environment(turns))
    return turn


def _turn(name: str, before: Sequence[Turn]) -> str:
    return f"{name}.{len(before) + 1}" if before else name


def _drive(name: str) -> list[str]:
    return ["python", "-m", "paretrim", "drive", "--as", name]


def _document(job: Job) -> dict[str, Any]:
    """Return a job as its file, to be read on another machine: what this machine's cores decide is left to that one."""
    document = job.model_dump(mode="json", by_alias=True, exclude={"folder", "budget"}, exclude_none=True)
    document["budget"] = job.budget.model_dump(mode="json", exclude_unset=True)
    return document


def _packages(requirements: Path | None) -> list[str]:
    if requirements is None:
        return []
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the requirements '{requirements}': {error.strerror}") from None
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for number, line in enumerate(lines, 1):
        if _WITH_SECRET.search(line):
            raise UsageError(
                f"line {number} of '{requirements}' has a name or password in a URL, which everybody who may submit would see; "
                "leave it out, and give it to pip on the cluster: PIP_EXTRA_INDEX_URL or ~/.netrc there"
            )
    return found


def _pip(packages: Sequence[str]) -> Mapping[str, Any]:
    return {"pip": {"packages": list(packages), "pip_check": False}} if packages else {}


def _environment(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return what a job's last turn had installed; what had been sent with it may be gone from the cluster by now."""
    before = turns[-1].environment if turns else {}
    return {"pip": before["pip"]} if "pip" in before else {}
