"""How a space reads in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from paretrim.search.overview import Overview

FEW = 6


def lines(found: Overview, most: int | None = FEW) -> Iterator[RenderableType]:
    """Yield a space's tables and sentences.

    Args:
        found: The space.
        most: Layers that are named in a row; None for all of them.
    """
    yield Text(_count(found), style="bold")
    yield _table(
        ("knob", "values", "exists when", "for"),
        ((k.name, k.values, k.when, _places(k.places, most)) for k in found.searched),
    )
    if found.groups:
        yield Text("Layers whose channels are cut together", style="bold")
        yield _table(
            ("knob", "channels", "layers"),
            ((name, str(channels), ", ".join(layers)) for name, layers, channels in found.groups),
        )
    if found.constant:
        yield Text("Constant in each recipe: " + ", ".join(f"{name} {value}" for name, value in found.constant))
    if found.left_out:
        yield Text("Left out", style="bold")
        yield _table(("technique", "for", "why"), _by_reason(found.left_out, most))


def _by_reason(left_out: Iterable[tuple[str, str, str]], most: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield what is left out, layers with the same reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for technique, where, why in left_out:
        found.setdefault((technique, why), []).append(where)
    return ((technique, _places(tuple(where), most), why) for (technique, why), where in found.items())


def _count(found: Overview) -> str:
    knobs = sum(max(1, len(k.places)) for k in found.searched)
    recipes = f"{10**found.recipes:,.0f}" if found.recipes < 6 else f"10^{found.recipes:.0f}"
    recipes = f"up to {recipes}" if any(k.when for k in found.searched) else recipes
    ranges = f", times {found.continuous} knobs that take any value of a range" if found.continuous else ""
    return f"{knobs} knobs, {recipes} recipes{ranges}"


def _places(places: tuple[str, ...], most: int | None) -> str:
    shown = ", ".join(places[:most])
    return shown if most is None or len(places) <= most else f"{shown} and {len(places) - most} more"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a reason may hold brackets, which are no markup
    return table
