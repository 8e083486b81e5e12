"""How a search got on and what its knobs matter, as charts for the summary's page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.progress import Step

_BLUE = "#1f6feb"
_MOST_KNOBS = 40


def progress_chart(steps: Sequence[Step]) -> Any:
    """Return a Plotly figure: the hypervolume over the trials, and over the seconds spent training."""
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a search
    from plotly.subplots import make_subplots  # noqa: PLC0415

    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    hover = [f"trial {s.trial} ({s.state})<br>{s.hypervolume:.4f} after {s.training_seconds:.1f} s" for s in steps]
    axes = (([s.trial for s in steps], "trial"), ([s.training_seconds for s in steps], "seconds spent training"))
    for column, (x, title) in enumerate(axes, 1):
        line = go.Scatter(
            x=x,
            y=[s.hypervolume for s in steps],
            mode="lines+markers",
            line={"shape": "hv", "color": _BLUE},
            marker={"size": 4},
            text=hover,
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(line, 1, column)
        figure.update_xaxes(title_text=title, row=1, col=column, rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume", row=1, col=1, rangemode="tozero")
    return figure.update_layout(template="plotly_white", height=340, margin={"t": 20, "r": 20})


def importance_chart(found: Importance) -> Any:
    """Return a Plotly figure: a heat map of knobs against objectives; what chance may have given is in brackets."""
    import plotly.graph_objects as go  # noqa: PLC0415 - as above

    knobs = dict(list(found.knobs.items())[:_MOST_KNOBS])
    heat = go.Heatmap(
        x=list(found.objectives),
        y=[escape(name) for name in knobs],
        z=[[weight.share if weight.clear else 0.0 for weight in weights] for weights in knobs.values()],
        zmin=0.0,
        zmax=1.0,
        colorscale="Blues",
        showscale=False,
        text=[[share(weight) for weight in weights] for weights in knobs.values()],
        texttemplate="%{text}",
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure = go.Figure(heat)
    figure.update_yaxes(type="category", autorange="reversed", automargin=True)
    figure.update_xaxes(type="category", side="top")
    return figure.update_layout(
        template="plotly_white", height=100 + 26 * len(knobs), margin={"l": 20, "r": 20, "t": 60, "b": 20}
    )


def share(weight: Weight) -> str:
    """Return a weight as a percentage, in brackets where it is not more than chance gives."""
    return f"{weight.share:.0%}" if weight.clear else f"({weight.share:.0%})"


def importance_words(found: Importance) -> str:
    """Return what the numbers are, in a sentence or two."""
    if found.why_none:
        return f"Nothing is told of the knobs: {found.why_none}."
    return (
        f"Each knob's share of what sets the best of {found.trials} trials apart in an objective, by PED-ANOVA. In "
        "brackets: not more than chance gives in so few trials. It is what went together in the trials that were made: a "
        "sampler moves all knobs at once, so a knob can stand out for another."
    )
