"""How a sensitivity profile reads in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from paretrim.tracking.heatmap import label
from paretrim.tracking.sensitivity import Effect, Profile

_HURTS = 0.05


def lines(found: Profile) -> Iterator[RenderableType]:
    """Yield the tables of a profile: a row a layer, a column a value."""
    yield Text(
        f"uncompressed: {found.metric} {found.score:.4f}, loss {found.loss:.4g} on {found.samples} training samples; "
        f"{found.weight_bytes / 1e3:,.0f} kB of weights; {found.latency_ms:.4g} ms"
    )
    for family, places in found.families().items():
        yield Text(f"{family}: change of {found.metric} when this alone is changed, without recovery", style="bold")
        yield _table(places)
    failed = {effect.knob: effect.failed for effect in found.effects if effect.failed}
    for knob, reason in failed.items():
        yield Text(f"{knob}: {reason}", style="yellow")


def _table(places: dict[str, list[Effect]]) -> Table:
    values = list(dict.fromkeys(label(effect.value) for effects in places.values() for effect in effects))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for value in values:
        table.add_column(value, justify="right")
    for head in ("at its strongest:\nloss", "\nkB saved", "\nms saved"):
        table.add_column(head, justify="right")
    for place, effects in places.items():
        by_value = {label(effect.value): effect for effect in effects}
        cells = [_change(by_value.get(value)) for value in values]
        table.add_row(place or "all", *cells, *_savings(effects))
    return table


def _change(effect: Effect | None) -> Text:
    if effect is None or effect.score_change is None:
        return Text("")
    if effect.leaves_all:
        return Text("same", style="dim")
    return Text(f"{effect.score_change:+.4f}", style="red" if abs(effect.score_change) > _HURTS else "")


def _savings(effects: list[Effect]) -> tuple[str, str, str]:
    best = max(effects, key=lambda effect: effect.bytes_saved)
    faster = "" if best.ms_saved is None else f"{best.ms_saved:.4f}"
    worse = "" if best.loss_increase is None else f"{best.loss_increase:+.3g}"
    return worse, f"{best.bytes_saved / 1e3:,.1f}", faster
