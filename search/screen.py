"""What the command line prints of a search."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from paretrim.search.store import Store

if TYPE_CHECKING:
    from paretrim.search.result import Result
    from paretrim.tracking.importance import Importance


def wide_console() -> Console:
    """Return a console that folds no table where the output is a pipe."""
    # A pipe has no width of its own; tables fold at 80 otherwise.
    return Console() if sys.stdout.isatty() else Console(width=140)


def show(result: Result) -> None:
    """Print a search's front, what it cost, and what to do next."""
    from paretrim.search import words  # noqa: PLC0415 - `--help` does not wait for it

    console = wide_console()
    report = result.require_report()
    place = f" on {result.target}" if len(result.job.targets) > 1 else ""
    console.print(
        f"\n{result.name}: the front{place}, after {len(result.records)} trials", style="bold", highlight=False
    )
    console.print(words.front_table(report), highlight=False)
    for line in (*words.tie_lines(report), *words.disturbed_line(result.records)):
        console.print(line, highlight=False, soft_wrap=True, style="dim")
    if not report.front:
        console.print(result.why_empty(), highlight=False, soft_wrap=True, style="yellow")
        return
    figures = result.figures()
    console.print(
        f"hypervolume {figures['hypervolume']:.4f}; {figures['trials_failed']:.0f} trials failed, "
        f"{figures['trials_stopped']:.0f} stopped early; {words.clock(figures['wall_seconds'])} for the trials, "
        f"{figures['overhead_seconds_per_trial'] * 1000:.0f} ms of overhead each",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for line in words.saved_lines(figures):
        console.print(line, highlight=False, soft_wrap=True)
    if not result.interrupted and result.target == result.job.target.label:
        _suggest(result, console)


def show_importance(found: Importance, *, as_json: bool, as_csv: bool) -> None:
    """Print what each knob matters for each objective."""
    from paretrim.search import words  # noqa: PLC0415 - `--help` does not wait for it
    from paretrim.tracking.search_plots import importance_words  # noqa: PLC0415 - as above

    if as_json or as_csv:
        typer.echo(found.to_json() if as_json else found.to_csv(), nl=as_json)
        return
    console = wide_console()
    if found.knobs:
        console.print(words.importance_table(found), highlight=False)
    console.print(importance_words(found), highlight=False, soft_wrap=True, style="" if found.knobs else "yellow")


def _suggest(result: Result, console: Console) -> None:
    option = f" --store {result.store.root}" if result.store.root != Store().root else ""
    commands = (
        (f"paretrim ui{option}", "look at every trial in the browser"),
        (f"paretrim export {result.name} -o compressed{option}", "take the fastest within a point of the baseline"),
        (f"paretrim resume {result.name} --trials {2 * len(result.records)}{option}", "search on"),
    )
    width = max(len(command) for command, _ in commands)
    console.print("Next:", style="bold")
    for command, purpose in commands:
        console.print(f"  {command:<{width}}   {purpose}", highlight=False, soft_wrap=True)
