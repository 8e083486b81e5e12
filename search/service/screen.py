"""How jobs look in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from paretrim.search.screen import wide_console


def show_all(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print jobs, one a line."""
    if not rows:
        typer.echo("no jobs")
        return
    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    wide_console().print(table)


def show(plain: Mapping[str, Any], *, as_json: bool) -> None:
    """Print facts, one a line."""
    if as_json:
        typer.echo(json.dumps(plain, indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for key, value in plain.items():
        table.add_row(key, _cell(value))
    wide_console().print(table, highlight=False)


def _cell(value: Any) -> Text:
    # No markup: it may be what a user's code has printed.
    return Text("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value))


def moment(milliseconds: int | None) -> str | None:
    """Return a moment of the epoch as people here write it; None for none."""
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().isoformat(timespec="seconds")


def last_lines(printed: str) -> str:
    """Return what a job said last: its error, where there is one."""
    lines = [line for line in printed.splitlines() if line.strip()]
    start = next((at for at, line in enumerate(lines) if line.startswith("Error:")), len(lines) - 3)
    return "\n".join(lines[max(0, start) :])
