"""Drawing fronts into files."""

from __future__ import annotations

from pathlib import Path

from paretrim.errors import UsageError
from paretrim.search.comparison import SideBySide
from paretrim.search.comparison_words import notes, rows
from paretrim.search.result import Result
from paretrim.tracking import comparison_page, tradeoff_image
from paretrim.tracking.front import baseline_metrics
from paretrim.tracking.page import chart, whole
from paretrim.tracking.tradeoffs import bounds_of, costs_of, figure, layers_of

_PAGE = ".html"


def draw_front(result: Result, file: Path) -> None:
    """Draw a search's front: all trials, the front with its intervals, the baseline, the knee and the bounds.

    Args:
        result: The search.
        file: Where to; the end of its name says how.

    Raises:
        UsageError: The name has another end, or the file cannot be written.
        NothingFoundError: The baseline is not done.
    """
    report = result.require_report()
    layers, costs = layers_of(report, result.records), costs_of(report)
    bounds = bounds_of(result.job.bounds, baseline_metrics(result.records))
    if _is_page(file):
        _write(
            file, whole(f"{result.name}: the front", chart(figure(layers, report.metric, costs, bounds), first=True))
        )
    else:
        tradeoff_image.draw(layers, report.metric, costs, bounds, f"{result.name}: the front", file)


def draw_comparison(found: SideBySide, file: Path) -> None:
    """Draw two fronts; as a page, with what is told of them.

    Raises:
        UsageError: The name has another end, or the file cannot be written.
    """
    fronts = {side.job: side.front for side in found.sides}
    costs = [o.name for o in found.objectives if o.name not in (found.metric, f"{found.metric}_cv")]
    layers = comparison_page.layers_of(fronts, found.metric, found.baseline)
    if _is_page(file):
        _write(file, comparison_page.page(layers, found.metric, costs, rows(found), list(notes(found))))
    else:
        comparison_page.image(layers, found.metric, costs, file)


def _is_page(file: Path) -> bool:
    allowed = (*tradeoff_image.SUFFIXES, _PAGE)
    if file.suffix not in allowed:
        raise UsageError(f"--plot: '{file.name}' ends in none of {', '.join(allowed)}, which say how to draw")
    if not file.parent.is_dir():
        raise UsageError(f"--plot: there is no folder '{file.parent}'; make it first")
    return file.suffix == _PAGE


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--plot: cannot write '{file}': {error.strerror}") from None
