"""Windows gathered into an array, then `op.gathered`: right on every dtype, geometry and framework.

The last axis of the result holds a window. Of few taps memory holds each by itself, a strided slice of the input, so
that what is done over a window is done for all windows at once; of many, and of uneven bins, the taps are taken axis by
axis. Memory is bounded by working on a run of output rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise.call import INPUT, WHERE, Call
from poolwise.geometry import Axis, Geometry, Ints, Regular, Table
from poolwise.op import FLOATS, INTEGERS, WEIGHTS, Array, Namespace, Selection, Window, held_fixed, is_integer

CHUNK = 1 << 23  # elements gathered at a time
CACHED = 1 << 19  # the same on a processor, where what one operation writes the next should find in its cache
SLICED = 32  # taps of all axes up to which each is a slice of the input
SPREAD = 4  # times an axis's size up to which windows that are slices may reach, padding included
LOOPED = 256  # taps of all axes up to which weighted sums are made tap by tap
WIDEST = 1 << 28  # elements of one output row's windows, beyond which the kernel refuses


@dataclass(frozen=True, eq=False)
class Slid:
    """What a run of windows reads along one axis: all their taps, among them those that read no element."""

    run: Regular

    @cached_property
    def index(self) -> Ints:
        """(rows, columns): the element that each gathered tap reads; 0 where there is none."""
        return self.run.reached()[0][self._place]

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """(rows, columns): whether there is one."""
        return self.run.reached()[1][self._place]

    @property
    def whole(self) -> bool:
        """Whether there is one everywhere."""
        return self.run.start >= 0 and self.run.start + self.run.reach <= self.run.size

    @property
    def ordinal(self) -> Ints:
        """(1 or rows, columns): which tap of its window each is; of an absent one, any."""
        return np.arange(self.run.taps)[None]

    @property
    def count(self) -> Ints:
        """(1 or rows): how many taps count for a mean that includes padding."""
        return np.full(1, self.run.taps) if self.whole else self.run.table().count

    @property
    def _place(self) -> Ints:
        return np.arange(self.run.output)[:, None] * self.run.step + self.ordinal * self.run.dilation


@dataclass(frozen=True, eq=False)
class Aligned:
    """The same, the taps that read an element alone, in as many columns as the widest window has."""

    axis: Axis
    table: Table

    @cached_property
    def index(self) -> Ints:
        index = self.table.index
        return np.pad(index, ((0, 0), (0, self.axis.widest - index.shape[1])))

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        return np.arange(self.axis.widest) < self.table.present[:, None]

    @property
    def whole(self) -> bool:
        return bool(self.inside.all())

    @property
    def ordinal(self) -> Ints:
        return np.minimum(self.table.first[:, None] + np.arange(self.axis.widest), self.axis.taps - 1)

    @property
    def count(self) -> Ints:
        return self.table.count


Reads: TypeAlias = Slid | Aligned


@dataclass(frozen=True, eq=False)
class Windows:
    """A run of output rows (of the first pooled axis), gathered: (…batch, *outputs, taps)."""

    begin: int
    end: int
    reads: tuple[Reads, ...]
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
            return _in_order(y, call), self._kept(operands, [], call)
        parts: list[Array] = []
        winners: list[Array] = []
        for windows in gather(operands, call):
            if isinstance(call.op, Selection) and call.keep:
                winners.append(call.op.winner(xp, windows.values, windows.present, windows.extras))
            with np.errstate(all="ignore"):
                parts.append(call.op.gathered(xp, windows.values, windows.present, windows.count, windows.extras))
        y = call.framework.cast(_within(xp, _joined(parts, call), call), call.result_dtype)
        return _in_order(y, call), self._kept(operands, winners, call)

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
        reads = [_reads(geometry, number) for number in range(len(geometry.axes))]
        column, flat, scale = call.framework.cast(kept, "int64"), 0, 1  # TensorFlow adds no int32 of an argmax to these
        for number in reversed(range(len(reads))):
            index = reads[number].index
            width = index.shape[1]
            lookup = call.framework.constant((index * scale).reshape(-1), kept)
            row = np.arange(index.shape[0], dtype=np.int64) * width
            row = call.framework.constant(row.reshape(_over_output(number, call)), kept)
            flat = flat + _looked_up(xp, lookup, xp.where(kept < 0, 0, column % width) + row)
            column = column // width
            scale *= geometry.sizes[number]
        return _in_order(call.framework.cast(xp.where(kept < 0, -1, flat), "int64"), call)


def _in_order(y: Array, call: Call) -> Array:
    """The output with its axes in memory in the order of the input's."""
    return y if call.layout == tuple(range(len(call.layout))) else call.framework.dense(y, call.layout)


def _within(xp: Namespace, y: Array, call: Call) -> Array:
    """Integers that a narrower result cannot hold (a mean with a small divisor) saturate, where they do not wrap."""
    if call.op.wraps or call.result_dtype not in INTEGERS or call.op.working_dtype(call.dtype) == call.result_dtype:
        return y
    limits = np.iinfo(call.result_dtype)
    return xp.clip(y, int(limits.min), int(limits.max))


def gather(operands: Sequence[Array], call: Call) -> Iterator[Windows]:
    """The call's windows, a run of output rows at a time."""
    geometry = call.geometry
    row = prod(table.widest for table in geometry.tables) * prod(geometry.outputs[1:])
    batch = prod(geometry.shape) // prod(geometry.sizes)
    rows = max(1, _at_a_time(call) // max(1, row * batch))
    if rows < geometry.outputs[0]:  # an output that memory cannot hold fails now, not after hours of its first rows
        call.framework.empty(geometry.output_shape, call.result_dtype, call.layout, operands[0])
    parts = _prepared(operands, call)
    rest = [_reads(geometry, number) for number in range(1, len(geometry.axes))]
    for begin in range(0, geometry.outputs[0], rows):
        end = min(begin + rows, geometry.outputs[0])
        yield _gathered(parts, call, (begin, end), (_reads(geometry, 0, begin, end), *rest))


def _at_a_time(call: Call) -> int:
    """How many elements: of a graph that is recorded, or differentiated, as many as may be."""
    return CHUNK if call.device != "cpu" or _differentiated(call) else CACHED


def _differentiated(call: Call) -> bool:
    return call.keep and call.framework.name != "numpy"


def _prepared(operands: Sequence[Array], call: Call) -> dict[str, Array]:
    """The operands in the dtype that the operation works in; masked elements give way to its fill."""
    framework, working = call.framework, call.op.working_dtype(call.dtype)
    parts = {name: framework.cast(call.part(operands, name), working) for name in (INPUT, *call.op.operands)}
    if call.masked:
        x = parts[INPUT]
        parts[WHERE] = framework.xp.broadcast_to(call.part(operands, WHERE), x.shape)
        parts[INPUT] = framework.xp.where(parts[WHERE], x, _fill(x, call))
    return parts


def _gathered(parts: dict[str, Array], call: Call, rows: tuple[int, int], reads: tuple[Reads, ...]) -> Windows:
    framework, x, working = call.framework, parts[INPUT], call.op.working_dtype(call.dtype)
    values = _windowed(x, reads, call, _fill(x, call))
    if call.masked:
        present = _windowed(parts[WHERE], reads, call, framework.constant(np.zeros((), np.bool_), x))
    else:
        present = framework.constant(_inside(reads), x)
    count = framework.cast(framework.constant(_outer([each.count[:, None] for each in reads])[..., 0], x), working)
    extras = {name: _extra(parts[name], name, rows, reads, call) for name in call.op.operands}
    weights = _weights(reads, call)
    if weights is not None:
        extras[WEIGHTS] = framework.cast(framework.constant(weights, x), working)
    return Windows(*rows, reads, values, present, count, extras)


def _extra(operand: Array, name: str, rows: tuple[int, int], reads: tuple[Reads, ...], call: Call) -> Array:
    """An operand's parts: (…batch, *outputs, taps), or (…batch, *outputs) where it lies over the output."""
    xp, geometry, over = call.framework.xp, call.geometry, call.over(name)
    operand = xp.reshape(operand, (1,) * (len(geometry.shape) - operand.ndim) + tuple(operand.shape))
    shape = list(operand.shape)
    for axis in geometry.axes:
        shape[axis] = call.shape_of(name)[axis]
    operand = xp.broadcast_to(operand, shape)
    if over == "input":
        return _windowed(operand, reads, call, 0)
    if over == "window":
        return _taken(operand, [each.ordinal for each in reads], call)
    return _batch_first(operand, call)[(slice(None),) * (len(shape) - len(reads)) + (slice(*rows),)]


def _slides(geometry: Geometry) -> bool:
    """Whether each tap of all windows is one slice of the input, and there are few."""
    regular = all(isinstance(table, Regular) and table.reach <= SPREAD * table.size for table in geometry.tables)
    return regular and prod(geometry.window) <= SLICED


def _reads(geometry: Geometry, number: int, begin: int = 0, end: int | None = None) -> Reads:
    """Of the pooled axis of that number, between these rows."""
    axis = geometry.tables[number]
    end = axis.output if end is None else end
    if _slides(geometry):
        assert isinstance(axis, Regular)
        return Slid(replace(axis, start=axis.start + begin * axis.step, output=end - begin))
    return Aligned(axis, axis.table(begin, end))


def _inside(reads: Sequence[Reads]) -> NDArray[np.bool_]:
    """(*outputs, taps): whether a tap reads an element; one True: all do."""
    whole = np.ones(1, np.bool_)
    if all(each.whole for each in reads):
        return whole
    inside = _outer([each.inside for each in reads])
    taps_first = np.moveaxis(np.ascontiguousarray(np.moveaxis(inside, -1, 0)), 0, -1)  # as memory holds the values
    return whole if inside.all() else taps_first


def _windowed(x: Array, reads: Sequence[Reads], call: Call, fill: Any) -> Array:
    """(…batch, *outputs, taps): what each window reads; where it reads nothing, `fill`."""
    slid = [each.run for each in reads if isinstance(each, Slid)]
    if slid:
        return _sliced(x, slid, call, fill)
    taken, inside = _taken(x, [each.index for each in reads], call), _inside(reads)
    return taken if inside.ndim == 1 else call.framework.xp.where(call.framework.constant(inside, x), taken, fill)


def _sliced(x: Array, slid: Sequence[Regular], call: Call, fill: Any) -> Array:
    """Each tap by itself, as memory holds the input, one behind the other; their axis is the last of a view."""
    xp, layout = call.framework.xp, call.layout
    taps = [xp.moveaxis(x, layout, tuple(range(len(layout))))]
    axes = [layout.index(axis) for axis in call.geometry.axes]
    for axis, run in zip(axes, slid, strict=True):
        taps = [tap for each in taps for tap in _taps(_reached(each, axis, run, call, fill), axis, run, call)]
    order = [layout.index(axis) + 1 for axis in _batch_axes(call)] + [axis + 1 for axis in axes]
    return xp.moveaxis(xp.stack(taps, axis=0), (*order, 0), tuple(range(len(layout) + 1)))


def _taps(x: Array, axis: int, run: Regular, call: Call) -> list[Array]:
    """What the first tap of every window along an axis reads, what the second reads, and so on."""
    begins = range(0, run.taps * run.dilation, run.dilation)
    if not _differentiated(call) or run.step > run.taps:
        width = (run.output - 1) * run.step + 1
        return [x[_along(slice(begin, begin + width, run.step), axis)] for begin in begins]
    phases = _phases(x, axis, run.step, call)  # whose gradient is no larger than they are; a slice's is as x
    cuts = [slice(begin // run.step, begin // run.step + run.output) for begin in begins]
    return [phases[begin % run.step][_along(cut, axis)] for begin, cut in zip(begins, cuts, strict=True)]


def _phases(x: Array, axis: int, step: int, call: Call) -> Sequence[Array]:
    """Every so manyth element along an axis, from the first, from the second, and so on; what fills them up is any."""
    xp, missing = call.framework.xp, -x.shape[axis] % step
    if missing:
        x = xp.concat([x, x[_along(slice(missing), axis)]], axis=axis)
    shape = (*x.shape[:axis], x.shape[axis] // step, step, *x.shape[axis + 1 :])
    return xp.unstack(xp.reshape(x, shape), axis=axis + 1)


def _reached(x: Array, axis: int, run: Regular, call: Call, fill: Any) -> Array:
    """From the first tap of a run to the last; where there is no element, `fill`."""
    xp, begin, end = call.framework.xp, run.start, run.start + run.reach
    if run.mode != "absent" and (begin < 0 or end > run.size):
        return _folded(x, axis, run, call, fill)
    before = min(max(-begin, 0), run.reach)
    part = slice(min(max(begin, 0), run.size), min(max(end, 0), run.size))
    after = run.reach - before - (part.stop - part.start)
    inner = x if part == slice(0, run.size) else x[_along(part, axis)]
    if not before + after:
        return inner
    zeros, first = np.zeros(max(before, after), np.int64), held_fixed(xp, x[_along(slice(1), axis)])
    as_wide = xp.take(first, call.framework.constant(zeros, x), axis=axis)
    absent = xp.where(call.framework.constant(zeros[:1] > 0, x), as_wide, fill)
    return xp.concat([absent[_along(slice(before), axis)], inner, absent[_along(slice(after), axis)]], axis=axis)


def _folded(x: Array, axis: int, run: Regular, call: Call, fill: Any) -> Array:
    """The same where the padding holds elements again."""
    index, inside = run.reached()
    x = call.framework.xp.take(x, call.framework.constant(index, x), axis=axis)
    if inside.all():
        return x
    inside = inside.reshape([-1 if place == axis else 1 for place in range(len(call.layout))])
    return call.framework.xp.where(call.framework.constant(inside, x), x, fill)


def _axis_after_axis(x: Array, call: Call) -> Array:
    """Weighted means along one axis, then of those along the next; the taps are slices of what they reach."""
    x = call.framework.cast(x, call.op.working_dtype(call.dtype))
    for axis, table in zip(call.geometry.axes, call.geometry.tables, strict=True):
        assert isinstance(table, Regular)
        x = _weighted(x, axis, table, call)
    return x


def _weighted(x: Array, axis: int, table: Regular, call: Call) -> Array:
    framework, working = call.framework, call.op.working_dtype(call.dtype)
    along = [-1 if place == axis else 1 for place in range(len(call.geometry.shape))]
    taps = _taps(_reached(x, axis, table, call, 0), axis, table, call)  # an infinity times nothing is nothing here
    weights = Slid(table).inside.T * np.asarray(call.op.weights(table.taps))[:, None]
    with np.errstate(all="ignore"):
        weights = weights / weights.sum(axis=0)
        if (weights == weights[:, :1]).all():  # the same in every window
            return sum(tap * float(weight) for tap, weight in zip(taps, weights[:, 0], strict=True))
        rows = [framework.cast(framework.constant(row.reshape(along), x), working) for row in weights]
        return sum(tap * row for tap, row in zip(taps, rows, strict=True))


def _along(tap: slice, axis: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, tap)


def _weights(reads: tuple[Reads, ...], call: Call) -> NDArray[np.float64] | None:
    """(*outputs, taps): what the operation says of each gathered tap; None: it does not weigh them."""
    each: list[NDArray[np.float64]] = []
    for read, axis in zip(reads, call.geometry.tables, strict=True):
        weights = call.op.weights(axis.taps)
        if weights is None:
            return None
        each.append(weights[read.ordinal])
    return _outer(each)


def _batch_axes(call: Call) -> list[int]:
    return [axis for axis in range(len(call.geometry.shape)) if axis not in call.geometry.axes]


def _batch_first(x: Array, call: Call) -> Array:
    order = (*_batch_axes(call), *call.geometry.axes)
    return call.framework.xp.moveaxis(x, order, tuple(range(len(order))))


def _taken(x: Array, places: Sequence[NDArray[np.int64]], call: Call) -> Array:
    """(…batch, *outputs, taps): what stands at each window's places along the pooled axes, in row-major order."""
    xp, first = call.framework.xp, len(_batch_axes(call))
    x = _batch_first(x, call)
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
    xp, batch = call.framework.xp, _batch_axes(call)
    y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=len(batch))
    return xp.moveaxis(y, tuple(range(len(call.geometry.shape))), (*batch, *call.geometry.axes))


def _outer(masks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(rows, taps) per axis -> (*rows, all taps in row-major order), by product."""
    rank = len(masks)
    result = np.ones((1,) * 2 * rank, masks[0].dtype)
    for number, mask in enumerate(masks):
        shape = [1] * 2 * rank
        shape[number], shape[rank + number] = mask.shape
        result = result * mask.reshape(shape)
    return result.reshape(*result.shape[:rank], -1)


def _fill(x: Array, call: Call) -> Array:
    """The operation's neutral element in the dtype that it works in, which may have no infinity."""
    dtype, fill = call.op.working_dtype(call.dtype), call.op.fill
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        fill = int(min(max(fill, limits.min), limits.max)) if np.isinf(fill) else int(fill)
    return call.framework.cast(call.framework.constant(np.asarray(fill, _numpy_dtype(dtype)), x), dtype)


def _numpy_dtype(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _over_output(number: int, call: Call) -> tuple[int, ...]:
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
        rows, reads = (windows.begin, windows.end), windows.reads
        here = ordered[(slice(None),) * first + (slice(*rows),)]
        where = {INPUT: _windowed(places[INPUT], reads, call, 0)}
        where |= {
            name: _spread(_extra(places[name], name, rows, reads, call), windows, here)
            for name in places
            if name != INPUT
        }
        extras = {name: _spread(_doubled(windows.extras[name]), windows, here) for name in call.op.operands}
        values = _doubled(windows.values)
        present = np.broadcast_to(windows.present, windows.values.shape)
        count = np.broadcast_to(windows.count, here.shape)
        positions = np.broadcast_to(_positions(reads), (*here.shape[first:], values.shape[-1], len(reads)))
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


def _positions(reads: Sequence[Reads]) -> NDArray[np.int64]:
    """(*outputs, taps, axes): where in its window each gathered tap stands."""
    ordinals = [each.ordinal for each in reads]
    plain = [np.ones_like(each) for each in ordinals]
    return np.stack([_outer([*plain[:i], each, *plain[i + 1 :]]) for i, each in enumerate(ordinals)], axis=-1)


def _in_dtype(grad: NDArray[Any] | None, operand: Array) -> Array | None:
    dtype = str(operand.dtype)
    return None if grad is None else grad.astype(operand.dtype if dtype in FLOATS else np.float64)
