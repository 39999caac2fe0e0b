"""How a layer's tensor is pooled: by PyTorch's door, by a kernel on `keras.ops`, or as sizes that only a run knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, cast

import keras
import numpy as np
from keras import ops

from poolwise.api import global_pool, planned, pool, sliding
from poolwise.call import INPUT, Call
from poolwise.doors import Facts, check_operand_shape
from poolwise.keras._framework import BACKEND, KERAS, available
from poolwise.op import INTEGERS, WEIGHTS, Array, Operation, tap_weights

Shape = Sequence[int | None]


class Slide(NamedTuple):
    """A sliding layer's geometry, but for the sizes."""

    axes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str

    @property
    def arguments(self) -> tuple[Any, ...]:
        """`poolwise.api.sliding`'s, after the shape."""
        return self.window, self.stride, self.padding, 1, False, "absent", self.axes

    def stand_in(self, shape: Shape) -> tuple[int, ...]:
        """Sizes for the unknown ones, such that "same" pads wherever it can (a remainder of 1 leaves most to pad)."""
        pooled = dict(zip(self.axes, zip(self.window, self.stride, strict=True), strict=True))
        return tuple(
            size
            if size is not None
            else (-(-pooled[axis][0] // pooled[axis][1]) * pooled[axis][1] + 1)
            if axis in pooled
            else 1
            for axis, size in enumerate(shape)
        )


def dtype_of(x: Any) -> str:
    """A tensor's dtype, named as NumPy names it."""
    return keras.backend.standardize_dtype(x.dtype)


def _read(x: Array) -> Array:
    """The tensor itself, also of a TensorFlow variable, which some of `keras.ops` take for a tensor and some do not."""
    return x.read_value() if hasattr(x, "read_value") else x


def slid(x: Array, op: Operation, slide: Slide, operands: Mapping[str, Array]) -> Array:
    """Windows of a tensor pooled. operands: what the operation needs beside it."""
    x = _read(x)
    if BACKEND == "torch":
        return _slid_by_torch(x, op, slide, operands)
    call, choice = _planned(x, op, slide, operands)
    for name, array in operands.items():
        _check_shape(name, array.shape, call.shape_of(name), x.shape, slide.axes)
    if _known(x.shape, slide.axes) or KERAS.own_refusal(call) is None:
        return choice.kernel.forward((x, *operands.values()), call)[0]
    return _slid_at_run_time(x, call, slide, operands)


def cells(sizes: Sequence[Any], slide: Slide) -> list[Any]:
    """A tensor's sizes after pooling, by arithmetic that sizes of a running graph can do."""
    found = list(sizes)
    for axis, taps, step in zip(slide.axes, slide.window, slide.stride, strict=True):
        found[axis] = _outputs(found[axis], taps, step, slide.padding)
    return found


def _check_shape(name: str, given: Shape, wanted: Shape, shape: Shape, axes: tuple[int, ...]) -> None:
    """Refuse an operand that does not broadcast, as far as sizes are known."""
    whole = [size if axis in axes else shape[axis] for axis, size in enumerate(wanted)]
    missing = len(whole) - len(given)
    known = [1 if size is None or whole[missing + place] is None else size for place, size in enumerate(given)]
    check_operand_shape(name, known, [size or 1 for size in whole])


def _slid_by_torch(x: Array, op: Operation, slide: Slide, operands: Mapping[str, Array]) -> Array:
    """PyTorch's own operations pool only the last axes: a view that puts them there lets those serve what they can."""
    if operands:
        rules: dict[str, Any] = {"stride": slide.stride, "padding": slide.padding, "axes": slide.axes}
        return pool(x, op, slide.window, **rules, operands=operands)
    last = tuple(range(-len(slide.axes), 0))
    y = pool(x.movedim(slide.axes, last), op, slide.window, stride=slide.stride, padding=slide.padding)
    return y.movedim(last, slide.axes)


def _planned(x: Array, op: Operation, slide: Slide, operands: Mapping[str, Array]) -> Any:
    shape = slide.stand_in(x.shape)
    facts = Facts(shape, dtype_of(x), tuple(range(len(shape))), BACKEND)
    kinds = tuple(map(type, slide.arguments))
    names, extras = (INPUT, *operands), tuple(map(dtype_of, operands.values()))
    return planned(KERAS, facts, op, sliding, slide.arguments, kinds, names, None, False, extras)


def _known(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether at most one size, none of them pooled, is left to run time."""
    return all(shape[axis] is not None for axis in axes) and list(shape).count(None) <= 1


def reduced(
    x: Array,
    op: Operation,
    axes: tuple[int, ...],
    keepdims: bool,
    where: Array | None,
    operands: Mapping[str, Array],
) -> Array:
    """All of each of `axes` pooled to one cell."""
    x = _read(x)
    if BACKEND == "torch":
        return global_pool(x, op, axes=axes, keepdims=keepdims, where=where, operands=operands)
    batch = [axis for axis in range(len(x.shape)) if axis not in axes]
    sizes: Any = ops.shape(x)
    taps = _product(sizes[axis] for axis in axes)
    flat = (*(sizes[axis] for axis in batch), taps)
    values = ops.reshape(ops.transpose(x, (*batch, *axes)), flat)
    present = ops.ones_like(values, dtype="bool")
    if where is not None:
        present = ops.reshape(ops.transpose(ops.broadcast_to(where, sizes), (*batch, *axes)), flat)
    extras = {
        name: _whole_part(array, op.over(name), (*batch, *axes), [sizes[axis] for axis in axes])
        for name, array in operands.items()
    }
    y = _operated(values, present, [sizes[axis] for axis in axes], op, dtype_of(x), extras)
    return ops.reshape(y, [1 if axis in axes else sizes[axis] for axis in range(len(x.shape))]) if keepdims else y


def _slid_at_run_time(x: Array, call: Call, slide: Slide, operands: Mapping[str, Array]) -> Array:
    """Windows gathered where only the running graph knows the sizes (TensorFlow's unknown dimensions)."""
    sizes: Any = ops.shape(x)
    batch = [axis for axis in range(len(x.shape)) if axis not in slide.axes]
    order = (*batch, *slide.axes)
    tables = [
        _table(sizes[axis], taps, step, slide.padding)
        for axis, taps, step in zip(slide.axes, slide.window, slide.stride, strict=True)
    ]
    outputs = [cast("Any", ops.shape(index))[0] for index, _ in tables]
    values = _sliding(ops.transpose(x, order), tables, slide.window)
    extras = {
        name: _sliding_part(array, call.over(name), order, [sizes[axis] for axis in slide.axes], tables, slide.window)
        for name, array in operands.items()
    }
    taps = prod(slide.window)
    y = _operated(values, _present(tables, (*outputs, taps)), slide.window, call.op, call.dtype, extras)
    return ops.transpose(y, sorted(range(len(order)), key=order.__getitem__))


def _sliding(values: Array, tables: Sequence[tuple[Array, Array]], window: Sequence[int]) -> Array:
    """(batch…, outputs…, taps): what each window reads of (batch…, sizes…)."""
    first = len(values.shape) - len(tables)
    batched = cast("Any", ops.shape(values))[:first]
    for number, (index, _) in enumerate(tables):
        values = ops.take(values, ops.reshape(index, (-1,)), axis=first + number)
    outputs = [cast("Any", ops.shape(index))[0] for index, _ in tables]
    split = [size for output, taps in zip(outputs, window, strict=True) for size in (output, taps)]
    values = ops.transpose(ops.reshape(values, (*batched, *split)), _cells_first(first, len(tables)))
    return ops.reshape(values, (*batched, *outputs, prod(window)))


def _sliding_part(
    array: Array,
    over: str,
    order: tuple[int, ...],
    sizes: Sequence[Any],
    tables: Sequence[tuple[Array, Array]],
    window: Sequence[int],
) -> Array:
    """An operand's parts, as sliding windows lie."""
    if over == "input":
        return _sliding(_spread(array, order, sizes), tables, window)
    if over == "output":
        return _spread(array, order, [cast("Any", ops.shape(index))[0] for index, _ in tables])
    array = _spread(array, order, window)
    batched = cast("Any", ops.shape(array))[: len(order) - len(window)]
    return ops.reshape(array, (*batched, *(1,) * len(window), prod(window)))


def _whole_part(array: Array, over: str, order: tuple[int, ...], sizes: Sequence[Any]) -> Array:
    """An operand's parts, as windows over all of the pooled axes lie."""
    array = _spread(array, order, [1] * len(sizes) if over == "output" else sizes)
    batched = cast("Any", ops.shape(array))[: len(order) - len(sizes)]
    return ops.reshape(array, batched if over == "output" else (*batched, _product(sizes)))


def _spread(array: Array, order: tuple[int, ...], pooled: Sequence[Any]) -> Array:
    """The operand with its axes in this order, and as many entries along the pooled ones, the last, as it lies over."""
    if len(array.shape) < len(order):
        array = ops.reshape(array, (*(1,) * (len(order) - len(array.shape)), *cast("Any", ops.shape(array))))
    array = ops.transpose(array, order)
    batched = cast("Any", ops.shape(array))[: len(order) - len(pooled)]
    return ops.broadcast_to(array, (*batched, *pooled))


def _outputs(size: Any, taps: int, step: int, padding: str) -> Any:
    return (size - taps) // step + 1 if padding == "valid" else -(-size // step)


def _table(size: Any, taps: int, step: int, padding: str) -> tuple[Array, Array]:
    """(outputs, taps): the element that each tap reads, and whether there is one."""
    outputs = _outputs(size, taps, step, padding)
    low = 0 if padding == "valid" else cast("Any", ops.maximum((outputs - 1) * step + taps - size, 0)) // 2
    raw = ops.expand_dims(cast("Any", ops.arange(outputs)) * step - low, 1) + np.arange(taps, dtype="int32")
    return ops.clip(raw, 0, size - 1), ops.logical_and(raw >= 0, raw < size)


def _present(tables: Sequence[tuple[Array, Array]], shape: Sequence[Any]) -> Array:
    """(*outputs, all taps in row-major order): whether a tap reads an element, from its axes' answers."""
    rank = len(tables)
    result = ops.ones((1,) * 2 * rank, "bool")
    for number, (_, inside) in enumerate(tables):
        others = [place for place in range(2 * rank) if place not in (number, rank + number)]
        result = ops.logical_and(result, ops.expand_dims(inside, others))
    return ops.reshape(result, shape)


def _cells_first(batch: int, rank: int) -> tuple[int, ...]:
    """The order that turns (batch…, output, taps, output, taps, …) into (batch…, outputs…, taps…)."""
    cells = [batch + 2 * number for number in range(rank)]
    return (*range(batch), *cells, *(cell + 1 for cell in cells))


def _operated(
    values: Array,
    present: Array,
    window: Sequence[Any],
    op: Operation,
    dtype: str,
    operands: Mapping[str, Array],
) -> Array:
    """The operation on windows that lie on the last axis, in the dtypes that it asks for."""
    working, result = op.working_dtype(dtype), op.result_dtype(dtype)
    values = KERAS.cast(values, working)
    values = ops.where(present, values, KERAS.cast(ops.convert_to_tensor(_fill(op.fill, working)), working))
    count = KERAS.cast(ops.convert_to_tensor(_product(window)), working)
    extras = {name: KERAS.cast(array, working) for name, array in operands.items()} | _extras(op, window, working)
    extras |= {name: ops.where(present, extras[name], 0) for name in operands if op.over(name) == "input"}
    y = op.gathered(KERAS.xp, values, present, count, extras)
    if result in INTEGERS and result != working and not op.wraps:
        limits = np.iinfo(result)
        y = KERAS.xp.clip(y, int(limits.min), int(limits.max))
    return KERAS.cast(y, result)


def _extras(op: Operation, window: Sequence[Any], dtype: str) -> dict[str, Array]:
    """What each tap weighs, for an operation that weighs them."""
    if all(isinstance(taps, int) for taps in window):
        weights = tap_weights(op, window)
        return {} if weights is None else {WEIGHTS: KERAS.cast(KERAS.constant(weights, None), dtype)}
    weights = tap_weights(op, [ops.convert_to_tensor(taps) for taps in window], KERAS.xp)
    return {} if weights is None else {WEIGHTS: KERAS.cast(weights, dtype)}


def _fill(fill: float, dtype: str) -> Any:
    """An operation's neutral element in a dtype that may have no infinity."""
    if dtype not in INTEGERS:
        return np.float32(fill)
    limits = np.iinfo(available(dtype))
    return np.asarray(int(min(max(fill, limits.min), limits.max)), available(dtype))


def _product(sizes: Iterable[Any]) -> Any:
    result: Any = 1
    for size in sizes:
        result = result * size
    return result
