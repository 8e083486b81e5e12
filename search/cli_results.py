"""The commands that look at what searches found, and take it away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from paretrim.errors import ParetrimError, UsageError
from paretrim.search.options import AddressOption, JobArgument, JsonOption, PlotOption, StoreOption, TargetOption
from paretrim.search.screen import show, show_importance, wide_console
from paretrim.search.service.remote import elsewhere, pass_on, store_of

if TYPE_CHECKING:
    from paretrim.search.result import Result
    from paretrim.tracking.bundle import Verdict


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (front, compare, export, verify, replay, gc, ui):
        app.command()(command)


def front(
    job: JobArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs (see docs/front.md).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, the baseline first.")] = False,
    importance: Annotated[
        bool, typer.Option("--importance", help="Print what each knob matters for each objective instead.")
    ] = False,
    plot: PlotOption = None,
    target: TargetOption = None,
    address: AddressOption = None,
    store: StoreOption = None,
) -> None:
    """Print the front of a search again, or what its knobs matter."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; give one of them")
    if plot is not None and importance:
        raise UsageError("--plot draws the front, and --importance prints what knobs matter; give one of them")
    cluster = elsewhere(address, store)
    if plot is not None and cluster is not None:
        raise UsageError(
            "--plot draws a search of a store of this machine; for a cluster's, see its summary's pages in MLflow"
        )
    if cluster is not None:
        flags = {"--json": as_json, "--csv": as_csv, "--importance": importance}
        words = [word for word, given in flags.items() if given]
        pass_on(cluster, job, ["front", *job_words(job), *words, *given_words({"--target": target})])
        return
    result = opened(job, store, target)
    if importance:
        show_importance(result.importance, as_json=as_json, as_csv=as_csv)
        return
    report = result.require_report()
    if plot is not None:
        from paretrim.search import drawing

        drawing.draw_front(result, plot)
    if as_json:
        typer.echo(report.to_json())
    elif as_csv:
        typer.echo(report.to_csv(), nl=False)
    else:
        show(result)
    if plot is not None:
        typer.echo(f"drawn into {plot}", err=True)


def export(
    job: JobArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write; must not exist.")
    ] = ...,  # type: ignore[assignment]
    trial: Annotated[int | None, typer.Option(help="Number of the trial to export.")] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="cheapest (the default), knee, nearest, or lexicographic: see docs/front.md."
        ),
    ] = None,
    minimize: Annotated[str | None, typer.Option(help="For cheapest: the metric; by default latency_ms.")] = None,
    where: Annotated[
        str | None,
        typer.Option(help='Condition, such as "accuracy >= baseline - 0.01"; for cheapest by default within a point.'),
    ] = None,
    wish: Annotated[str | None, typer.Option(help='For nearest: "latency_ms=0.03,size_bytes=20% of baseline".')] = None,
    order: Annotated[str | None, typer.Option(help='For lexicographic: "accuracy>latency_ms>size_bytes".')] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx, openvino, pt2 or safetensors; by default what was scored. For another the point is made again.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a timing differs from the logged one.")] = False,
    target: TargetOption = None,
    address: AddressOption = None,
    handing_over: Annotated[bool, typer.Option("--hand-over", hidden=True)] = False,
    store: StoreOption = None,
) -> None:
    """Write a point of the front as a bundle, and check it in a clean process."""
    cluster = elsewhere(address, store)
    if cluster is not None:
        from paretrim.search.service.fetching import fetch

        options = {
            "--trial": trial, "--pick": pick, "--minimize": minimize, "--where": where, "--wish": wish, "--order": order,
            "--format": form, "--target": target,
        }  # fmt: skip
        words = [*given_words(options), *(["--strict"] if strict else [])]
        typer.echo(fetch(cluster, job, output, words), nl=False)
        return
    result = opened(job, store, target)
    # Any text: what is no rule is told with the rules that there are.
    rule: Any = pick
    with TemporaryDirectory(prefix="paretrim-") as scratch:
        to = Path(scratch) / output.name if handing_over else output
        verdict = result.export(
            to, rule, trial=trial, minimize=minimize, where=where, wish=wish, order=order, format=form, strict=strict,
            say=lambda text: typer.echo(text, err=True),
        )  # fmt: skip
        _show_verdict(verdict, form)
        if handing_over:
            from paretrim.search.service.fetching import hand_over

            typer.echo(f"trial {verdict.trial} of {result.name} was exported")
            typer.echo(hand_over(verdict, result))
            return
    script = (
        "fit.py puts it into your network" if form == "safetensors" else f"run it with: python {output / 'predict.py'}"
    )
    Console().print(f"trial {verdict.trial} of {result.name} is in {output}; {script}", soft_wrap=True)
    if verdict.trial == 0 and trial is None:
        typer.echo("that is the uncompressed model: no other point that meets the condition costs less", err=True)


def _show_verdict(verdict: Verdict, form: str | None) -> None:
    console = Console()
    for line in verdict.checks:
        console.print(f"checked  {line}", highlight=False, soft_wrap=True)
    for item in verdict.comparisons:
        why = "is this machine busy, or another one?" if form is None else "this is another file than was scored"
        note = "" if item.agrees else f"   differs: {why}"
        console.print(
            f"measured {item.name}: {item.now:.4f} now, {item.logged:.4f} logged{note}",
            highlight=False, soft_wrap=True, style="" if item.agrees else "yellow",
        )  # fmt: skip


def replay(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a search.")],
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial.")],
    store: StoreOption = None,
) -> None:
    """Make a trial's artifact again from its recipe and seed, and compare it with the recorded one."""
    from paretrim.search.replay import replay as make_again

    console = wide_console()
    made = make_again(opened(job, store, None), trial, lambda text: console.print(text, highlight=False, style="dim"))
    name = made.artifact.sha256[:16]
    if made.same:
        console.print(f"trial {trial} of {job} made again: the same file, {name}..., to the bit", highlight=False)
        return
    console.print(
        f"trial {trial} of {job} made again: another file, {name}... instead of {made.record.sha256[:16]}...; it scores "
        f"{made.score:.4f} and then {made.logged:.4f}. Sums of floats depend on the processor, on PyTorch's version and on "
        f"the number of threads ({made.threads or 'not recorded'} then)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    raise typer.Exit(1)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    store: StoreOption = None,
) -> None:
    """Serve the MLflow UI over the store, on this machine only."""
    from paretrim.search.serve import serve

    raise typer.Exit(serve(store_of(None, store), port))


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle, as `paretrim export` writes it.")],
    job: Annotated[
        Path | None, typer.Option("--job", help="Job file by whose data and metric it is scored as well.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bundle of the uncompressed model (export --trial 0), to time it beside."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when latency or memory differ, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle, here and now: its files and answers, and where asked its scores and costs."""
    from paretrim.search.verify import verify as check

    found = check(bundle, job, baseline, strict=strict)
    if as_json:
        typer.echo(found.to_json())
    else:
        from paretrim.search import verify_words

        console = wide_console()
        for part in verify_words.lines(found):
            console.print(part, highlight=False, soft_wrap=True)
    if not found.holds:
        raise typer.Exit(1)


def compare(
    first: Annotated[str, typer.Argument(metavar="JOB", help="Name of a search.")],
    second: Annotated[str, typer.Argument(metavar="JOB", help="Name of another.")],
    as_json: JsonOption = False,
    plot: PlotOption = None,
    store: StoreOption = None,
) -> None:
    """Compare two searches: their fronts in one box, and what each has that the other has not."""
    from paretrim.search import comparison, comparison_words

    found = comparison.compare(opened(first, store, None), opened(second, store, None))
    if plot is not None:
        from paretrim.search import drawing

        drawing.draw_comparison(found, plot)
    if as_json:
        typer.echo(found.to_json())
        return
    console = wide_console()
    for part in comparison_words.lines(found):
        console.print(part, highlight=False, soft_wrap=True)
    if plot is not None:
        typer.echo(f"drawn into {plot}", err=True)


def gc(
    job: JobArgument = None,
    free: Annotated[
        bool, typer.Option("--free", help="Delete artifacts off the front, and what killed processes left.")
    ] = False,
    keep_mb: Annotated[
        float, typer.Option(min=0, max=1e9, help="With --free: megabytes of them that may stay in each search.")
    ] = 0.0,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show what searches hold on disk, all of them or one; with --free, let go of what is off the front."""
    from paretrim.search import housekeeping, housekeeping_words

    kept = store_of(job, store)
    names = [kept.open(job).name] if job is not None else kept.names()
    results_there = list(_readable(names, kept.root))
    freed = {each.name: housekeeping.let_go(each, int(keep_mb * 1e6)) for each in results_there} if free else {}
    found = [housekeeping.holding(each) for each in results_there]
    if as_json:
        typer.echo(housekeeping_words.to_json(found, freed))
        return
    console = wide_console()
    for part in housekeeping_words.lines(found, freed, kept):
        console.print(part, highlight=False, soft_wrap=True)


def _readable(names: Sequence[str], root: Path) -> Iterator[Result]:
    """Yield the searches that can be read, and say which cannot."""
    for name in names:
        try:
            yield opened(name, root, None)
        except ParetrimError as error:
            typer.echo(f"left out: {name}: {error}", err=True)


def opened(job: str | None, store: Path | None, target: str | None) -> Result:
    """Return a search, as it is on one of its targets."""
    from paretrim.search.result import open_result

    result = open_result(job, store_of(job, store))
    return result if target is None else result.on(target)


def job_words(job: str | None) -> list[str]:
    """Return the words that name a search, which may be none."""
    return [] if job is None else [job]


def given_words(options: Mapping[str, object]) -> list[str]:
    """Return the words of those options that were given."""
    return [f"{name}={value}" for name, value in options.items() if value is not None]
