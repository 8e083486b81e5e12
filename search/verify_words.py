"""What was found of a bundle, in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from paretrim.search.verify import Check, Verification
from paretrim.tracking.taken import MARK


def lines(found: Verification) -> Iterator[Table | Text]:
    """Yield what is told in a terminal."""
    table = Table("", "checked", "recorded", "here", box=box.SIMPLE_HEAD, pad_edge=False)
    for check in found.checks:
        # No markup: a bundle may be anybody's.
        table.add_row(_verdict(check), *(Text(text) for text in (check.what, check.recorded, check.here)))
    yield table
    for name, (there, here) in found.differences.items():
        yield Text(f"{name}: measured on {there or 'an unknown one'}, here {here or 'unknown'}", style="dim")
    if found.holds:
        yield Text(f"the bundle holds; its model has the SHA-256 {found.sha256}", style="bold")
    else:
        yield Text(f"the bundle FAILS, and is marked by {found.folder / MARK}", style="bold red")


def _verdict(check: Check) -> Text:
    if check.holds:
        return Text("ok", style="green")
    return Text("FAILS", style="red") if check.decides else Text("differs", style="yellow")
