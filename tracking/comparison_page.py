"""Two fronts in one figure, on a page that shows without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from paretrim.tracking.page import chart, table, whole
from paretrim.tracking.tradeoff_image import draw
from paretrim.tracking.tradeoffs import BLUE, GREEN, ORANGE, Layer, Point, figure

Front = Mapping[int, Mapping[str, float]]


def layers_of(fronts: Mapping[str, Front], metric: str, baseline: Mapping[str, float]) -> list[Layer]:
    """Return two fronts, each in a shape of its own, and the baseline."""
    styles = ((BLUE, "circle"), (GREEN, "diamond"))
    layers = [
        Layer(
            job, [Point(number, point, text=_hover(job, number, point)) for number, point in front.items()], *style, 11
        )
        for (job, front), style in zip(fronts.items(), styles, strict=True)
    ]
    return [
        *layers,
        Layer("baseline", [Point(0, baseline, text=f"<b>the baseline</b><br>{metric}")], ORANGE, "star", 15),
    ]


def page(
    layers: Sequence[Layer], metric: str, costs: Sequence[str], rows: Sequence[Sequence[str]], said: Sequence[str]
) -> str:
    """Return the page.

    Args:
        layers: The fronts.
        metric: The job's metric.
        costs: The metrics that it is drawn against.
        rows: A table of both, its heading first.
        said: Sentences below it.
    """
    title = " and ".join(layer.name for layer in layers[:2])
    body = chart(figure(layers, metric, costs), first=True, linked=False) + table(rows)
    return whole(title, body + "".join(f"<p>{escape(text)}</p>" for text in said))


def image(layers: Sequence[Layer], metric: str, costs: Sequence[str], file: Path) -> None:
    """Draw the fronts into an image."""
    draw(layers, metric, costs, (), " and ".join(layer.name for layer in layers[:2]), file)


def _hover(job: str, number: int, point: Mapping[str, float]) -> str:
    values = "<br>".join(f"{escape(name)} {value:.6g}" for name, value in point.items())
    return f"<b>{escape(job)}, trial {number}</b><br>{values}"
