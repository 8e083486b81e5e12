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
# A point under the mouse is shown in all plots of the figure.
_LINKED = """
const page = document.getElementById('{plot_id}');
let linking = false;
page.on('plotly_hover', (event) => {
  if (linking) return;
  const trial = event.points[0].customdata;
  const same = [];
  const plots = new Set();
  page.data.forEach((trace, curveNumber) => {
    const plot = (trace.xaxis || 'x') + (trace.yaxis || 'y');
    const pointNumber = (trace.customdata || []).indexOf(trial);
    if (pointNumber >= 0 && !plots.has(plot)) {
      plots.add(plot);
      same.push({curveNumber, pointNumber});
    }
  });
  linking = true;
  Plotly.Fx.hover(page, same, [...plots]);
  linking = false;
});
"""


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
