"""Tables that a terminal holds: columns beside names, in as many tables as it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

NARROWEST = 10  # columns of a terminal that the names have at least
GAP = 2  # columns between two of a table
Columns: TypeAlias = dict[str, list[str]]  # by what stands above them


def fitting(title: str, names: Sequence[str], groups: Sequence[Columns], width: int) -> Group:
    """The columns beside the names, those of a group together where that can be; none is dropped or cut.

    title: what stands above the names. width: of the terminal.
    """
    room = min(max(map(cell_len, (*names, title))), max(width // 3, NARROWEST))
    parts = list(_parts(groups, width - room, width - NARROWEST))
    grids = [_grid(title, names, part, width) for part in parts]
    return Group(*[each for grid in grids for each in (Text(), grid)][1:])


def _parts(groups: Sequence[Columns], usual: int, most: int) -> Iterator[Columns]:
    """As many groups at once as have the usual width; one that is wider than the most by its columns."""
    part: Columns = {}
    for group in groups:
        for more in [group] if _width(group) <= most else [{head: group[head]} for head in group]:
            if part and _width(part | more) > usual:
                yield part
                part = {}
            part |= more
    yield part


def _width(columns: Columns) -> int:
    return sum(GAP + max(map(cell_len, (*head.split("\n"), *cells))) for head, cells in columns.items())


def _grid(title: str, names: Sequence[str], columns: Columns, width: int) -> Table:
    room = max(width - _width(columns), NARROWEST)
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column(title, overflow="fold", max_width=room)
    for head in columns:
        grid.add_column(head, justify="right", no_wrap=True)
    for name, *cells in zip(names, *columns.values(), strict=True):
        grid.add_row(_broken(name, room), *map(Text, cells))
    return grid


def _broken(name: str, room: int) -> Text:
    """A name on lines of its parts; a part that is longer than a line is left to fold."""
    lines = [""]
    for part in re.findall(r"[^./ ]*[./ ]|[^./ ]+", name):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > room:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines))
