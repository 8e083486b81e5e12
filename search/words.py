"""How numbers and fronts read in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.table import Table

from paretrim.tracking.front import Objective
from paretrim.tracking.importance import Importance
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.report import Report, Row
from paretrim.tracking.search_plots import share
from paretrim.tracking.settled import crowded

# metric: (heading, unit, factor)
_UNITS = {
    "latency_ms": ("latency", "ms", 1.0),
    "latency_p50_ms": ("latency p50", "ms", 1.0),
    "latency_p90_ms": ("latency p90", "ms", 1.0),
    "latency_p99_ms": ("latency p99", "ms", 1.0),
    "size_bytes": ("size", "kB", 1e-3),
    "model_bytes": ("unpacked size", "kB", 1e-3),
    "held_bytes": ("weights in memory", "kB", 1e-3),
    "memory_bytes": ("memory", "MB", 1e-6),
    "energy_millijoules": ("energy", "mJ", 1.0),
}


def quantity(name: str, value: float) -> str:
    """Return a value with its unit, to three digits: ``0.0313 ms``."""
    if name not in _UNITS:
        return f"{value:.4g}"
    _, unit, factor = _UNITS[name]
    return f"{_digits(value * factor)} {unit}".strip()


def heading(name: str) -> str:
    """Return a metric's name as people say it."""
    return _UNITS.get(name, (name, "", 1.0))[0]


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def front_table(report: Report, *, most: int | None = None, test: bool = True) -> Table:
    """Return the front as a table, the baseline in its first row.

    Args:
        report: The front.
        most: Rows to show besides the baseline; the rest is counted in the caption.
        test: Whether to show the column of held-out scores.
    """
    costs = [o.name for o in report.objectives if o.name != report.metric]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("kind")
    table.add_column(f"{report.metric}\nvalidation", justify="right")
    if test:
        table.add_column(f"{report.metric}\nheld-out test", justify="right")
    for cost in costs:
        table.add_column(f"{heading(cost)}\n(ratio)", justify="right")
    rows = [row for row in report.front if row.trial != report.baseline.trial]
    missing = any(row.misses for row in (report.baseline, *rows))
    if missing:
        table.add_column("misses")
    for row in (report.baseline, *rows[:most]):
        cells = _cells(row, report, costs, test) + ([row.missed] if missing else [])
        table.add_row(*cells, style="bold" if row is report.baseline else "")
    if most is not None and len(rows) > most:
        table.caption = f"and {len(rows) - most} more"
    return table


def _cells(row: Row, report: Report, costs: Sequence[str], test: bool) -> list[str]:
    on_front = row.trial in {point.trial for point in report.front}
    bend = ", knee" if row.trial == report.knee else ""
    name = f"{row.kind}{' *' if row is report.baseline and on_front else ''}{bend}"
    cells = [str(row.trial), name, _score(row.validation.get(report.metric)) + _reach(row.interval.get(report.metric))]
    if test:
        cells.append(_score(row.test.get(report.metric)))
    for cost in costs:
        ratio = row.ratio.get(cost)
        shown = (
            f" ({ratio:.2f})" if ratio is not None and ratio >= 0.1 else f" ({ratio:.3f})" if ratio is not None else ""
        )
        cells.append(quantity(cost, row.metrics[cost]) + shown)
    return cells


def importance_table(found: Importance) -> Table:
    """Return what each knob matters for each objective, as shares; in brackets what chance may have given."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("knob", overflow="fold")
    for name in found.objectives:
        table.add_column(heading(name), justify="right")
    for knob, weights in found.knobs.items():
        bold = "bold" if any(weight.clear for weight in weights) else ""
        table.add_row(knob, *(share(weight) for weight in weights), style=bold)
    return table


def tie_lines(report: Report) -> list[str]:
    """Return, for each objective, which points of the front are not told apart by what was measured."""
    found = (
        _like_the_best(report, o) if o.name == report.metric else _groups(report, o.name) for o in report.objectives
    )
    return [line for line in found if line]


def _like_the_best(report: Report, objective: Objective) -> str:
    """Name the points whose score may be as good as the best: unlike costs in boxes, scores do not tie in groups."""
    if not report.front:
        return ""
    best = min(report.front, key=lambda row: objective.box(row.validation[objective.name]))
    others = ", ".join(map(str, best.ties.get(objective.name, ())))
    return f"not told apart from the best {objective.name}, that of trial {best.trial}: {others}" if others else ""


def _groups(report: Report, name: str) -> str:
    groups = dict.fromkeys(tuple(sorted((row.trial, *row.ties[name]))) for row in report.front if row.ties.get(name))
    told = "; ".join(" = ".join(map(str, group)) for group in groups)
    return f"not told apart by {heading(name)}: {told}" if told else ""


def disturbed_line(records: Sequence[TrialRecord]) -> list[str]:
    """Return a line about the trials that are off the front because other processes disturbed their timing."""
    count = sum(crowded(record) for record in records if record.complete and record.kind != BASELINE)
    return [f"off the front, timed while others kept the machine busy: {count}"] if count else []


def _reach(interval: tuple[float, float] | None) -> str:
    """Return half the width of a 95% interval."""
    return "" if interval is None else f" ±{(interval[1] - interval[0]) / 2:.3f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _digits(value: float) -> str:
    """Return three digits that count, and never an exponent for what people read without one."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if 0 < size < 1 else "0" if size == 0 else f"{value:.{1 if size >= 10 else 2}f}"


def saved_lines(figures: Mapping[str, float]) -> Iterator[str]:
    """Yield what a search spared itself, where there is anything to tell."""
    told = {
        "never_trained": "candidates never trained",
        "stopped_early": "trials stopped early",
        "epochs_not_run": f"epochs not run ({figures['epochs_run']:.0f} were)",
        "parents_shared": "trials that went on from another one's parent",
    }
    found = [f"{figures[name]:.0f} {text}" for name, text in told.items() if figures[name] > 0]
    if found:
        yield f"saved: {', '.join(found)}; {clock(figures['training_seconds'])} of training in all"
