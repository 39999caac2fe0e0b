"""A traced stack as a table and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from rich.console import Group

from poolwise import Geometry, __version__
from poolwise.design.fitting import fitting
from poolwise.design.stack import Input, Layer
from poolwise.design.trace import Span, Stage, Unread

SIDES = {
    1: (("left", "right"),),
    2: (("top", "bottom"), ("left", "right")),
    3: (("front", "back"), ("top", "bottom"), ("left", "right")),
}
LINES = {1: ("elements",), 2: ("rows", "columns"), 3: ("slices", "rows", "columns")}
SHORT = {"mean": "avg"}


def table(given: Input, stages: Sequence[Stage], width: int) -> Group:
    """One row per layer, with the size that it gives; the row above it holds the size that it takes.

    width: of the terminal; where it does not hold all columns there is more than one table.
    """
    rows = [("input", _size(given.sizes, given.channels), "1", "1", "0", "", "100 %"), *map(_cells, stages)]
    names, sizes, strides, fields, starts, unread, kept = (list(column) for column in zip(*rows, strict=True))
    sees = {"size": sizes, "stride\nso far": strides, "receptive\nfield": fields, "starts\nat": starts}
    leaves = {"never read": unread, "kept": kept}
    if any(stage.empty for stage in stages):
        leaves["empty\nwindows"] = ["", *(str(stage.empty) for stage in stages)]
    return fitting("layer", names, (sees, leaves), width)


def summary(given: Input, stages: Sequence[Stage]) -> str:
    """What the whole stack does, in a line."""
    if not stages:
        return "no layers"
    last = stages[-1]
    share = prod(last.output) / prod(given.sizes)
    some = sum(1 for stage in stages if any(map(lost, stage.unread)))
    said = f"{some} of {len(stages)} layers leave elements unread" if some else "every element is read by every layer"
    before, after = _size(given.sizes, given.channels), _size(last.output, last.channels[1])
    return f"{before} → {after}: {_share(share)} of the positions; {said}."


def data(given: Input, stages: Sequence[Stage]) -> dict[str, Any]:
    """The same as JSON's own types; everything per axis is a list."""
    return {
        "poolwise": __version__,
        "input": {"sizes": list(given.sizes), "channels": given.channels},
        "stages": [_record(stage) for stage in stages],
    }


def _record(stage: Stage) -> dict[str, Any]:
    layer, tables = stage.layer, stage.geometry.tables
    return {
        "layer": layer.text,
        "op": layer.name or None,
        "form": layer.form,
        "input": list(stage.input),
        "output": list(stage.output),
        "channels": list(stage.channels),
        "window": list(stage.geometry.window),
        "stride": [getattr(axis, "step", None) for axis in tables],
        "dilation": [getattr(axis, "dilation", 1) for axis in tables],
        "padding": [[axis.low, axis.high] for axis in tables],
        "total_stride": [span.jump for span in stage.spans],
        "receptive_field": [span.field for span in stage.spans],
        "receptive_field_start": [span.first for span in stage.spans],
        "receptive_field_centre": [span.centre for span in stage.spans],
        "even": all(span.even for span in stage.spans),
        "never_read": [{"before": u.before, "after": u.after, "between": u.between} for u in stage.unread],
        "empty_windows": stage.empty,
        "kept": stage.kept,
    }


def _cells(stage: Stage) -> tuple[str, ...]:
    return (
        _layer(stage.layer, stage.geometry),
        _size(stage.output, stage.channels[1]),
        alike([_jump(span) for span in stage.spans]),
        alike([f"{'' if span.even else '≤'}{span.field}" for span in stage.spans]),
        alike([str(span.first).replace("-", "−") for span in stage.spans]),
        _never_read(stage.unread),
        _share(stage.kept),
    )


def _layer(layer: Layer, geometry: Geometry) -> str:
    """The layer with its resolved window, stride and padding."""
    name = SHORT.get(layer.name, layer.name)
    if layer.form == "global":
        return f"global {name}".rstrip()
    if layer.form == "adaptive":
        return " ".join(["adaptive", *([name] if name else []), times(geometry.outputs)])
    tables: Any = geometry.tables
    parts = [name, f"{times(geometry.window)}/{alike([str(axis.step) for axis in tables])}"]
    if any(axis.low or axis.high for axis in tables):
        same = all(axis.low == axis.high for axis in tables)
        parts.append("p" + alike([f"{axis.low}" if same else f"{axis.low}+{axis.high}" for axis in tables]))
    if any(axis.dilation > 1 for axis in tables):
        parts.append("d" + alike([str(axis.dilation) for axis in tables]))
    return " ".join(parts + (["ceil"] if layer.ceil_mode else []))


def _never_read(unread: Sequence[Unread]) -> str:
    """Such as "1 bottom, 1 right, gaps: 14 rows, 14 columns"."""
    rank = len(unread)
    sides = SIDES.get(rank, tuple((f"before on axis {n}", f"after on axis {n}") for n in range(rank)))
    lines = LINES.get(rank, tuple(f"on axis {n}" for n in range(rank)))
    edges = [
        f"{count} {side}"
        for axis, names in zip(unread, sides, strict=True)
        for count, side in zip((axis.before, axis.after), names, strict=True)
        if count
    ]
    gaps = [f"{axis.between} {line}" for axis, line in zip(unread, lines, strict=True) if axis.between]
    return ", ".join([*edges, *(["gaps: " + ", ".join(gaps)] if gaps else [])]) or "–"


def lost(unread: Unread) -> int:
    return unread.before + unread.after + unread.between


def _jump(span: Span) -> str:
    if span.even:
        return f"{span.jump:g}"
    return f"≈{span.jump:.0f}" if span.jump >= 100 else f"≈{span.jump:.3g}"


def _share(share: float) -> str:
    """A share in per cent, with one digit that is not 0."""
    percent = 100 * share
    return f"{percent:.3g} %" if percent < 1 else f"{percent:.0f} %"


def _size(sizes: Sequence[int], channels: int | None) -> str:
    return times(sizes) if channels is None else f"{channels}@{times(sizes)}"


def times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))


def alike(parts: Sequence[str]) -> str:
    """One entry where all axes agree, else all of them."""
    return parts[0] if len(set(parts)) == 1 else "×".join(parts)
