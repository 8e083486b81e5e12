"""What became of each layer of a front's point: its bits, the share of its channels that is kept, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from paretrim.tracking.records import BASELINE, TrialRecord, Value
from paretrim.tracking.report import Report
from paretrim.tracking.tradeoffs import BLUE, GREY

_BITS, _RATIO, _BYTES = "quantization.bits", "pruning.ratio", "model_bytes"
_FULL = 32.0
# Scales and zero points by the dozen would hide the layers.
_LEAST, _REST = 0.005, "all else"
_TITLES = {"bits": "bits of the weights", "kept": "channels kept (%)", "bytes": "stored, unpacked (kB)"}


def layers_chart(report: Report, records: Sequence[TrialRecord]) -> Any | None:
    """Return a Plotly figure with a list to choose the point from, the baseline beside it; None where nothing is known.

    Args:
        report: The front.
        records: All trials.
    """
    import plotly.graph_objects as go  # noqa: PLC0415 - slow to import, needed once a search
    from plotly.subplots import make_subplots  # noqa: PLC0415

    by_number = {record.number: record for record in records}
    base = next((layers_of(r) for r in records if r.kind == BASELINE and r.complete), {})
    shown = {
        row.trial: layers_of(by_number[row.trial]) for row in report.front if by_number[row.trial].kind != BASELINE
    }
    kinds = [kind for kind in _TITLES if any(kind in layers for layers in shown.values())]
    if not shown or not kinds:
        return None
    titles = [_TITLES[kind] for kind in kinds]
    figure = make_subplots(rows=1, cols=len(kinds), subplot_titles=titles, horizontal_spacing=0.12)
    for column, kind in enumerate(kinds, 1):
        if kind in base:
            figure.add_trace(_bars(go, base[kind], "baseline", GREY, column == 1), 1, column)
    whole = len(figure.data)
    for position, (trial, layers) in enumerate(shown.items()):
        for column, kind in enumerate(kinds, 1):
            bars = _bars(go, layers.get(kind, {}), f"trial {trial}", BLUE, column == 1)
            figure.add_trace(bars.update(visible=position == 0), 1, column)
    names = {name for layers in shown.values() for kind in kinds for name in layers.get(kind, {})}
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    return figure.update_layout(
        template="plotly_white",
        height=180 + 20 * max(len(names), 4),
        margin={"t": 90, "r": 20},
        barmode="overlay",
        legend={"orientation": "h", "y": -0.08},
        updatemenus=[_menu(list(shown), len(kinds), whole)],
    )


def layers_of(record: TrialRecord) -> dict[str, dict[str, float]]:
    """Return what is known of a trial's layers: by kind (``bits``, ``kept`` in %, ``bytes`` in kB) the value of each."""
    found = {
        "bits": {place: _bits(value) for place, value in _places(record.recipe, _BITS).items()},
        "kept": {
            place: 100.0 * (1.0 - float(value))
            for place, value in _places(record.recipe, _RATIO).items()
            if isinstance(value, int | float)
        },
        "bytes": _bytes(record),
    }
    return {kind: values for kind, values in found.items() if values}


def _places(recipe: Mapping[str, Value], family: str) -> dict[str, Value]:
    return {
        name.removeprefix(family).lstrip(".") or "all": value
        for name, value in recipe.items()
        if name == family or name.startswith(f"{family}.")
    }


def _bits(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else _FULL


def _bytes(record: TrialRecord) -> dict[str, float]:
    """Return the kilobytes of each layer's tensors, by the name of the layer."""
    sums: dict[str, float] = {}
    for part in next((m.parts for m in record.measurements if m.name == _BYTES), ()):
        layer = part.name.rpartition(".")[0] or part.name
        sums[layer] = sums.get(layer, 0.0) + part.value / 1e3
    whole = sum(sums.values())
    shown = {layer: size for layer, size in sums.items() if size >= _LEAST * whole}
    rest = whole - sum(shown.values())
    return {**shown, _REST: rest} if rest > 0 else shown


def _bars(go: Any, values: Mapping[str, float], name: str, colour: str, first: bool) -> Any:
    return go.Bar(
        y=[escape(place) for place in values],
        x=list(values.values()),
        orientation="h",
        name=name,
        legendgroup=name,
        showlegend=first,
        marker={"color": colour, "opacity": 0.4 if colour == GREY else 0.9},
        hovertemplate="%{y}: %{x:.4g}<extra>" + escape(name) + "</extra>",
    )


def _menu(trials: Sequence[int], kinds: int, whole: int) -> dict[str, Any]:
    """Return a list that shows one trial's bars at a time, and the baseline's always."""
    buttons = []
    for position, trial in enumerate(trials):
        shown = [True] * whole + [at // kinds == position for at in range(len(trials) * kinds)]
        buttons.append({"label": f"trial {trial}", "method": "update", "args": [{"visible": shown}]})
    return {"buttons": buttons, "x": 0.0, "y": 1.12, "xanchor": "left", "yanchor": "bottom", "direction": "down"}
