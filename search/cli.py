"""The command line."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

import paretrim
from paretrim.errors import INTERRUPTED, ParetrimError, UsageError
from paretrim.search import cli_results as results
from paretrim.search.options import AddressOption, JobArgument, RequirementsOption, StoreOption
from paretrim.search.screen import show, wide_console
from paretrim.search.service import cli as service
from paretrim.search.service.remote import cluster_of, elsewhere, pass_on, store_of
from paretrim.search.store import Store

if TYPE_CHECKING:
    from paretrim.search.result import Result

app = typer.Typer(
    name="paretrim",
    help="Search for smaller and faster versions of a trained PyTorch model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"paretrim {paretrim.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def search(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Job file; by default the bundled example.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials, in the place of the job file's.")] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Trials at the same time, in the place of the job file's.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes, in the place of the job file's.")] = None,
    store: StoreOption = None,
) -> None:
    """Run a search, and show its front."""
    from paretrim.search.jobfile import EXAMPLE, load

    loaded = load(job or EXAMPLE)
    given = {"trials": trials, "parallel": parallel, "minutes": minutes}
    loaded = loaded.with_budget({name: value for name, value in given.items() if value is not None})
    if job is None:
        Console(stderr=True).print(
            "no job file given: running the bundled example; `paretrim init DIR` writes one of your own"
        )

    def run(monitor: Any) -> Result:
        from paretrim.search import engine

        return engine.start(loaded, Store(store or loaded.storage_folder), monitor)

    watch(run)


@app.command()
def check(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Job file; by default the bundled example.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Try a job before it runs: make, export and measure the ends of its space, and estimate time and disk."""
    from paretrim.search import preflight, preflight_words
    from paretrim.search.jobfile import EXAMPLE, load

    loaded, console, errors = load(job or EXAMPLE), wide_console(), Console(stderr=True)
    kept = Store(store or loaded.storage_folder)
    found = preflight.check(loaded, kept, lambda text: errors.print(text, highlight=False, style="dim"))
    for part in preflight_words.lines(loaded, found):
        console.print(part, highlight=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(UsageError.exit_code)


@app.command()
def space(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Job file; by default the bundled example.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Name all layers of a row, however many there are.")] = False,
) -> None:
    """Show what a job would search: its knobs, how many recipes they make, what is left out and why."""
    from paretrim.search import overview_words, prepare
    from paretrim.search.jobfile import EXAMPLE, load
    from paretrim.search.overview import overview

    console = wide_console()
    most = None if every else overview_words.FEW
    for part in overview_words.lines(overview(prepare.load(load(job or EXAMPLE)).space), most):
        console.print(part)


@app.command()
def profile(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="Job file; by default the bundled example.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Show which layer hurts: what each knob alone does to score, bytes and time, without training."""
    from rich.progress import Progress

    from paretrim.search import profile_words, profiles
    from paretrim.search.jobfile import EXAMPLE, load

    console = wide_console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=None)

        def tell(done: int, total: int, knob: str) -> None:
            progress.update(task, completed=done, total=total, description=knob)

        loaded = load(job or EXAMPLE)
        found, page = profiles.take(loaded, Store(store or loaded.storage_folder), progress.console.print, tell)
    for part in profile_words.lines(found):
        console.print(part)
    console.print(f"heat map: {page}", highlight=False, soft_wrap=True)


@app.command()
def stop(job: JobArgument = None, address: AddressOption = None, store: StoreOption = None) -> None:
    """Let a search that runs end: no more trials are begun, and what is done becomes its front."""
    cluster = elsewhere(address, store)
    if cluster is not None:
        pass_on(cluster, job, ["stop", *results.job_words(job)])
        return
    folder = store_of(job, store).open(job)
    if not folder.running():
        raise UsageError(f"{folder.name} is not running; `paretrim front {folder.name}` shows what it found")
    folder.stop.touch()
    typer.echo(f"{folder.name} ends when the trials under way have; its front is printed where it runs")


@app.command()
def resume(
    job: JobArgument = None,
    trials: Annotated[int | None, typer.Option(help="A new budget of trials, those that ended included.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Trials at the same time.")] = None,
    address: AddressOption = None,
    requirements: RequirementsOption = None,
    store: StoreOption = None,
) -> None:
    """Go on with a search that was interrupted, or give it a larger budget."""
    given = {"trials": trials, "parallel": parallel}
    budget = {name: value for name, value in given.items() if value is not None}
    cluster = cluster_of(job, address, store)
    if cluster is not None:
        from paretrim.search.service.submit import resume as resume_there

        options = [word for name, value in budget.items() for word in (f"--{name}", str(value))]
        turn = resume_there(cluster, str(job), requirements, options)
        typer.echo(f"{job} goes on at {cluster.address} ({turn}); `paretrim logs {job} -f` shows what it does")
        return

    def run(monitor: Any) -> Result:
        from paretrim.search import engine

        return engine.go_on(job, store_of(job, store), monitor, budget)

    watch(run)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    template: Annotated[
        str, typer.Option(metavar="NAME", help="What to start from; an unknown name lists what there is.")
    ] = "example",
) -> None:
    """Write a job file and a module to be edited: the example, which works as it is, or a template for your own."""
    from paretrim.search import scaffold

    for path in scaffold.write(folder, template):
        typer.echo(f"wrote {path}")
    job = folder / "job.yaml"
    if template == scaffold.DEFAULT:
        typer.echo(f"run it with: paretrim search {job}")
    else:
        typer.echo(f"edit {folder / 'net.py'}, then try it with: paretrim check {job}")


results.register(app)
service.register(app)


def main() -> None:
    """Run the command line, with one clear message for each error."""
    # Ray forks; a tokenizer's or BLAS's threads must not be created before.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=arguments, prog_name="paretrim")
    except ParetrimError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (this is a fault of paretrim; `paretrim --debug ...` shows where)", 1)


def command() -> NoReturn:
    """Run the command line, and leave at once.

    All is written by then; the ends of a dozen native libraries take their time, and one was seen to take for ever.
    """
    code: int | str | None = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    atexit._run_exitfuncs()
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def watch(run: Callable[[Any], Result]) -> None:
    """Run a search in sight of the terminal, print its front, and exit as it ended."""
    from paretrim.search.terminal import monitor_for

    console = Console()
    with monitor_for(console) as monitor:
        result = run(monitor)
    if not result.interrupted or result.report is not None:
        for target in reversed(result.job.targets):
            show(result.on(target))
    if result.interrupted:
        console.print(
            f"\nstopped; what is done is kept. Go on with: paretrim resume {result.name}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)
    if not result.require_report().front:
        raise typer.Exit(1)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"Error: {message}", style="red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(code)
