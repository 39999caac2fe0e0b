"""How a layer's tensor is pooled: by PyTorch's door, by a kernel on `keras.ops`, or as sizes that only a run knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from poolwise.api import global_pool, planned
from poolwise.call import INPUT, Call, Framework
from poolwise.doors import Facts, check_operand_shape
from poolwise.keras._framework import BACKEND, KERAS, TRAINED, available
from poolwise.keras._reach import Reach, Shape, Slide, Table
from poolwise.op import INTEGERS, WEIGHTS, Array, Operation, tap_weights


def dtype_of(x: Any) -> str:
    """A tensor's dtype, named as NumPy names it."""
    return keras.backend.standardize_dtype(x.dtype)


def _read(x: Array) -> Array:
    """The tensor itself, also of a TensorFlow variable, which some of `keras.ops` take for a tensor and some do not."""
    return x.read_value() if hasattr(x, "read_value") else x


def slid(x: Array, op: Operation, reach: Reach, operands: Mapping[str, Array], training: Any = None) -> Array:
    """Windows of a tensor pooled. operands: what the operation needs beside it. training: whether it is certain."""
    x = _read(x)
    if BACKEND == "torch":
        return _slid_by_torch(x, op, reach, operands)
    call, choice = _planned(x, op, reach, operands, TRAINED if training is True else KERAS)
    for name, array in operands.items():
        _check_shape(name, array.shape, call.shape_of(name), x.shape, reach.axes)
    known, own = _known(x.shape, reach.axes), KERAS.own_refusal(call) is None
    if own and (known or isinstance(reach, Slide)):
        return choice.kernel.forward((x, *operands.values()), call)[0]
    if reach.whole:
        return reduced(x, op, reach.axes, True, None, operands)
    if known:
        return choice.kernel.forward((x, *operands.values()), call)[0]
    return _slid_at_run_time(x, call, reach, operands)


def _check_shape(name: str, given: Shape, wanted: Shape, shape: Shape, axes: tuple[int, ...]) -> None:
    """Refuse an operand that does not broadcast, as far as sizes are known."""
    whole = [size if axis in axes else shape[axis] for axis, size in enumerate(wanted)]
    missing = len(whole) - len(given)
    known = [1 if size is None or whole[missing + place] is None else size for place, size in enumerate(given)]
    check_operand_shape(name, known, [size or 1 for size in whole])


def _slid_by_torch(x: Array, op: Operation, reach: Reach, operands: Mapping[str, Array]) -> Array:
    """PyTorch's own operations pool only the last axes: a view that puts them there lets those serve what they can."""
    if operands:
        return reach.pool(x, op, reach.axes, operands)
    last = tuple(range(-len(reach.axes), 0))
    return reach.pool(x.movedim(reach.axes, last), op, last, operands).movedim(last, reach.axes)


def _planned(x: Array, op: Operation, reach: Reach, operands: Mapping[str, Array], framework: Framework) -> Any:
    shape = reach.stand_in(x.shape)
    facts = Facts(shape, dtype_of(x), tuple(range(len(shape))), BACKEND)
    kinds = tuple(map(type, reach.arguments))
    names, extras = (INPUT, *operands), tuple(map(dtype_of, operands.values()))
    return planned(framework, facts, op, reach.build, reach.arguments, kinds, names, None, False, extras)


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
    y = _operated(values, present, taps, [sizes[axis] for axis in axes], op, dtype_of(x), extras)
    return ops.reshape(y, [1 if axis in axes else sizes[axis] for axis in range(len(x.shape))]) if keepdims else y


def _slid_at_run_time(x: Array, call: Call, reach: Reach, operands: Mapping[str, Array]) -> Array:
    """Windows gathered where only the running graph knows the sizes (TensorFlow's unknown dimensions)."""
    sizes: Any = ops.shape(x)
    batch = [axis for axis in range(len(x.shape)) if axis not in reach.axes]
    order = (*batch, *reach.axes)
    tables = reach.tables(sizes)
    values = _sliding(ops.transpose(x, order), tables)
    extras = {
        name: _sliding_part(array, call.over(name), order, [sizes[axis] for axis in reach.axes], tables)
        for name, array in operands.items()
    }
    present = _present(tables)
    y = _operated(values, present, reach.count(present), _taps(tables), call.op, call.dtype, extras)
    return ops.transpose(y, sorted(range(len(order)), key=order.__getitem__))


def _outputs(tables: Sequence[Table]) -> list[Any]:
    return [cast("Any", ops.shape(table.index))[0] for table in tables]


def _taps(tables: Sequence[Table]) -> list[Any]:
    return [cast("Any", ops.shape(table.index))[1] for table in tables]


def _sliding(values: Array, tables: Sequence[Table]) -> Array:
    """(batch…, outputs…, taps): what each window reads of (batch…, sizes…)."""
    first = len(values.shape) - len(tables)
    batched = cast("Any", ops.shape(values))[:first]
    for number, table in enumerate(tables):
        values = ops.take(values, ops.reshape(table.index, (-1,)), axis=first + number)
    outputs, taps = _outputs(tables), _taps(tables)
    split = [size for pair in zip(outputs, taps, strict=True) for size in pair]
    values = ops.transpose(ops.reshape(values, (*batched, *split)), _cells_first(first, len(tables)))
    return ops.reshape(values, (*batched, *outputs, _product(taps)))


def _sliding_part(
    array: Array, over: str, order: tuple[int, ...], sizes: Sequence[Any], tables: Sequence[Table]
) -> Array:
    """An operand's parts, as sliding windows lie."""
    if over == "input":
        return _sliding(_spread(array, order, sizes), tables)
    if over == "output":
        return _spread(array, order, _outputs(tables))
    taps = _taps(tables)
    array = _spread(array, order, taps)
    batched = cast("Any", ops.shape(array))[: len(order) - len(taps)]
    return ops.reshape(array, (*batched, *(1,) * len(taps), _product(taps)))


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


def _present(tables: Sequence[Table]) -> Array:
    """(*outputs, all taps in row-major order): whether a tap reads an element, from its axes' answers."""
    rank = len(tables)
    result = ops.ones((1,) * 2 * rank, "bool")
    for number, table in enumerate(tables):
        others = [place for place in range(2 * rank) if place not in (number, rank + number)]
        result = ops.logical_and(result, ops.expand_dims(table.inside, others))
    return ops.reshape(result, (*_outputs(tables), _product(_taps(tables))))


def _cells_first(batch: int, rank: int) -> tuple[int, ...]:
    """The order that turns (batch…, output, taps, output, taps, …) into (batch…, outputs…, taps…)."""
    cells = [batch + 2 * number for number in range(rank)]
    return (*range(batch), *cells, *(cell + 1 for cell in cells))


def _operated(
    values: Array,
    present: Array,
    count: Any,
    window: Sequence[Any],
    op: Operation,
    dtype: str,
    operands: Mapping[str, Array],
) -> Array:
    """The operation on windows that lie on the last axis, in the dtypes that it asks for."""
    working, result = op.working_dtype(dtype), op.result_dtype(dtype)
    values = KERAS.cast(values, working)
    values = ops.where(present, values, KERAS.cast(ops.convert_to_tensor(_fill(op.fill, working)), working))
    count = KERAS.cast(ops.convert_to_tensor(count), working)
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
