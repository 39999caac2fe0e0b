"""Windows gathered into an array, then `op.gathered`: right on every dtype, geometry and framework.

The taps of the pooled axes are taken axis by axis, so that the last axis of the result holds a window. Memory is
bounded by working on a run of output rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from poolwise.call import INPUT, WHERE, Call
from poolwise.geometry import Regular, Table
from poolwise.op import FLOATS, INTEGERS, WEIGHTS, Array, Namespace, Selection, Window, is_integer

CHUNK = 1 << 23  # elements gathered at a time
LOOPED = 256  # taps of all axes up to which weighted sums are made tap by tap
WIDEST = 1 << 28  # elements of one output row's windows, beyond which the kernel refuses


@dataclass(frozen=True, eq=False)
class Windows:
    """A run of output rows (of the first pooled axis), gathered: (…batch, *outputs, taps)."""

    begin: int
    end: int
    tables: tuple[Table, ...]
    values: Array
    present: Array
    count: Array
    extras: dict[str, Array]


class Gathered:
    """The kernel that refuses nothing but what memory cannot hold."""

    name: ClassVar[str] = "gathered"
    traced: ClassVar[bool] = True

    def refusal(self, call: Call) -> str | None:
        widest = prod(table.widest for table in call.geometry.tables)
        row = widest * prod(call.geometry.outputs[1:])
        return f"one row of its windows holds {row} elements" if row > WIDEST else None

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        xp = call.framework.xp
        if call.op.separable and not call.masked and sum(table.widest for table in call.geometry.tables) <= LOOPED:
            y = call.framework.cast(_axis_after_axis(operands[0], call), call.result_dtype)
            return y, self._kept(operands, [], call)
        parts: list[Array] = []
        winners: list[Array] = []
        for windows in gather(operands, call):
            if isinstance(call.op, Selection) and call.keep:
                winners.append(call.op.winner(xp, windows.values, windows.present, windows.extras))
            with np.errstate(all="ignore"):
                parts.append(call.op.gathered(xp, windows.values, windows.present, windows.count, windows.extras))
        y = call.framework.cast(_within(xp, _joined(parts, call), call), call.result_dtype)
        return y, self._kept(operands, winners, call)

    def _kept(self, operands: Sequence[Array], winners: list[Array], call: Call) -> Any:
        if not call.keep:
            return None
        return _joined(winners, call) if winners else tuple(operands)

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        """For NumPy; elsewhere the framework differentiates forward."""
        if isinstance(call.op, Selection):
            return _scattered(g, self.indices(kept, call), call), *(None,) * (len(call.operands) - 1)
        return _one_by_one(np.asarray(g, np.float64), kept, call)

    def kept_bytes(self, call: Call) -> int:
        outputs = 8 * prod(call.geometry.output_shape)
        return outputs if isinstance(call.op, Selection) else call.input_bytes

    def indices(self, kept: Any, call: Call) -> Array:
        """From the winner's column among the gathered taps to its flat position over the pooled axes."""
        xp, geometry = call.framework.xp, call.geometry
        tables = [table.table() for table in geometry.tables]
        column, flat, scale = call.framework.cast(kept, "int64"), 0, 1  # TensorFlow adds no int32 of an argmax to these
        for number in reversed(range(len(tables))):
            index = tables[number].index
            width = index.shape[1]
            lookup = call.framework.constant((index * scale).reshape(-1), kept)
            row = np.arange(index.shape[0], dtype=np.int64) * width
            row = call.framework.constant(row.reshape(_along(number, call)), kept)
            flat = flat + _looked_up(xp, lookup, xp.where(kept < 0, 0, column % width) + row)
            column = column // width
            scale *= geometry.sizes[number]
        return call.framework.cast(xp.where(kept < 0, -1, flat), "int64")


def _within(xp: Namespace, y: Array, call: Call) -> Array:
    """Integers that a narrower result cannot hold (a mean with a small divisor) saturate."""
    if call.result_dtype not in INTEGERS or call.op.working_dtype(call.dtype) == call.result_dtype:
        return y
    limits = np.iinfo(call.result_dtype)
    return xp.clip(y, int(limits.min), int(limits.max))


def gather(operands: Sequence[Array], call: Call) -> Iterator[Windows]:
    """The call's windows, a run of output rows at a time."""
    geometry = call.geometry
    row = prod(table.widest for table in geometry.tables) * prod(geometry.outputs[1:])
    batch = prod(geometry.shape) // prod(geometry.sizes)
    rows = max(1, CHUNK // max(1, row * batch))
    if rows < geometry.outputs[0]:  # an output that memory cannot hold fails now, not after hours of its first rows
        call.framework.empty(geometry.output_shape, call.result_dtype, call.layout, operands[0])
    rest = tuple(table.table() for table in geometry.tables[1:])
    for begin in range(0, geometry.outputs[0], rows):
        end = min(begin + rows, geometry.outputs[0])
        yield _gathered(operands, call, (begin, end), (geometry.tables[0].table(begin, end), *rest))


def _gathered(operands: Sequence[Array], call: Call, rows: tuple[int, int], tables: tuple[Table, ...]) -> Windows:
    framework, xp = call.framework, call.framework.xp
    working = call.op.working_dtype(call.dtype)
    x = framework.cast(operands[0], working)
    present = framework.constant(_outer([table.mask for table in tables]), x)
    if call.masked:
        mask = xp.broadcast_to(call.part(operands, WHERE), x.shape)
        present = _taken(mask, _indices(tables), call) & present
    values = xp.where(present, _taken(x, _indices(tables), call), _fill(call.op.fill, working, x, call))
    count = framework.cast(framework.constant(_outer([table.count[:, None] for table in tables])[..., 0], x), working)
    extras = {
        name: _extra(framework.cast(call.part(operands, name), working), name, rows, tables, call)
        for name in call.op.operands
    }
    weights = _weights(tables, call)
    if weights is not None:
        extras[WEIGHTS] = framework.cast(framework.constant(weights, x), working)
    return Windows(*rows, tables, values, present, count, extras)


def _extra(operand: Array, name: str, rows: tuple[int, int], tables: tuple[Table, ...], call: Call) -> Array:
    """An operand's parts: (…batch, *outputs, taps), or (…batch, *outputs) where it lies over the output."""
    xp, geometry, over = call.framework.xp, call.geometry, call.over(name)
    operand = xp.reshape(operand, (1,) * (len(geometry.shape) - operand.ndim) + tuple(operand.shape))
    shape = list(operand.shape)
    for axis in geometry.axes:
        shape[axis] = call.shape_of(name)[axis]
    operand = xp.broadcast_to(operand, shape)
    if over != "output":
        return _taken(operand, _indices(tables) if over == "input" else _ordinals(tables, call), call)
    batch = [axis for axis in range(len(shape)) if axis not in geometry.axes]
    operand = xp.moveaxis(operand, (*batch, *geometry.axes), tuple(range(len(shape))))
    return operand[(slice(None),) * len(batch) + (slice(*rows),)]


def _indices(tables: Sequence[Table]) -> list[NDArray[np.int64]]:
    """(rows, width) per axis: the element that each tap reads."""
    return [table.index for table in tables]


def _axis_after_axis(x: Array, call: Call) -> Array:
    """Weighted means along one axis, then of those along the next; the taps are slices of what they reach."""
    x = call.framework.cast(x, call.op.working_dtype(call.dtype))
    for axis, table in zip(call.geometry.axes, call.geometry.tables, strict=True):
        assert isinstance(table, Regular)
        x = _weighted(x, axis, table, call)
    return x


def _weighted(x: Array, axis: int, table: Regular, call: Call) -> Array:
    framework, xp = call.framework, call.framework.xp
    along = [-1 if place == axis else 1 for place in range(len(call.geometry.shape))]
    index, inside = table.reached()
    x = xp.take(x, framework.constant(index, x), axis=axis)
    if not inside.all():  # an infinity times nothing is nothing here
        x = xp.where(framework.constant(inside.reshape(along), x), x, xp.zeros_like(x))
    width = (table.output - 1) * table.step + 1
    taps = [slice(begin, begin + width, table.step) for begin in range(0, table.taps * table.dilation, table.dilation)]
    own: Any = call.op.weights(table.taps)
    weights = np.stack([inside[tap] * weight for tap, weight in zip(taps, own, strict=True)])
    with np.errstate(all="ignore"):
        weights = weights / weights.sum(axis=0)
        if (weights == weights[:, :1]).all():  # the same in every window
            return sum(x[_sliced(tap, axis)] * float(weight) for tap, weight in zip(taps, weights[:, 0], strict=True))
        rows = [
            framework.cast(framework.constant(row.reshape(along), x), call.op.working_dtype(call.dtype))
            for row in weights
        ]
        return sum(x[_sliced(tap, axis)] * row for tap, row in zip(taps, rows, strict=True))


def _sliced(tap: slice, axis: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, tap)


def _weights(tables: tuple[Table, ...], call: Call) -> NDArray[np.float64] | None:
    """(*outputs, taps): what the operation says of each gathered tap; None: it does not weigh them."""
    each: list[NDArray[np.float64]] = []
    for ordinals, axis in zip(_ordinals(tables, call), call.geometry.tables, strict=True):
        weights = call.op.weights(axis.taps)
        if weights is None:
            return None
        each.append(weights[ordinals])
    return _outer(each)


def _ordinals(tables: Sequence[Table], call: Call) -> list[NDArray[np.int64]]:
    """(rows, width) per axis: which tap of its window each gathered one is (of an absent one, any)."""
    return [
        np.minimum(table.first[:, None] + np.arange(table.index.shape[1]), axis.taps - 1)
        for table, axis in zip(tables, call.geometry.tables, strict=True)
    ]


def _taken(x: Array, places: Sequence[NDArray[np.int64]], call: Call) -> Array:
    """(…batch, *outputs, taps): what stands at each window's places along the pooled axes, in row-major order."""
    xp, axes = call.framework.xp, call.geometry.axes
    batch = [axis for axis in range(len(call.geometry.shape)) if axis not in axes]
    x = xp.moveaxis(x, (*batch, *axes), tuple(range(len(call.geometry.shape))))
    first = len(batch)
    shape = [-1 if size is None else size for size in x.shape[:first]]
    for number, place in enumerate(places):
        x = xp.take(x, call.framework.constant(place.reshape(-1), x), axis=first + number)
    split = [size for place in places for size in place.shape]
    x = xp.reshape(x, (*shape, *split))
    cells = [first + 2 * number for number in range(len(places))]
    order = (*range(first), *cells, *(cell + 1 for cell in cells))
    x = xp.moveaxis(x, order, tuple(range(len(order))))
    return xp.reshape(x, (*shape, *split[::2], prod(split[1::2])))


def _joined(parts: list[Array], call: Call) -> Array:
    """The runs of rows put together, the axes back where the input had them."""
    xp, geometry = call.framework.xp, call.geometry
    ndim = len(geometry.shape)
    batch = [axis for axis in range(ndim) if axis not in geometry.axes]
    y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=len(batch))
    return xp.moveaxis(y, tuple(range(ndim)), (*batch, *geometry.axes))


def _outer(masks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(rows, taps) per axis -> (*rows, all taps in row-major order), by product."""
    rank = len(masks)
    result = np.ones((1,) * 2 * rank, masks[0].dtype)
    for number, mask in enumerate(masks):
        shape = [1] * 2 * rank
        shape[number], shape[rank + number] = mask.shape
        result = result * mask.reshape(shape)
    return result.reshape(*result.shape[:rank], -1)


def _fill(fill: float, dtype: str, x: Array, call: Call) -> Array:
    """An operation's neutral element in a dtype that may have no infinity."""
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        fill = int(min(max(fill, limits.min), limits.max)) if np.isinf(fill) else int(fill)
    return call.framework.cast(call.framework.constant(np.asarray(fill, _numpy_dtype(dtype)), x), dtype)


def _numpy_dtype(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _along(number: int, call: Call) -> tuple[int, ...]:
    """The shape that lays a vector along one pooled axis of the output."""
    shape = [1] * len(call.geometry.shape)
    shape[call.geometry.axes[number]] = -1
    return tuple(shape)


def _looked_up(xp: Namespace, table: Array, position: Array) -> Array:
    return xp.reshape(xp.take(table, xp.reshape(position, (-1,)), axis=0), position.shape)


def _scattered(g: Array, indices: Array, call: Call) -> Array:
    """Each gradient to the element that won."""
    geometry = call.geometry
    last = tuple(range(g.ndim - len(geometry.axes), g.ndim))
    batch = [size for axis, size in enumerate(geometry.shape) if axis not in geometry.axes]
    plane = prod(geometry.sizes)
    flat = np.moveaxis(indices, geometry.axes, last).reshape(prod(batch), prod(geometry.outputs))
    flowing = np.where(flat < 0, 0, np.moveaxis(g, geometry.axes, last).reshape(flat.shape))
    target = (np.maximum(flat, 0) + np.arange(prod(batch))[:, None] * plane).reshape(-1)
    total = np.bincount(target, flowing.reshape(-1).astype(np.float64), minlength=prod(batch) * plane)
    spread = total.reshape(*batch, *geometry.sizes).astype(call.dtype if call.dtype in FLOATS else "float64")
    return np.moveaxis(spread, last, geometry.axes)


def _one_by_one(g: NDArray[Any], operands: Sequence[Array], call: Call) -> tuple[Array | None, ...]:
    """The gradients of any operation, window by window, through `window_grad`."""
    parts = {name: call.part(operands, name) for name in (INPUT, *call.op.operands)}
    grads = {name: np.zeros(part.shape) for name, part in parts.items()}
    places = {name: np.arange(part.size).reshape(part.shape) for name, part in parts.items()}
    shape = call.geometry.window
    ordered = np.moveaxis(g, call.geometry.axes, tuple(range(-len(call.geometry.axes), 0)))
    first = len(call.geometry.shape) - len(call.geometry.axes)
    for windows in gather(operands, call):
        rows, tables = (windows.begin, windows.end), windows.tables
        here = ordered[(slice(None),) * first + (slice(*rows),)]
        where = {INPUT: _taken(places[INPUT], _indices(tables), call)}
        where |= {
            name: _spread(_extra(places[name], name, rows, tables, call), windows, here)
            for name in places
            if name != INPUT
        }
        extras = {name: _spread(_doubled(windows.extras[name]), windows, here) for name in call.op.operands}
        values = _doubled(windows.values)
        present = np.broadcast_to(windows.present, windows.values.shape)
        count = np.broadcast_to(windows.count, here.shape)
        positions = _positions(tables, call)
        for cell in np.ndindex(here.shape):
            read = present[cell]
            own = {name: _read(array, cell, read) for name, array in extras.items()}
            standing = positions[cell[first:]][read]
            w = Window(_read(values, cell, read), standing, prod(shape), int(count[cell]), own, shape)
            with np.errstate(all="ignore"):
                for name, part in zip(grads, call.op.window_grad(w, float(here[cell])), strict=True):
                    np.add.at(grads[name].reshape(-1), _read(where[name], cell, read), part)
    return tuple(_in_dtype(grads.get(name), operand) for name, operand in zip(call.operands, operands, strict=True))


def _spread(extra: NDArray[Any], windows: Windows, here: NDArray[Any]) -> NDArray[Any]:
    """An operand's parts for every window: as the values lie, or, where it lies over the output, as that does."""
    over_taps = extra.ndim == windows.values.ndim
    return np.broadcast_to(extra, windows.values.shape if over_taps else here.shape)


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    """Floats as float64, in which a window's gradient is taken."""
    return array if is_integer(array) else array.astype(np.float64)


def _read(array: NDArray[Any], cell: tuple[int, ...], present: NDArray[np.bool_]) -> Any:
    """One window's part: of its present taps, or of its cell."""
    return array[cell][present] if array.ndim > len(cell) else array[cell]


def _positions(tables: tuple[Table, ...], call: Call) -> NDArray[np.int64]:
    """(*outputs, taps, axes): where in its window each gathered tap stands."""
    ordinals = _ordinals(tables, call)
    plain = [np.ones_like(each) for each in ordinals]
    return np.stack([_outer([*plain[:i], each, *plain[i + 1 :]]) for i, each in enumerate(ordinals)], axis=-1)


def _in_dtype(grad: NDArray[Any] | None, operand: Array) -> Array | None:
    dtype = str(operand.dtype)
    return None if grad is None else grad.astype(operand.dtype if dtype in FLOATS else np.float64)
