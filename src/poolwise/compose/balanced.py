"""Spatially balanced pooling: what the windows leave over is left on either side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from poolwise.api import pool, pooled, sliding
from poolwise.compose.draws import drawn, known, per_axis
from poolwise.compose.named import operation
from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidValue
from poolwise.geometry import Geometry, Offsets, Padding, PaddingMode, Regular, Whole, folded, pooled_axes
from poolwise.op import Array, Operation
from poolwise.ops.mean import Mean
from poolwise.ops.sum import Sum


def balanced_pool(
    x: Any,
    op: Operation | str,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    offsets: Offsets | None = None,
    draws: Any = None,
    seed: Any = None,
    axes: Whole | None = None,
    where: Any = None,
    kernel: str | None = None,
) -> Any:
    """Pool with windows that start a random number of cells later, so that no side of a map is always the one left out.

    Of n elements and the padding, the windows leave u = n + pads − ((outputs − 1)·stride + span) cells, the slack, and
    `pool` leaves them at the end of every map: from that a network can learn its input's size. Here the windows start r
    cells later, 0 ≤ r ≤ u, so r cells are left before them and u − r behind. With `ceil_mode` u may be negative, the
    cells that the windows reach beyond the padding, and r with it. The output has `pool`'s shape; where the slack is 0
    on every axis it is `pool`'s. One r is drawn for each axis and call. Layers draw in training, and in evaluation
    start at `offsets`, the middle where none are given. Prefer it where `poolwise review` finds PW103.

    x: array of any dtype that `op` takes. op: an operation that needs no array of its own, or its name (`max`, `avg`).
    window, stride, padding, dilation, ceil_mode, padding_mode, axes, where, kernel: as in `pool`.
    offsets: in place of what is drawn: r, an int or one per axis, or "start" (0, which is `pool`), "middle" (u / 2,
        towards 0) or "end" (u). Layers that alternate between "start" and "end" leave as much on either side.
    draws: one number v, 0 ≤ v < 1, per pooled axis, floats of shape (pooled axes,): r = ⌊v·(|u| + 1)⌋, with u's sign.
    seed: where no draws are given, an int or the framework's generator; None: others every time.

    Raises InvalidValue or InvalidType that names the argument, before any work is done.

    Source: after Alsallakh et al., Mind the pool: convolutional neural networks can overfit input size, ICLR 2023
    (abstract). The uniform draw, and the middle in evaluation, are this library's choice.

    >>> import numpy as np, poolwise
    >>> [poolwise.balanced_pool(np.arange(5.0), "max", (2,), offsets=r).tolist() for r in (0, 1)]
    [[1.0, 3.0], [2.0, 4.0]]
    """
    rules: dict[str, Any] = {"window": window, "stride": stride, "padding": padding, "dilation": dilation}
    rules |= {"ceil_mode": ceil_mode, "padding_mode": padding_mode, "axes": axes}
    try:
        if offsets is not None and (draws is not None or seed is not None):
            raise InvalidValue(f"offsets must be None where draws or a seed are given, got {offsets!r}")
        door, x = enter(x)
        made = operation(op)
        device = door.facts(x).device
        unread = offsets is None and device != "cpu"  # a fake or recorded tensor has no number to read
        if unread or not device.startswith("cpu") or (door.tracing() and not isinstance(offsets, str)):
            geometry = _geometry(door, x, rules, offsets)
            starts = _drawn_starts(door, x, geometry, draws, seed) if offsets is None else _offsets(geometry)
            return _cut(door, x, made, rules, geometry, starts, where, kernel)
        if offsets is None:  # a kernel of ours starts wherever it is told to
            offsets = _drawn_offsets(door, x, rules, draws, seed)
        return pooled("balanced_pool", x, made, sliding, (*rules.values(), offsets), where, kernel)
    except Fault as fault:
        raise fault.said_by("balanced_pool") from None


def _geometry(door: Door, x: Array, rules: dict[str, Any], offsets: Offsets | None) -> Geometry:
    """The windows. Other sizes than the pooled ones, which a graph may not know, do not matter."""
    shape = tuple(x.shape)
    axes = pooled_axes((1,) * len(shape), rules["axes"], rules["window"], "window")
    known(x, axes)
    if door.tracing():
        shape = tuple([int(size) if axis in axes else 1 for axis, size in enumerate(shape)])
    return Geometry.of(shape, **{**rules, "axes": axes}, offsets="start" if offsets is None else offsets)


def _tables(geometry: Geometry) -> tuple[Regular, ...]:
    return cast("tuple[Regular, ...]", geometry.tables)


def _offsets(geometry: Geometry) -> list[Any]:
    return [table.offset for table in _tables(geometry)]


def _drawn_offsets(door: Door, x: Array, rules: dict[str, Any], draws: Any, seed: Any) -> tuple[int, ...]:
    """An offset for each axis, as a number."""
    geometry = _geometry(door, x, rules, None)
    numbers = drawn(door, x, per_axis(x.shape, geometry.axes), draws, seed).tolist()
    slacks = [table.slack for table in _tables(geometry)]
    offsets = [min(int(v * (abs(slack) + 1)), abs(slack)) for v, slack in zip(numbers, slacks, strict=True)]
    return tuple([-offset if slack < 0 else offset for offset, slack in zip(offsets, slacks, strict=True)])


def _drawn_starts(door: Door, x: Array, geometry: Geometry, draws: Any, seed: Any) -> list[Any]:
    """The same where only a running graph knows them: 0, or an array of no axes."""
    xp, numbers = door.framework.xp, drawn(door, x, per_axis(x.shape, geometry.axes), draws, seed)
    starts: list[Any] = []
    for number, table in enumerate(_tables(geometry)):
        most = abs(table.slack)
        offset = xp.floor(numbers[number] * (most + 1))
        offset = door.framework.cast(xp.where(offset > most, xp.zeros_like(offset) + most, offset), "int64")
        starts.append(0 if most == 0 else -offset if table.slack < 0 else offset)
    return starts


def _cut(
    door: Door,
    x: Array,
    op: Operation,
    rules: dict[str, Any],
    geometry: Geometry,
    starts: Sequence[Any],
    where: Any,
    kernel: str | None,
) -> Array:
    """The cells that the windows reach, cut out of the map and pooled from the first on, as every framework can."""
    if all(type(start) is int and start == 0 for start in starts):
        return pool(x, op, **rules, where=where, kernel=kernel)
    xp, tables = door.framework.xp, _tables(geometry)
    mask = None if where is None else door.framework.spread(door.mask(where, x), tuple(x.shape))
    lines = [_reached(door, x, table, start) for table, start in zip(tables, starts, strict=True)]
    for axis, (index, _) in zip(geometry.axes, lines, strict=True):
        x = _taken(door, x, index, axis)
        mask = None if mask is None else _taken(door, mask, index, axis)
    for axis, (_, there) in zip(geometry.axes, lines, strict=True):
        if there is not None:
            along = xp.reshape(there, _along(x, axis))
            mask = along if mask is None else mask & along
    if mask is not None and any(size is None for size in x.shape):  # against which it would not broadcast
        mask = mask & (xp.ones_like(door.framework.cast(x, "float32")) > 0)
    further = {"window": rules["window"], "stride": rules["stride"], "dilation": rules["dilation"]}
    further |= {"axes": geometry.axes, "where": mask}
    if isinstance(op, Mean) and op.count_include_pad and op.divisor is None and min(t.slack for t in tables) < 0:
        counts = [_counts(door, x, table, start) for table, start in zip(tables, starts, strict=True)]
        return _divided(door, x, op, counts, geometry.axes, lambda x: pool(x, Sum(), **further))
    return pool(x, op, **further, kernel=kernel)


def _reached(door: Door, x: Array, table: Regular, start: Any) -> tuple[Any, Any]:
    """Which element stands at each cell that the windows reach, and where there is one; None: everywhere."""
    if isinstance(start, int) and start >= table.low and start - table.low + table.reach <= table.size:
        return slice(start - table.low, start - table.low + table.reach), None
    xp, place = door.framework.xp, _places(door, x, np.arange(table.reach), table, start)
    index = folded(place, table.size, table.mode, xp)
    low, high = (0, 0) if table.mode == "absent" else (table.low, table.high)
    if table.slack >= 0 and (low, high) == (table.low, table.high):
        return index, None
    there = (place >= -low) & (place < table.size + high)
    return xp.where(there, index, xp.zeros_like(index)), there


def _places(door: Door, x: Array, ahead: Any, table: Regular, start: Any) -> Array:
    """Positions that lie so far ahead of where the first window begins."""
    return door.framework.constant(ahead - table.low, x) + start


def _taken(door: Door, x: Array, index: Any, axis: int) -> Array:
    """These elements of an axis."""
    if isinstance(index, slice):
        return x[(slice(None),) * axis + (index,)]
    return door.framework.xp.take(x, index, axis=axis)


def _along(x: Array, axis: int) -> tuple[int, ...]:
    """The shape that lays a vector along one axis."""
    return tuple([-1 if place == axis else 1 for place in range(len(x.shape))])


def _counts(door: Door, x: Array, table: Regular, start: Any) -> Array:
    """How many taps of each window lie inside the declared padding."""
    taps = np.arange(table.output)[:, None] * table.step + np.arange(table.taps) * table.dilation
    place = _places(door, x, taps, table, start)
    counting = (place >= -table.low) & (place < table.size + table.high)
    return door.framework.xp.sum(door.framework.cast(counting, "int64"), axis=-1)


def _divided(
    door: Door, x: Array, op: Mean, counts: Sequence[Array], axes: Sequence[int], total: Callable[[Array], Array]
) -> Array:
    """A mean that counts padding, whose windows reach beyond it somewhere: sums, divided as the operation divides."""
    framework, xp, dtype = door.framework, door.framework.xp, door.facts(x).dtype
    result, working = op.result_dtype(dtype), op.working_dtype(dtype)
    sums = xp.expand_dims(framework.cast(total(framework.cast(x, working)), working), axis=-1)
    count: Any = 1
    for axis, each in zip(axes, counts, strict=True):
        count = count * framework.cast(xp.reshape(each, _along(x, axis)), working)
    return framework.cast(op.gathered(xp, sums, xp.ones_like(sums) > 0, count, {}), result)
