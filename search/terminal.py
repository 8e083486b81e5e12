"""A search in a terminal: a live screen, or plain lines when the output is a file or a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from paretrim.search import words
from paretrim.search.monitor import Outline
from paretrim.search.progress import Progress
from paretrim.tracking.records import TrialRecord

_MOST_ROWS = 8


class LiveScreen:
    """Shows a search on a terminal, redrawn a few times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, outline: Outline, earlier: Sequence[TrialRecord]) -> None:
        """Show the search."""
        self._progress.begin(outline, earlier)

    def started(self, number: int) -> None:
        """Count a running trial."""
        self._progress.running.add(number)

    def trained(self, number: int) -> None:
        """Show nothing for a single epoch."""

    def finished(self, record: TrialRecord) -> None:
        """Show a trial that ended; a failure gets a line that stays."""
        self._progress.finished(record)
        if record.state == "failed":
            self._console.print(Text(f"trial {record.number} failed: {_last_line(record.cause)}", style="yellow"))

    def more(self, trials: int) -> None:
        """Expect so many trials more."""
        self._progress.more(trials)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, style="dim", highlight=False, markup=False)

    def _draw(self) -> RenderableType:
        progress, outline = self._progress, self._progress.outline
        if outline is None:
            return Text("starting", style="dim")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(outline.name, style="bold"),
            ProgressBar(total=outline.trials, completed=len(progress.records), width=32),
            _counts(progress),
        )
        parts: list[RenderableType] = [bar, Text(_course(progress), style="dim")]
        if progress.report is not None:
            parts.append(words.front_table(progress.report, most=_MOST_ROWS, test=False))
        return Group(*parts)


class PlainLines:
    """Prints a line for each trial that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, outline: Outline, earlier: Sequence[TrialRecord]) -> None:
        """Print the search's name and budget."""
        self._progress.begin(outline, earlier)
        self._print(f"{outline.name}: {outline.trials} trials, {len(earlier)} of them done")

    def started(self, number: int) -> None:
        """Count a running trial."""
        self._progress.running.add(number)

    def trained(self, number: int) -> None:
        """Print nothing for a single epoch."""

    def finished(self, record: TrialRecord) -> None:
        """Print how a trial ended."""
        self._progress.finished(record)
        self._print(
            f"trial {record.number} ({record.kind}) {self._ending(record)}; {_counts(self._progress)}; {_course(self._progress)}"
        )

    def more(self, trials: int) -> None:
        """Expect so many trials more."""
        self._progress.more(trials)

    def say(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def _ending(self, record: TrialRecord) -> str:
        if not record.complete:
            return f"{record.state}: {_last_line(record.cause)}"
        outline = self._progress.outline
        names = [o.name for o in outline.objectives] if outline is not None else []
        return "; ".join(f"{words.heading(name)} {words.quantity(name, record.metrics[name])}" for name in names)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def monitor_for(console: Console) -> LiveScreen | PlainLines:
    """Return a live screen for a terminal, and plain lines for anything else."""
    return LiveScreen(console) if console.is_terminal else PlainLines(console)


def _counts(progress: Progress) -> str:
    total = progress.outline.trials if progress.outline is not None else 0
    return (
        f"{progress.count('complete')}/{total} finished, {len(progress.running)} running, "
        f"{progress.count('stopped')} stopped early, {progress.count('failed')} failed"
    )


def _course(progress: Progress) -> str:
    left = progress.left()
    ahead = "time left not known yet" if left is None else f"about {words.clock(left)} left"
    return f"hypervolume {progress.hypervolume:.4f}; {words.clock(progress.elapsed())} passed, {ahead}"


def _last_line(text: str) -> str:
    """Return the line of a traceback that says what was raised, or the first line of a sentence of ours."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "no cause was recorded"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
