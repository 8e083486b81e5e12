"""The front as one interactive page that shows without a network."""

from __future__ import annotations

from html import escape

from paretrim.tracking.heatmap import heatmaps
from paretrim.tracking.layer_plots import layers_chart
from paretrim.tracking.page import chart, table, whole
from paretrim.tracking.search_plots import importance_chart, importance_words, progress_chart
from paretrim.tracking.tracker import Summary
from paretrim.tracking.tradeoffs import bounds_of, costs_of, figure, layers_of


def front_page(summary: Summary) -> str:
    """Return a self-contained HTML page: the metric against each cost, trials, front and baseline."""
    report = summary.report
    layers = layers_of(report, summary.records, summary.picked)
    bounds = bounds_of(summary.constraints, {**report.baseline.validation, **report.baseline.metrics})
    return _page(summary, chart(figure(layers, report.metric, costs_of(report), bounds), first=True, linked=True))


def _page(summary: Summary, trade_offs: str) -> str:
    body = f"{trade_offs}{_table(summary)}{_layers(summary)}{_course(summary)}"
    return whole(f"{summary.report.job}: the front", body)


def _layers(summary: Summary) -> str:
    """Return what became of each layer, where that is known."""
    found = layers_chart(summary.report, summary.records)
    return "" if found is None else f"<h2>Layer by layer</h2>{chart(found)}"


def _course(summary: Summary) -> str:
    """Return how the search got on and what its knobs matter, where the summary has them."""
    parts = []
    if summary.progress:
        parts += ["<h2>The course of the search</h2>", chart(progress_chart(summary.progress))]
    if summary.importance is not None:
        parts += ["<h2>What the knobs matter</h2>", f"<p>{escape(importance_words(summary.importance))}</p>"]
        parts += [chart(importance_chart(summary.importance))] if summary.importance.knobs else []
    if summary.sensitivity is not None and summary.sensitivity.effects:
        parts += ["<h2>What each knob does alone</h2>", heatmaps(summary.sensitivity)]
    return "".join(parts)


def _table(summary: Summary) -> str:
    report = summary.report
    costs = [o.name for o in report.objectives if o.name != report.metric]
    names = [
        "trial",
        "kind",
        f"validation {report.metric}",
        f"test {report.metric}",
        *costs,
        *(f"{c}, ratio" for c in costs),
    ]
    rows = []
    for row in (report.baseline, *(r for r in report.front if r.trial != report.baseline.trial)):
        cells = [
            str(row.trial),
            f"{row.kind}, knee" if row.trial == report.knee else row.kind,
            _number(row.validation.get(report.metric)),
            _number(row.test.get(report.metric)),
        ]
        cells += [_number(row.metrics.get(cost)) for cost in costs]
        cells += [_number(row.ratio.get(cost)) for cost in costs]
        rows.append(cells)
    return table([names, *rows])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
