"""What searches hold on disk, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table

from paretrim.search.housekeeping import Holding, folder_bytes
from paretrim.search.store import Store


def lines(found: Sequence[Holding], freed: Mapping[str, int | None], store: Store) -> Iterator[Table | str]:
    """Yield what is told in a terminal."""
    heads = ("search", "front and baseline", "off the front", "files", "left by trials", *(["freed"] if freed else []))
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in found:
        sizes = (each.kept_bytes, each.other_bytes, each.scratch_bytes)
        kept, other, scratch = (megabytes(size) for size in sizes)
        cells = [each.job, kept, other, str(each.others), scratch]
        if freed:
            size = freed[each.job]
            cells.append("it is running" if size is None else megabytes(size))
        table.add_row(*cells)
    yield table
    cache = store.root / "cache"
    shared = megabytes(folder_bytes(cache))
    yield f"shared by all searches: {shared} of parents and teachers' outputs in {cache}, which are bounded and never needed"
    if not freed and any(each.other_bytes or each.scratch_bytes for each in found):
        yield "`paretrim gc --free` deletes what is off the front; `paretrim replay JOB TRIAL` makes such a file again"


def to_json(found: Sequence[Holding], freed: Mapping[str, int | None]) -> str:
    """Return the same as JSON."""
    rows = [{**asdict(each), **({"freed_bytes": freed[each.job]} if each.job in freed else {})} for each in found]
    return json.dumps(rows, indent=2)


def megabytes(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
