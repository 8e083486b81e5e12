"""What all pages have in common: one HTML file that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:24px;color:#1f2328}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:4px 14px;text-align:right;border-bottom:1px solid #d8dee4}th{font-weight:600}"
)
MARKED = "the trial under the mouse"
"""Name of the traces, one in each plot and empty, that ring the trial under the mouse in all plots of a figure."""
# Plotly shows one label at a time, so the trial is ringed in the other plots rather than labelled there.
_LINKED = """
const page = document.getElementById('{plot_id}');
const rings = page.data.map((trace, number) => number).filter((number) => page.data[number].name === 'MARKED');
const ring = (trial) => {
  const x = [], y = [];
  rings.forEach((number) => {
    const own = page.data[number];
    const found = page.data.find((trace) => !rings.includes(page.data.indexOf(trace)) && trace.xaxis === own.xaxis
      && trace.yaxis === own.yaxis && (trace.customdata || []).indexOf(trial) >= 0);
    const at = found === undefined ? -1 : found.customdata.indexOf(trial);
    x.push(at < 0 ? [] : [found.x[at]]);
    y.push(at < 0 ? [] : [found.y[at]]);
  });
  Plotly.restyle(page, {x, y}, rings);
};
page.on('plotly_hover', (event) => ring(event.points[0].customdata));
page.on('plotly_unhover', () => ring(null));
""".replace("MARKED", MARKED)


def whole(title: str, body: str) -> str:
    """Return a page.

    Args:
        title: Its title, as plain text.
        body: What it shows, as HTML.
    """
    name = escape(title)
    head = f"<meta charset='utf-8'><style>{_STYLE}</style>"
    return f"<!doctype html><html><head><title>{name}</title>{head}</head><body><h1>{name}</h1>{body}</body></html>"


def chart(figure: Any, *, first: bool = False, linked: bool = False) -> str:
    """Return a Plotly figure as HTML.

    Args:
        figure: The figure.
        first: Whether it brings Plotly along; the first one of a page does.
        linked: Whether a trial under the mouse is shown in all its plots.
    """
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        config={"displaylogo": False},
        post_script=_LINKED if linked else None,
    )
    return html


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its heading first."""
    head, *others = rows
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in cells) for cells in others]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
