"""The front as one interactive page that shows without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.search_plots import importance_chart, importance_words, progress_chart
from paretrim.tracking.tracker import Summary

_LABELS = {
    "latency_ms": ("latency (ms)", 1.0),
    "size_bytes": ("size of the shipped file (kB)", 1e-3),
    "memory_bytes": ("memory (MB)", 1e-6),
}
_GREY, _BLUE, _RED = "#b5b9c2", "#1f6feb", "#d1242f"


def front_page(summary: Summary) -> str:
    """Return a self-contained HTML page: the metric against each cost, trials, front and baseline."""
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a search
    from plotly.subplots import make_subplots  # noqa: PLC0415

    report = summary.report
    costs = [o.name for o in report.objectives if o.name != report.metric] or ["latency_ms"]
    figure = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.04)
    front = {row.trial for row in report.front}
    done = [r for r in summary.records if r.complete]
    layers = (
        ("trials", [r for r in done if r.number not in front and r.kind != BASELINE], _GREY, "circle", 8),
        ("front", [r for r in done if r.number in front and r.kind != BASELINE], _BLUE, "circle", 11),
        ("baseline", [r for r in done if r.kind == BASELINE], _RED, "star", 15),
        *(
            [("knee", [r for r in done if r.number == report.knee], _BLUE, "circle-open", 19)]
            if report.knee is not None
            else []
        ),
    )
    for column, cost in enumerate(costs, 1):
        # A logarithmic axis has no place for zero.
        scale = "log" if all(r.metrics[cost] > 0 for r in done) else "linear"
        for name, records, color, symbol, size in layers:
            trace = _points(go, records, cost, report.metric, {"color": color, "symbol": symbol, "size": size})
            figure.add_trace(trace.update(name=name, legendgroup=name, showlegend=column == 1), 1, column)
        figure.update_xaxes(
            title_text=_LABELS.get(cost, (cost, 1.0))[0], row=1, col=column, type=scale, minorloglabels="complete"
        )
    figure.update_yaxes(title_text=f"validation {report.metric}", row=1, col=1)
    figure.update_layout(
        template="plotly_white",
        height=520,
        legend={"orientation": "h", "y": 1.08},
        margin={"t": 40, "r": 20},
        hoverlabel={"align": "left"},
    )
    return _page(summary, _html(figure, first=True))


def _html(figure: Any, *, first: bool = False) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return html


def _points(go: Any, records: Sequence[TrialRecord], cost: str, metric: str, marker: dict[str, Any]) -> Any:
    factor = _LABELS.get(cost, ("", 1.0))[1]
    return go.Scatter(
        x=[r.metrics[cost] * factor for r in records],
        y=[r.metrics[metric] for r in records],
        error_y=_error_bars(records, metric) if marker["symbol"] == "star" or marker["color"] == _BLUE else None,
        mode="markers",
        marker=marker,
        text=[_hover(r) for r in records],
        hovertemplate="%{text}<extra></extra>",
    )


def _error_bars(records: Sequence[TrialRecord], metric: str) -> dict[str, Any] | None:
    intervals = [next(m for m in r.measurements if m.name == metric) for r in records]
    if any(m.low is None or m.high is None for m in intervals):
        return None
    up = [(m.high or 0.0) - m.value for m in intervals]
    down = [m.value - (m.low or 0.0) for m in intervals]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 2}


def _hover(record: TrialRecord) -> str:
    metrics = "<br>".join(
        f"{escape(name)} {value:.6g}" for name, value in record.metrics.items() if name != "latency_crowded"
    )
    recipe = "<br>".join(f"{escape(name)} {_short(value)}" for name, value in record.recipe.items())
    return f"<b>trial {record.number} ({escape(record.kind)})</b><br>{metrics}<br><br>{recipe}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _page(summary: Summary, chart: str) -> str:
    title = f"{escape(summary.report.job)}: the front"
    head = (
        "<meta charset='utf-8'><style>body{font:15px system-ui,sans-serif;margin:24px;color:#1f2328}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "th,td{padding:4px 14px;text-align:right;border-bottom:1px solid #d8dee4}th{font-weight:600}</style>"
    )
    body = f"<h1>{title}</h1>{chart}{_table(summary)}{_course(summary)}"
    return f"<!doctype html><html><head><title>{title}</title>{head}</head><body>{body}</body></html>"


def _course(summary: Summary) -> str:
    """Return how the search got on and what its knobs matter, where the summary has them."""
    parts = []
    if summary.progress:
        parts += ["<h2>The course of the search</h2>", _html(progress_chart(summary.progress))]
    if summary.importance is not None:
        parts += ["<h2>What the knobs matter</h2>", f"<p>{escape(importance_words(summary.importance))}</p>"]
        parts += [_html(importance_chart(summary.importance))] if summary.importance.knobs else []
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
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
