"""Trade-offs as layers of points: what all pictures of a front have in common, on a page or in a file.

Layers differ in shape and not by colour alone, and the colours are Okabe and Ito's, which the colour-blind tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from paretrim.tracking.constraints import Constraint
from paretrim.tracking.page import MARKED
from paretrim.tracking.records import BASELINE, TrialRecord
from paretrim.tracking.report import Report

LABELS = {
    "latency_ms": ("latency (ms)", 1.0),
    "size_bytes": ("size of the shipped file (kB)", 1e-3),
    "memory_bytes": ("memory (MB)", 1e-6),
    "energy_millijoules": ("energy (mJ)", 1.0),
}
GREY, BLUE, ORANGE, GREEN = "#9aa0aa", "#0072b2", "#d55e00", "#009e73"


@dataclass(frozen=True)
class Point:
    """A trial in a picture.

    Attributes:
        trial: Its number.
        values: Its metrics.
        interval: Their 95% intervals, where they have one.
        text: What is shown under the mouse, as HTML.
    """

    trial: int
    values: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Layer:
    """Points that look alike.

    Attributes:
        name: What the legend says.
        points: The points.
        colour: Their colour.
        shape: ``circle``, ``ring``, ``star``, ``square`` or ``diamond``.
        size: Their diameter, in pixels.
        bars: Whether their intervals are drawn.
    """

    name: str
    points: Sequence[Point]
    colour: str
    shape: str
    size: float
    bars: bool = False


@dataclass(frozen=True)
class Bound:
    """A constraint in a picture: what lies beyond is shaded.

    Attributes:
        metric: What it bounds.
        limit: Where.
        upper: Whether it bounds from above.
        soft: Whether it only steers.
    """

    metric: str
    limit: float
    upper: bool
    soft: bool


def label(name: str) -> tuple[str, float]:
    """Return what an axis says of a metric, and what its values are multiplied by for that unit."""
    return LABELS.get(name, (name, 1.0))


def costs_of(report: Report) -> list[str]:
    """Return the metrics that the score is drawn against."""
    scores = (report.metric, f"{report.metric}_cv")
    return [o.name for o in report.objectives if o.name not in scores] or ["latency_ms"]


def bounds_of(constraints: Iterable[Constraint], baseline: Mapping[str, float]) -> list[Bound]:
    """Return constraints as they are drawn.

    Args:
        constraints: Of the job.
        baseline: The baseline's measurements.
    """
    return [Bound(each.metric, each.limit(baseline), each.upper, each.soft) for each in constraints]


def layers_of(report: Report, records: Sequence[TrialRecord], picked: int | None = None) -> list[Layer]:
    """Return a search as layers: all trials, the front, the baseline, the knee, and what would be exported by default."""
    front = {row.trial for row in report.front}
    done = [record for record in records if record.complete]

    def those(numbers: Collection[int | None]) -> list[Point]:
        return [_point(r) for r in done if r.number in numbers and r.kind != BASELINE]

    layers = [
        Layer("trials", those({r.number for r in done} - front), GREY, "circle", 8),
        Layer("front", those(front), BLUE, "circle", 11, bars=True),
        Layer("baseline", [_point(r) for r in done if r.kind == BASELINE], ORANGE, "star", 15, bars=True),
    ]
    if report.knee is not None:
        layers.append(Layer("knee", those({report.knee}), BLUE, "ring", 19))
    if picked is not None:
        layers.append(Layer("picked", those({picked}), GREEN, "diamond", 13))
    return layers


def figure(layers: Sequence[Layer], metric: str, costs: Sequence[str], bounds: Sequence[Bound] = ()) -> Any:
    """Return a Plotly figure: the score against each cost."""
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a search
    from plotly.subplots import make_subplots  # noqa: PLC0415

    found = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.04)
    up = span(layers, metric, "linear")
    for column, cost in enumerate(costs, 1):
        for layer in layers:
            found.add_trace(_trace(go, layer, cost, metric, shown=column == 1), 1, column)
        found.add_trace(_ring(go), 1, column)
        kind = scale(layers, cost)
        across = span(layers, cost, kind)
        ends = [math.log10(end) for end in across] if kind == "log" else list(across)
        title = label(cost)[0]
        found.update_xaxes(title_text=title, row=1, col=column, type=kind, range=ends, minorloglabels="complete")
        for bound in bounds:
            if bound.metric == metric:
                _shade(found.add_hline, found.add_hrect, "y", bound, bound.limit, up, column)
            elif bound.metric == cost:
                _shade(found.add_vline, found.add_vrect, "x", bound, bound.limit * label(cost)[1], across, column)
    found.update_yaxes(range=list(up))
    found.update_yaxes(title_text=f"validation {metric}", row=1, col=1)
    return found.update_layout(
        template="plotly_white",
        height=520,
        legend={"orientation": "h", "y": 1.08},
        margin={"t": 40, "r": 20},
        hoverlabel={"align": "left"},
    )


def _ring(go: Any) -> Any:
    """Return the trace that rings the trial under the mouse, which has no point yet."""
    marker = {"color": "#000000", "symbol": "circle-open", "size": 22, "line": {"width": 2}}
    return go.Scatter(x=[], y=[], mode="markers", marker=marker, name=MARKED, hoverinfo="skip", showlegend=False)


def scale(layers: Sequence[Layer], cost: str) -> str:
    """Return ``log``, or ``linear`` where a value is zero: a logarithmic axis has no place for it."""
    return "log" if all(p.values[cost] > 0 for layer in layers for p in layer.points) else "linear"


def _trace(go: Any, layer: Layer, cost: str, metric: str, *, shown: bool) -> Any:
    factor = label(cost)[1]
    symbol = "circle-open" if layer.shape == "ring" else layer.shape
    return go.Scatter(
        x=[p.values[cost] * factor for p in layer.points],
        y=[p.values[metric] for p in layer.points],
        error_x=_bars(layer, cost, factor),
        error_y=_bars(layer, metric, 1.0),
        mode="markers",
        marker={"color": layer.colour, "symbol": symbol, "size": layer.size},
        text=[p.text for p in layer.points],
        customdata=[p.trial for p in layer.points],
        hovertemplate="%{text}<extra></extra>",
        name=layer.name,
        legendgroup=layer.name,
        showlegend=shown,
    )


def reaches(layer: Layer, metric: str, factor: float) -> tuple[list[float], list[float]] | None:
    """Return how far the intervals of a layer's points reach below and above them; None where nothing is drawn."""
    ends = [(p.values[metric], p.interval.get(metric)) for p in layer.points]
    if not layer.bars or not any(end for _, end in ends):
        return None
    below = [max(0.0, value - end[0]) * factor if end else 0.0 for value, end in ends]
    return below, [max(0.0, end[1] - value) * factor if end else 0.0 for value, end in ends]


def _bars(layer: Layer, metric: str, factor: float) -> dict[str, Any] | None:
    found = reaches(layer, metric, factor)
    if found is None:
        return None
    below, above = found
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}


def span(layers: Sequence[Layer], metric: str, kind: str) -> tuple[float, float]:
    """Return from where to where an axis goes, in its unit: all points with their intervals, and some room."""
    factor = label(metric)[1]
    values = [p.values[metric] * factor for layer in layers for p in layer.points]
    for layer in layers:
        below, above = reaches(layer, metric, factor) or ([], [])
        own = [p.values[metric] * factor for p in layer.points]
        values += [v - r for v, r in zip(own, below, strict=False) if kind != "log" or v > r]
        values += [v + r for v, r in zip(own, above, strict=False)]
    low, high = min(values, default=0.1), max(values, default=1.0)
    if kind == "log":
        room = max((high / low) ** 0.06, 1.05)
        return low / room, high * room
    room = max(0.06 * (high - low), 0.01 * abs(high), 1e-9)
    return low - room, high + room


def _shade(
    line: Any, rectangle: Any, axis: str, bound: Bound, at: float, ends: tuple[float, float], column: int
) -> None:
    """Shade what a hard bound forbids of an axis, as far as it goes; a soft one is a dotted line."""
    if not ends[0] < at < ends[1]:
        return
    where = {"row": 1, "col": column}
    line(**{axis: at}, line_width=1, line_dash="dot" if bound.soft else "dash", line_color=GREY, **where)
    if not bound.soft:
        low, high = (at, ends[1]) if bound.upper else (ends[0], at)
        rectangle(
            **{f"{axis}0": low, f"{axis}1": high}, fillcolor=GREY, opacity=0.12, line_width=0, layer="below", **where
        )


def _point(record: TrialRecord) -> Point:
    interval = {m.name: (m.low, m.high) for m in record.measurements if m.low is not None and m.high is not None}
    return Point(record.number, record.metrics, interval, _hover(record))


def _hover(record: TrialRecord) -> str:
    metrics = "<br>".join(
        f"{escape(name)} {value:.6g}" for name, value in record.metrics.items() if name != "latency_crowded"
    )
    recipe = "<br>".join(f"{escape(name)} {_short(value)}" for name, value in record.recipe.items())
    return f"<b>trial {record.number} ({escape(record.kind)})</b><br>{metrics}<br><br>{recipe}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
