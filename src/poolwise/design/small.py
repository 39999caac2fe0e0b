"""A small array on which a stage's windows lie as on its own: whole strides fewer, so that the remainder stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from poolwise import Geometry
from poolwise.design.strip import two
from poolwise.geometry import output_size

LEAST, LARGEST = 9, 96  # elements along a side


def small(geometry: Geometry) -> tuple[tuple[int, ...], dict[str, Any]] | None:
    """Rows and columns, and the arguments of `pool` or, with an `output_size`, of `adaptive_pool`, over them.

    Of three axes the last two; one axis is a row. None for what is no pooling over both, a crop, and for windows too
    large to be looked at.
    """
    tables: list[Any] = two(geometry.tables, None)
    sizes = tuple(1 if table is None else _fewer(table) for table in tables)
    arguments = _arguments(tables)
    if max(sizes) > LARGEST or arguments is None:
        return None
    made: Callable[..., Geometry] = Geometry.adaptive if "output_size" in arguments else Geometry.of
    pairs = zip(tables, made(sizes, **arguments).tables, strict=True)
    return (sizes, arguments) if all(table is None or _alike(table, less) for table, less in pairs) else None


def _fewer(table: Any) -> int:
    """A smaller size of an axis with the same remainder."""
    if _whole(table):
        return min(table.size, LEAST)
    if table.kind != "regular":
        return min(table.size, table.size % table.output + table.output * max(1, -(-LEAST // table.output)))
    least = max(LEAST, (table.taps - 1) * table.dilation + 1 + 2 * table.step)
    return table.size - max(0, (table.size - least) // table.step) * table.step


def _arguments(tables: Sequence[Any]) -> dict[str, Any] | None:
    """The pooling over both axes as `pool` takes it, or `adaptive_pool`."""
    known = [table for table in tables if table is not None]
    if all(_whole(table) for table in known):
        return {"output_size": (1, 1)}
    if any(table.kind != "regular" for table in known):
        rule = next(table.rule for table in known if table.kind != "regular")
        return {"output_size": tuple(1 if table is None else table.output for table in tables), "bins": rule}
    if any(table.start != -table.low for table in known):
        return None
    return {
        "window": tuple(1 if table is None else table.taps for table in tables),
        "stride": tuple(1 if table is None else table.step for table in tables),
        "padding": tuple((0, 0) if table is None else (table.low, table.high) for table in tables),
        "dilation": tuple(1 if table is None else table.dilation for table in tables),
        "ceil_mode": any(table.output != _floor(table) for table in known),
        "padding_mode": known[0].mode,
    }


def _whole(table: Any) -> bool:
    """Whether one window reads all of an axis and nothing else."""
    return table.output == 1 and table.taps == table.size and not (table.low or table.high)


def _floor(table: Any) -> int:
    span = (table.taps - 1) * table.dilation + 1
    return output_size(table.size, table.low, table.high, span, table.step, False)


def _alike(table: Any, less: Any) -> bool:
    """Whether windows lie on the smaller axis as on the larger: at its end as many elements are left."""
    if _whole(table) and _whole(less):
        return True
    if table.kind != less.kind:
        return False
    if table.kind != "regular":
        return table.output == less.output
    return table.size - table.output * table.step == less.size - less.output * less.step
