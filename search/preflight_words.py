"""A preflight in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from paretrim.search.forecast import Attempt, Estimate
from paretrim.search.job import Job
from paretrim.search.preflight import Checked
from paretrim.search.words import clock, heading, quantity


def lines(job: Job, checked: Checked) -> Iterator[RenderableType]:
    """Yield what was found, to be printed."""
    yield _table(checked)
    for text in checked.warnings:
        yield Text(f"note: {text}", style="yellow")
    for text in checked.problems:
        yield Text(f"problem: {text}", style="red")
    if checked.estimate is not None:
        yield _estimate(job, checked.estimate)
    count = len(checked.problems)
    yield Text(
        f"{count} problem{'s' if count != 1 else ''}: a search of this job would fail or disappoint"
        if count
        else f"no problems: `paretrim search` can run this job, over {checked.knobs} knobs",
        style="bold",
    )


def _table(checked: Checked) -> Table:
    """Return what was measured of the ends of the space; their scores are those of a few batches' training."""
    table = Table("recipe", f"{checked.metric}, torch", "artifact", box=None, pad_edge=False)
    names = [name for name in ("latency_ms", "size_bytes", "memory_bytes") if _any(checked, name)]
    for name in names:
        table.add_column(heading(name), justify="right")
    table.add_column("an epoch", justify="right")
    table.add_column("all else", justify="right")
    for each in checked.attempts:
        table.add_row(*_cells(checked, each, names))
    return table


def _any(checked: Checked, name: str) -> bool:
    return any(name in each.metrics for each in checked.attempts)


def _cells(checked: Checked, each: Attempt, names: list[str]) -> list[str]:
    if each.cause:
        return [each.name, "failed", *[""] * (len(names) + 3)]
    costs = [quantity(name, each.metrics[name]) if name in each.metrics else "" for name in names]
    epoch = "" if each.name == "baseline" else f"{each.epoch_s:.1f} s"
    score = f"{each.metrics[checked.metric]:.4f}"
    return [each.name, f"{each.torch_score:.4f}", score, *costs, epoch, f"{each.other_s:.1f} s"]


def _estimate(job: Job, estimate: Estimate) -> Text:
    finals = job.search.finals.points * job.search.finals.seeds
    last = f" and {finals} in the last phase" if finals else ""
    return Text(
        f"if no trial is stopped early, {job.budget.trials} trials{last} take about {clock(estimate.wall_s)} with "
        f"{job.budget.parallel} at a time, {clock(estimate.training_s)} of training in all, and "
        f"{estimate.disk_bytes / 1e6:.0f} MB on disk; the longest trial takes about {clock(estimate.trial_s)}"
    )
