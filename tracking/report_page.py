"""A search on one page, small enough to be sent to somebody who has no access to it: a picture, a table, and how it was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from paretrim.tracking.page import table, whole
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.report import Report, Row, row_of
from paretrim.tracking.tracker import Summary
from paretrim.tracking.tradeoff_image import draw
from paretrim.tracking.tradeoffs import bounds_of, costs_of, label, layers_of

# What anyone would try first stands in every table.
_ANCHORS = ("float16", "int8")
_MACHINE = ("runtime", "threads", "batch", "cpu", "cpu_cores", "gpu", "system", "torch", "paretrim", "commit")


def report_page(summary: Summary) -> str:
    """Return the page."""
    report = summary.report
    parts = [
        f"<p>{escape(_sentence(summary))}</p>",
        _picture(summary),
        "<h2>The models to look at</h2>",
        table(_rows(summary)),
        "<p>Choices were made by validation scores; the held-out test data was scored once, at the end. Costs are of the file "
        "that ships, with ratios to the uncompressed model in brackets.</p>",
        "<h2>How it was found</h2>",
        table([["", ""], *_facts(summary)]),
    ]
    return whole(f"{report.job}: what was found", "".join(parts))


def _sentence(summary: Summary) -> str:
    report, base = summary.report, summary.report.baseline
    picked = next((row for row in report.front if row.trial == summary.picked), None)
    if picked is None:
        return (
            f"Of {len(summary.records)} trials, {len(report.front)} are on the front, and none of them is within what is "
            "exported by default."
        )
    gains = [
        f"{_words(cost)} {base.metrics[cost] / picked.metrics[cost]:.1f} times less"
        for cost in costs_of(report)
        if picked.metrics.get(cost)
    ]
    before, after = base.validation[report.metric], picked.validation[report.metric]
    return (
        f"Trial {picked.trial} of {len(summary.records)} has a validation {report.metric} of {after:.4f} where the "
        f"uncompressed model has {before:.4f}, with {', '.join(gains)}."
    )


def _words(cost: str) -> str:
    return label(cost)[0].partition(" (")[0]


def _picture(summary: Summary) -> str:
    """Return the trade-offs as an image in the page."""
    report = summary.report
    bounds = bounds_of(summary.constraints, {**report.baseline.validation, **report.baseline.metrics})
    layers = layers_of(report, summary.records, summary.picked)
    with TemporaryDirectory(prefix="paretrim-") as folder:
        file = Path(folder) / "front.svg"
        draw(layers, report.metric, costs_of(report), bounds, "", file)
        text = file.read_text(encoding="utf-8")
    # Inside of a page the heading of an XML document has no place.
    return f"<div style='max-width:1100px'>{text[text.index('<svg') :]}</div>"


def _rows(summary: Summary) -> list[list[str]]:
    report = summary.report
    costs = costs_of(report)
    head = ["", "trial", f"validation {report.metric}", f"test {report.metric}", *(label(cost)[0] for cost in costs)]
    return [head, *(_cells(name, row, report, costs) for name, row in _shown(summary))]


def _shown(summary: Summary) -> Iterator[tuple[str, Row]]:
    report = summary.report
    yield "uncompressed", report.baseline
    reference = {**report.baseline.validation, **report.baseline.metrics}
    for record in summary.records:
        if record.kind in _ANCHORS and record.complete:
            yield f"plain {record.kind}", row_of(record, report.metric, reference, {})
    names: dict[int, list[str]] = {}
    for model in summary.models:
        names.setdefault(model.trial, []).extend(model.aliases)
    if report.knee is not None:
        names.setdefault(report.knee, []).append("knee")
    for row in report.front:
        if row.trial in names:
            yield ", ".join(names[row.trial]), row


def _cells(name: str, row: Row, report: Report, costs: Sequence[str]) -> list[str]:
    ends = row.interval.get(report.metric)
    reach = "" if ends is None else f" ±{(ends[1] - ends[0]) / 2:.3f}"
    test = row.test.get(report.metric)
    cells = [name, str(row.trial), f"{row.validation[report.metric]:.4f}{reach}", "" if test is None else f"{test:.4f}"]
    for cost in costs:
        ratio = row.ratio.get(cost)
        shown = "" if ratio is None else f" ({ratio:.3g})"
        cells.append(f"{row.metrics[cost] * label(cost)[1]:.4g}{shown}" if cost in row.metrics else "")
    return cells


def _facts(summary: Summary) -> Iterator[list[str]]:
    figures = summary.figures
    stopped, failed = figures.get("trials_stopped", 0.0), figures.get("trials_failed", 0.0)
    yield ["trials", f"{len(summary.records)}, of which {stopped:.0f} were stopped early and {failed:.0f} failed"]
    yield ["hypervolume", f"{figures.get('hypervolume', 0.0):.4f} of a box that the uncompressed model fixes"]
    if "training_seconds" in figures:
        yield ["training in all", f"{figures['training_seconds']:.0f} s"]
    if summary.constraints:
        yield ["constraints", "; ".join(each.text for each in summary.constraints)]
    environment = _environment(summary.records)
    yield from ([name.replace("_", " "), environment[name]] for name in _MACHINE if environment.get(name))
    yield from ([name, text] for name, text in summary.notes.items() if name not in ("job", "state"))


def _environment(records: Sequence[TrialRecord]) -> Mapping[str, str]:
    return next((record.environment for record in records if record.kind == BASELINE), {})
