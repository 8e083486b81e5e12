"""The sensitivity of a model as one page of heat maps that shows without a network."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from paretrim.tracking.page import chart, whole
from paretrim.tracking.sensitivity import Effect, Profile

# Rises of the loss below the worst by more powers of ten than these are as good as none.
_DECADES = 3


def heatmap_page(title: str, profile: Profile) -> str:
    """Return a self-contained HTML page: layers against values, coloured by the rise of the loss without recovery."""
    return whole(f"{title}: sensitivity", heatmaps(profile, first=True))


def heatmaps(profile: Profile, *, first: bool = False) -> str:
    """Return the maps of a page, one for each family of knobs, with what they show in words.

    Args:
        profile: The sensitivity.
        first: Whether they bring Plotly along.
    """
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a profile

    charts: list[str] = []
    worst = _worst(profile)
    left = 30 + 7 * max((len(place) for places in profile.families().values() for place in places), default=0)
    for family, places in profile.families().items():
        figure = go.Figure(_heatmap(go, places, profile.metric, worst, scale=not charts))
        figure.update_layout(
            template="plotly_white",
            title=f"{family}: change of {profile.metric} and of the loss, without recovery",
            height=140 + 26 * len(places) + (0 if charts else 60),  # the first has the scale beside it
            margin={"l": left, "r": 130, "t": 60, "b": 40},
        )
        figure.update_xaxes(type="category", showgrid=False)
        figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
        charts.append(chart(figure, first=first and not charts))
    return f"<p>{escape(_words(profile))}</p>{''.join(charts)}"


def _words(profile: Profile) -> str:
    # A search's own first look takes no times.
    ms = f", {profile.latency_ms:.4g} ms" if profile.latency_ms > 0 else ""
    return (
        f"Each cell turns one knob alone, on {profile.samples} training samples. Uncompressed: {profile.metric} "
        f"{profile.score:.4f}, loss {profile.loss:.4g}, {profile.weight_bytes / 1e3:,.0f} kB of weights{ms}. Colours mean the "
        "same rise of the loss in all maps. Hover for more."
    )


def _heatmap(go: Any, places: dict[str, list[Effect]], metric: str, worst: float, scale: bool) -> Any:
    values = list(dict.fromkeys(label(effect.value) for effects in places.values() for effect in effects))
    rows = [{label(effect.value): effect for effect in effects} for effects in places.values()]
    cells = [[row.get(value) for value in values] for row in rows]
    return go.Heatmap(
        x=values,
        y=[place or "all" for place in places],
        z=[
            [None if e is None or e.loss_increase is None else _shade(e.loss_increase, worst) for e in r] for r in cells
        ],
        zmin=0,
        zmax=_DECADES,
        colorscale="Reds",
        showscale=scale,
        colorbar={
            "title": "loss",
            "tickvals": list(range(_DECADES + 1)),
            "ticktext": [f"{'' if i else 'to '}{worst / 10 ** (_DECADES - i):+.2g}" for i in range(_DECADES + 1)],
        },
        text=[["" if e is None else _cell(e, worst) for e in row] for row in cells],
        texttemplate="%{text}",
        customdata=[["" if e is None else _hover(e, metric) for e in row] for row in cells],
        hovertemplate="%{customdata}<extra></extra>",
        xgap=2,
        ygap=2,
    )


def _worst(profile: Profile) -> float:
    """Return the largest rise of the loss, 1 where nothing rises."""
    rises = [effect.loss_increase for effect in profile.effects if effect.loss_increase is not None]
    return max((rise for rise in rises if math.isfinite(rise) and rise > 0), default=1.0)


def _shade(rise: float, worst: float) -> float:
    """Return how dark a rise of the loss is, by ratios, so that what is harmless beside the worst stays pale."""
    if not math.isfinite(rise):
        return _DECADES
    share = rise / worst
    return max(0.0, _DECADES + math.log10(share)) if share > 0 else 0.0


def label(value: object) -> str:
    """Return a knob's value as it stands in tables."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(effect: Effect, worst: float) -> str:
    if effect.score_change is None or effect.loss_increase is None:
        return "failed"
    if effect.leaves_all:
        return "same"
    rise = 0.0 if abs(effect.loss_increase) < worst / 10**_DECADES else effect.loss_increase
    return f"{effect.score_change:+.3f}, loss {rise:+.2g}"


def _hover(effect: Effect, metric: str) -> str:
    lines = [f"<b>{escape(effect.knob)} = {escape(label(effect.value))}</b>"]
    if effect.failed:
        return "<br>".join([*lines, escape(effect.failed)])
    lines += [f"{escape(metric)} {effect.score_change:+.4f}", f"loss {effect.loss_increase:+.4g}"]
    lines.append(f"weights {effect.bytes_saved / 1e3:,.1f} kB smaller")
    if effect.ms_saved is not None:
        way = "faster" if effect.ms_saved >= 0 else "slower"
        lines.append(f"{abs(effect.ms_saved):.4g} ms {way} ({'measured' if effect.measured else 'predicted'})")
    return "<br>".join(lines)
