"""Whether a command acts on a store of this machine or on a cluster, which does it there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from paretrim.errors import UsageError
from paretrim.search.service import cluster as clusters
from paretrim.search.service.answer import ADDRESS
from paretrim.search.service.cluster import Cluster
from paretrim.search.service.home import Home
from paretrim.search.store import Store


def elsewhere(address: str | None, store: Path | None) -> Cluster | None:
    """Return the cluster that a command names, or None when it acts on this machine.

    Raises:
        UsageError: It names a cluster and a store.
        ClusterError: The cluster does not answer, or refuses.
    """
    if address is not None and store is not None:
        raise UsageError("--address names a cluster and --store a folder of this machine; give one of them")
    if store is not None or (address is None and not os.environ.get(ADDRESS)):
        return None
    return clusters.required(address, Home())


def store_of(job: str | None, given: Path | None) -> Store:
    """Return the store that has a job: the one that is named, or the usual one here, or that of this machine's service."""
    usual = Store(given)
    if given is not None or (usual.has(job) if job is not None else usual.names()):
        return usual
    service = Home().service()
    if service is None:
        return usual
    theirs = Store(Path(service.store))
    return theirs if job is None or theirs.has(job) else usual


def cluster_of(job: str | None, address: str | None, store: Path | None) -> Cluster | None:
    """Return the cluster that drives a job: the one that is named, or this machine's service where it was submitted there.

    Raises:
        UsageError: A cluster and a store are named, or a cluster and no job.
        ClusterError: The cluster does not answer, or refuses.
    """
    there = elsewhere(address, store)
    if there is not None:
        named(job)
        return there
    if job is None or store is not None:
        return None
    here = clusters.find(None, Home())
    if here is None:
        return None
    # After a restart it knows no turns; what came to it lies with its code in the store.
    return here if here.turns(job) or store_of(job, None).job(job).code.exists() else None


def named(job: str | None) -> str:
    """Return a job's name: on a cluster, which others use too, the latest is anybody's.

    Raises:
        UsageError: None was given.
    """
    if job is None:
        raise UsageError("name the job; `paretrim jobs` lists them")
    return job


def pass_on(cluster: Cluster, job: str | None, command: Sequence[str]) -> None:
    """Let a cluster run a command, and print its answer as it was.

    Raises:
        UsageError: No job is named.
        Exit: The command failed there, with its exit code.
    """
    found = cluster.ask(named(job), command)
    sys.stdout.write(found.output)
    sys.stderr.write(found.error)
    if found.code:
        raise typer.Exit(found.code)
