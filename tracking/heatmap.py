"""The sensitivity of a model as one page of heat maps that shows without a network."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from paretrim.tracking.sensitivity import Effect, Profile


def heatmap_page(title: str, profile: Profile) -> str:
    """Return a self-contained HTML page: layers against values, coloured by the rise of the loss without recovery."""
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a profile

    charts: list[str] = []
    for family, places in profile.families().items():
        figure = go.Figure(_heatmap(go, places, profile.metric))
        figure.update_layout(
            template="plotly_white",
            title=f"{family}: change of {profile.metric} and of the loss, without recovery",
            height=140 + 26 * len(places),
            margin={"l": 20, "r": 20, "t": 60, "b": 40},
        )
        figure.update_xaxes(type="category")
        figure.update_yaxes(type="category", autorange="reversed", automargin=True)
        charts.append(figure.to_html(full_html=False, include_plotlyjs=not charts, config={"displaylogo": False}))
    said = (
        f"Each cell turns one knob alone, on {profile.samples} training samples. Uncompressed: {profile.metric} "
        f"{profile.score:.4f}, loss {profile.loss:.4g}, {profile.weight_bytes / 1e3:,.0f} kB of weights, "
        f"{profile.latency_ms:.4g} ms. Hover for loss, bytes and time."
    )
    head = "<meta charset='utf-8'><style>body{font:15px system-ui,sans-serif;margin:24px;color:#1f2328}</style>"
    body = f"<h1>{escape(title)}: sensitivity</h1><p>{escape(said)}</p>{''.join(charts)}"
    return (
        f"<!doctype html><html><head><title>{escape(title)}: sensitivity</title>{head}</head><body>{body}</body></html>"
    )


def _heatmap(go: Any, places: dict[str, list[Effect]], metric: str) -> Any:
    values = list(dict.fromkeys(label(effect.value) for effects in places.values() for effect in effects))
    rows = [{label(effect.value): effect for effect in effects} for effects in places.values()]
    cells = [[row.get(value) for value in values] for row in rows]
    losses = [[None if e is None else e.loss_increase for e in row] for row in cells]
    worst = max((loss for row in losses for loss in row if loss is not None and math.isfinite(loss)), default=0.0)
    return go.Heatmap(
        x=values,
        y=[place or "all" for place in places],
        z=losses,
        zmin=0.0,
        zmax=worst if worst > 0 else 1.0,
        colorscale="Reds",
        colorbar={"title": "loss"},
        text=[["" if e is None else _cell(e) for e in row] for row in cells],
        texttemplate="%{text}",
        customdata=[["" if e is None else _hover(e, metric) for e in row] for row in cells],
        hovertemplate="%{customdata}<extra></extra>",
        xgap=2,
        ygap=2,
    )


def label(value: object) -> str:
    """Return a knob's value as it stands in tables."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(effect: Effect) -> str:
    return "failed" if effect.score_change is None else f"{effect.score_change:+.3f}, loss {effect.loss_increase:+.2g}"


def _hover(effect: Effect, metric: str) -> str:
    lines = [f"<b>{escape(effect.knob)} = {escape(label(effect.value))}</b>"]
    if effect.failed:
        return "<br>".join([*lines, escape(effect.failed)])
    lines += [f"{escape(metric)} {effect.score_change:+.4f}", f"loss {effect.loss_increase:+.4g}"]
    lines.append(f"weights {effect.bytes_saved / 1e3:,.1f} kB smaller")
    if effect.ms_saved is not None:
        lines.append(f"{effect.ms_saved:.4g} ms faster ({'measured' if effect.measured else 'predicted'})")
    return "<br>".join(lines)
