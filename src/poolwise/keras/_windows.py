"""How a layer's tensor is pooled: by PyTorch's door, by a kernel on `keras.ops`, or as sizes that only a run knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple, cast

import keras
import numpy as np
from keras import ops

from poolwise.api import global_pool, planned, pool, sliding
from poolwise.call import INPUT, Call
from poolwise.doors import Facts
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


def slid(x: Array, op: Operation, slide: Slide) -> Array:
    """Windows of a tensor pooled."""
    x = _read(x)
    if BACKEND == "torch":
        return _slid_by_torch(x, op, slide)
    call, choice = _planned(x, op, slide)
    if _known(x.shape, slide.axes) or KERAS.own_refusal(call) is None:
        return choice.kernel.forward((x,), call)[0]
    return _slid_at_run_time(x, call, slide)


def _slid_by_torch(x: Array, op: Operation, slide: Slide) -> Array:
    """PyTorch's own operations pool only the last axes: a view that puts them there lets those serve what they can."""
    last = tuple(range(-len(slide.axes), 0))
    y = pool(x.movedim(slide.axes, last), op, slide.window, stride=slide.stride, padding=slide.padding)
    return y.movedim(last, slide.axes)


def _planned(x: Array, op: Operation, slide: Slide) -> Any:
    shape = slide.stand_in(x.shape)
    facts = Facts(shape, dtype_of(x), tuple(range(len(shape))), BACKEND)
    kinds = tuple(map(type, slide.arguments))
    return planned(KERAS, facts, op, sliding, slide.arguments, kinds, (INPUT,), None, False)


def _known(shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether at most one size, none of them pooled, is left to run time."""
    return all(shape[axis] is not None for axis in axes) and list(shape).count(None) <= 1


def reduced(x: Array, op: Operation, axes: tuple[int, ...], keepdims: bool, where: Array | None) -> Array:
    """All of each of `axes` pooled to one cell."""
    x = _read(x)
    if BACKEND == "torch":
        return global_pool(x, op, axes=axes, keepdims=keepdims, where=where)
    batch = [axis for axis in range(len(x.shape)) if axis not in axes]
    sizes: Any = ops.shape(x)
    taps = _product(sizes[axis] for axis in axes)
    flat = (*(sizes[axis] for axis in batch), taps)
    values = ops.reshape(ops.transpose(x, (*batch, *axes)), flat)
    present = ops.ones_like(values, dtype="bool")
    if where is not None:
        present = ops.reshape(ops.transpose(ops.broadcast_to(where, sizes), (*batch, *axes)), flat)
    y = _operated(values, present, [sizes[axis] for axis in axes], op, dtype_of(x))
    return ops.reshape(y, [1 if axis in axes else sizes[axis] for axis in range(len(x.shape))]) if keepdims else y


def _slid_at_run_time(x: Array, call: Call, slide: Slide) -> Array:
    """Windows gathered where only the running graph knows the sizes (TensorFlow's unknown dimensions)."""
    sizes: Any = ops.shape(x)
    batch = [axis for axis in range(len(x.shape)) if axis not in slide.axes]
    order = (*batch, *slide.axes)
    tables = [
        _table(sizes[axis], taps, step, slide.padding)
        for axis, taps, step in zip(slide.axes, slide.window, slide.stride, strict=True)
    ]
    outputs = [cast("Any", ops.shape(index))[0] for index, _ in tables]
    values = ops.transpose(x, order)
    for number, (index, _) in enumerate(tables):
        values = ops.take(values, ops.reshape(index, (-1,)), axis=len(batch) + number)
    batched = tuple(sizes[axis] for axis in batch)
    split = [size for output, taps in zip(outputs, slide.window, strict=True) for size in (output, taps)]
    values = ops.transpose(ops.reshape(values, (*batched, *split)), _cells_first(len(batch), len(tables)))
    taps = prod(slide.window)
    values = ops.reshape(values, (*batched, *outputs, taps))
    y = _operated(values, _present(tables, (*outputs, taps)), slide.window, call.op, call.dtype)
    return ops.transpose(y, sorted(range(len(order)), key=order.__getitem__))


def _table(size: Any, taps: int, step: int, padding: str) -> tuple[Array, Array]:
    """(outputs, taps): the element that each tap reads, and whether there is one."""
    outputs = (size - taps) // step + 1 if padding == "valid" else -(-size // step)
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


def _operated(values: Array, present: Array, window: Sequence[Any], op: Operation, dtype: str) -> Array:
    """The operation on windows that lie on the last axis, in the dtypes that it asks for."""
    working, result = op.working_dtype(dtype), op.result_dtype(dtype)
    values = KERAS.cast(values, working)
    values = ops.where(present, values, KERAS.cast(ops.convert_to_tensor(_fill(op.fill, working)), working))
    count = KERAS.cast(ops.convert_to_tensor(_product(window)), working)
    y = op.gathered(KERAS.xp, values, present, count, _extras(op, window, working))
    if result in INTEGERS and result != working:
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
