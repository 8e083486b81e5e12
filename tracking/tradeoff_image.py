"""Trade-offs as an image, PNG or SVG, for papers and messages: readable without colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretrim.tracking.tradeoffs import Bound, Layer, label, reaches, scale, span

SUFFIXES = (".png", ".svg")
_SHAPES = {"circle": "o", "ring": "o", "star": "*", "square": "s", "diamond": "D"}
# An axis that spans less than this has room for the numbers between powers of ten.
_FEW = 8.0
_PIXEL = 0.6  # of a marker, in points


def draw(
    layers: Sequence[Layer], metric: str, costs: Sequence[str], bounds: Sequence[Bound], title: str, file: Path
) -> None:
    """Draw the score against each cost into a file, whose name ends in one of `SUFFIXES`."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, needed for an image only

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice above

    with plt.rc_context({"font.size": 9, "svg.hashsalt": "paretrim", "svg.fonttype": "none"}):
        wide = max(4.0, 3.6 * len(costs))
        figure, grid = plt.subplots(
            1, len(costs), figsize=(wide, 3.8), sharey=True, layout="constrained", squeeze=False
        )
        for axes, cost in zip(grid[0], costs, strict=True):
            _fill(axes, layers, metric, cost, bounds)
        grid[0][0].set_ylabel(f"validation {metric}")
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.suptitle(title)
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        figure.savefig(file, dpi=160, metadata={"Date": None} if file.suffix == ".svg" else {})
        plt.close(figure)


def _fill(axes: Any, layers: Sequence[Layer], metric: str, cost: str, bounds: Sequence[Bound]) -> None:
    title, factor = label(cost)
    for layer in layers:
        if not layer.points:
            continue
        x = [p.values[cost] * factor for p in layer.points]
        y = [p.values[metric] for p in layer.points]
        _bars(axes, layer, metric, cost, x, y)
        hollow = layer.shape == "ring"
        axes.scatter(
            x, y, s=(layer.size * _PIXEL) ** 2, marker=_SHAPES[layer.shape], label=layer.name,
            facecolors="none" if hollow else layer.colour, edgecolors=layer.colour if hollow else "black",
            linewidths=1.2 if hollow else 0.4, zorder=3,
        )  # fmt: skip
    kind = scale(layers, cost)
    across, up = span(layers, cost, kind), span(layers, metric, "linear")
    axes.set(xscale=kind, xlabel=title, xlim=across, ylim=up)
    if kind == "log":
        # Numbers as people write them; of the ones in between only those that leave room.
        from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: PLC0415 - as above

        few = across[1] / across[0] < _FEW
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 4, 5, 6, 8) if few else (2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    for bound in bounds:
        if bound.metric == metric:
            _shade(axes.axhline, axes.axhspan, bound, bound.limit, up)
        elif bound.metric == cost:
            _shade(axes.axvline, axes.axvspan, bound, bound.limit * factor, across)


def _bars(axes: Any, layer: Layer, metric: str, cost: str, x: Sequence[float], y: Sequence[float]) -> None:
    across, along = reaches(layer, cost, label(cost)[1]), reaches(layer, metric, 1.0)
    if across is not None or along is not None:
        axes.errorbar(x, y, xerr=across, yerr=along, fmt="none", ecolor=layer.colour, elinewidth=0.8, alpha=0.7)


def _shade(line: Any, area: Any, bound: Bound, at: float, ends: tuple[float, float]) -> None:
    """Shade what a hard bound forbids of an axis, as far as it goes; a soft one is a dotted line."""
    if not ends[0] < at < ends[1]:
        return
    line(at, color="black", linewidth=0.8, linestyle=":" if bound.soft else "--")
    if not bound.soft:
        area(*((at, ends[1]) if bound.upper else (ends[0], at)), color="black", alpha=0.07, lw=0)
