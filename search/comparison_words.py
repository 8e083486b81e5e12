"""Two searches side by side, in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from paretrim.search.comparison import Side, SideBySide
from paretrim.search.words import heading, quantity

_MOST = 12


def lines(found: SideBySide) -> Iterator[Table | str]:
    """Yield what is told of two searches in a terminal."""
    head, *others = rows(found)
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for cells in others:
        table.add_row(*cells)
    yield table
    yield from notes(found)


def rows(found: SideBySide) -> list[list[str]]:
    """Return a table of both, its heading first."""
    sides = found.sides
    return [
        ["", *(side.job for side in sides)],
        ["hypervolume, in one box", *(f"{side.hypervolume:.4f}" for side in sides)],
        ["points of the front", *(str(len(side.front)) for side in sides)],
        ["points that the other does not match", *(str(len(side.own)) for side in sides)],
        ["trials", *(str(side.trials) for side in sides)],
        ["training", *(f"{side.training_seconds:.1f} s" for side in sides)],
        *(
            [f"best {heading(o.name)}", *(quantity(o.name, side.best[o.name]) if side.best else "" for side in sides)]
            for o in found.objectives
        ),
    ]


def notes(found: SideBySide) -> Iterator[str]:
    """Yield sentences about both."""
    first, second = found.sides
    yield _own(first, second)
    yield _own(second, first)
    yield f"both together: hypervolume {found.together:.4f}"
    yield from (f"note: {note}" for note in found.notes)


def _own(side: Side, other: Side) -> str:
    if not side.own:
        return f"{other.job} has for each point of {side.job} one that is as good in everything"
    shown = ", ".join(str(number) for number in side.own[:_MOST]) + (", ..." if len(side.own) > _MOST else "")
    return f"{other.job} matches none of these points of {side.job}: trials {shown}"
