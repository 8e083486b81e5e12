"""The commands of the service."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from paretrim.errors import ClusterError, ParetrimError, UsageError
from paretrim.search.options import AddressOption, JsonOption, RequirementsOption, StoreOption
from paretrim.search.service import screen
from paretrim.search.store import Store

if TYPE_CHECKING:
    from paretrim.search.service.cluster import Cluster

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job.")]
_PATIENCE_S = 30.0
_PROGRESS = ("trials", "of", "failed", "front", "hypervolume", "minutes")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, down, submit, jobs, status, logs):
        app.command()(command)
    app.command(hidden=True)(drive)


def up(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where jobs are taken.")] = 8265,
    tracking_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow server.")] = 5000,
    ray_port: Annotated[int, typer.Option(min=1, max=65535, help="Where other machines join.")] = 6379,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores for trials; by default all.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File of the secret that lets users in; by default one of its own, on loopback.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Start a Ray head and an MLflow server on this machine, which take jobs until `paretrim down`."""
    from paretrim.search.service import up as service
    from paretrim.search.service.home import Home

    wishes, home, kept = service.Wishes(host, ray_port, port, tracking_port, cpus, token_file), Home(), Store(store)
    console = Console(stderr=True)
    found = service.up(wishes, kept, home, lambda text: console.print(text, style="dim", highlight=False))
    typer.echo(f"jobs:    {found.address}   (paretrim submit JOB.yaml)")
    typer.echo(f"MLflow:  {found.tracking}")
    typer.echo(f"results: {found.store}")
    typer.echo(f"token:   in {found.token}")
    if not wishes.local:
        typer.echo(f"others:  RAY_AUTH_TOKEN_PATH=TOKEN paretrim submit JOB.yaml --address http://THIS-MACHINE:{port}")
    typer.echo("it runs until `paretrim down`")


def down() -> None:
    """End what `paretrim up` started, and nothing else; jobs go on after `paretrim up` and `paretrim resume JOB`."""
    from paretrim.search.service import up as service
    from paretrim.search.service.home import Home

    found = service.down(Home())
    if found is None:
        raise UsageError("no service was started on this machine by this user")
    typer.echo(f"ended the service at {found.address}; the results are kept in {found.store}")


def submit(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Job file; by default the bundled example.")
    ] = None,
    address: AddressOption = None,
    requirements: RequirementsOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show what it prints until it ends.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not try the whole path before the search.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a job with the folder of its code to a cluster, and return."""
    from paretrim.search.jobfile import EXAMPLE, load
    from paretrim.search.service import cluster as clusters
    from paretrim.search.service import submit as sending
    from paretrim.search.service.home import Home

    loaded = load(job or EXAMPLE)
    cluster = clusters.required(address, Home())
    sent = sending.submit(cluster, loaded, requirements, check=not no_check)
    if as_json:
        typer.echo(json.dumps({"name": sent.name, "new": sent.new, "files": sent.files, "bytes": sent.bytes}))
    else:
        typer.echo(sent.name)
    if not sent.new:
        state = cluster.last(sent.name).state.lower()
        typer.echo(f"the same job with the same code is there already ({state}); it is not run twice", err=True)
    if wait:
        _follow(cluster, sent.name)


def jobs(address: AddressOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List jobs and how they stand: those of a cluster, or of the store here."""
    from paretrim.search.service.remote import elsewhere, store_of

    cluster = elsewhere(address, store)
    if cluster is None:
        rows = _in_store(store_of(None, store))
        rows += [] if store is not None else _not_begun({row["name"] for row in rows})
    else:
        rows = _in_cluster(cluster)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    screen.show_all(rows)


def status(job: JobName, address: AddressOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Tell how a job stands."""
    from paretrim.search.service.remote import cluster_of, elsewhere, store_of
    from paretrim.search.service.standing import standing

    cluster = cluster_of(job, address, store)
    if cluster is None:
        screen.show(standing(job, store_of(job, store)).to_plain(), as_json=as_json)
        return
    turn = cluster.last(job)
    plain: dict[str, Any] = {
        "name": job, "state": turn.state.lower(), "started": screen.moment(turn.started), "ended": screen.moment(turn.ended),
    }  # fmt: skip
    found = _standing_there(cluster, job) if elsewhere(address, store) else _standing_here(store_of(job, store), job)
    plain |= {key: value for key, value in found.items() if key not in plain}
    if not found and not turn.running:
        plain["message"] = screen.last_lines(cluster.logs(turn)) or turn.message
    screen.show(plain, as_json=as_json)


def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    address: AddressOption = None,
) -> None:
    """Print what a job on a cluster printed."""
    from paretrim.search.service import cluster as clusters
    from paretrim.search.service.home import Home

    cluster = clusters.required(address, Home())
    if follow:
        _follow(cluster, job)
    else:
        typer.echo(cluster.logs(cluster.last(job)), nl=False)


def drive(
    job: Annotated[Path | None, typer.Argument(metavar="[JOB.yaml]")] = None,
    name: Annotated[str, typer.Option("--as", help="Name of the job.")] = ...,  # type: ignore[assignment]
    trials: Annotated[int | None, typer.Option()] = None,
    parallel: Annotated[int | None, typer.Option()] = None,
    no_check: Annotated[bool, typer.Option("--no-check")] = False,
) -> None:
    """Begin a job on the cluster that this process runs on, or go on with it."""
    from paretrim.search.cli import watch
    from paretrim.search.service import driving

    budget = {key: value for key, value in {"trials": trials, "parallel": parallel}.items() if value is not None}
    watch(lambda monitor: driving.drive(job, name, budget, monitor, check=not no_check))


def _follow(cluster: Cluster, job: str) -> None:
    from paretrim.search.service.cluster import SUCCEEDED

    turn = cluster.last(job)
    for text in cluster.follow(turn):
        typer.echo(text, nl=False)
    ended = cluster.last(job)
    if ended.submission == turn.submission and ended.state != SUCCEEDED:
        raise ClusterError(f"{job} ended as {ended.state.lower()}: {ended.message}")


def _in_store(store: Store) -> list[dict[str, Any]]:
    from paretrim.search.service.standing import standing

    rows = []
    for name in store.names():
        try:
            found = standing(name, store).to_plain()
        except ParetrimError as error:
            found = {"name": name, "state": f"unreadable: {error}"}
        rows.append({key: found.get(key) for key in ("name", "state", *_PROGRESS)})
    return rows


def _not_begun(known: Collection[str]) -> list[dict[str, Any]]:
    """Return the jobs of this machine's service that no store has: those that are tried first, or were not accepted."""
    from paretrim.search.service import cluster as clusters
    from paretrim.search.service.home import Home

    here = clusters.find(None, Home())
    last = {turn.job: turn for turn in here.turns()} if here is not None else {}
    others = [turn for name, turn in last.items() if name not in known]
    return [{"name": t.job, "state": t.state.lower(), **dict.fromkeys(_PROGRESS)} for t in others]


def _in_cluster(cluster: Cluster) -> list[dict[str, Any]]:
    last = {turn.job: turn for turn in cluster.turns()}
    known = _progress_there(cluster) if last else {}
    return [
        {
            "name": t.job, "state": t.state.lower(),
            **{key: known.get(t.job, {}).get(key) for key in _PROGRESS},
            "started": screen.moment(t.started), "ended": screen.moment(t.ended),
        }
        for t in last.values()
    ]  # fmt: skip


def _progress_there(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return how far jobs in the store of a cluster are, by name; nothing where it does not say."""
    with suppress(ClusterError):  # the list itself does not hang on it
        found = cluster.ask("all", ["jobs", "--json"], _PATIENCE_S)
        return {row["name"]: row for row in json.loads(found.output)} if found.code == 0 else {}
    return {}


def _standing_there(cluster: Cluster, job: str) -> dict[str, Any]:
    """Return how a job stands in the store of a cluster; nothing where it was not begun."""
    found = cluster.ask(job, ["status", job, "--json"])
    answered: dict[str, Any] = json.loads(found.output) if found.code == 0 else {}
    return answered


def _standing_here(store: Store, job: str) -> dict[str, Any]:
    from paretrim.search.service.standing import standing

    return standing(job, store).to_plain() if store.has(job) else {}
