"""The tensors of Keras's TensorFlow and JAX backends, as the kernels see them, and Keras's own pooling operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import keras
import numpy as np
from keras import ops

from poolwise.call import Call
from poolwise.geometry import Bins, Geometry, Regular, same_padding
from poolwise.op import FLOATS, INTEGERS, Array
from poolwise.ops import Max, Mean

BACKEND: str = keras.backend.backend()
MOST_AXES = 3
LONGEST_OWN_MEAN = 64  # taps beyond which TensorFlow's sequential float32 sum exceeds the promised 4 ulp
_ARRAY_API = {
    "concat": "concatenate",
    "pow": "power",
    "asarray": "convert_to_tensor",
    "astype": "cast",
    "permute_dims": "transpose",
}


class Names:
    """`keras.ops` under the array API's names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, _ARRAY_API.get(name, name))

    def max(self, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        """As the array API's, also over the windows of an empty batch, which Keras refuses."""
        return ops.max(x, axis=axis, keepdims=keepdims, initial=_bound(x, "min"))

    def min(self, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        """As `max`."""
        return ops.min(x, axis=axis, keepdims=keepdims, initial=_bound(x, "max"))

    def clip(self, x: Array, low: Any, high: Any) -> Array:
        """As the array API's; bounds as arrays, since JAX reads a Python int as int32."""
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype not in INTEGERS:
            return ops.clip(x, low, high)
        limits = np.iinfo(dtype)
        return ops.clip(x, np.asarray(max(low, limits.min), dtype), np.asarray(min(high, limits.max), dtype))

    def broadcast_to(self, x: Array, shape: Sequence[int | None]) -> Array:
        """As the array API's; a shape that is there already may hold unknown sizes."""
        return x if tuple(x.shape) == tuple(shape) else ops.broadcast_to(x, shape)


def _bound(x: Array, end: str) -> Any:
    """What a reduction of no elements starts from; None: there are elements."""
    if 0 not in x.shape:
        return None
    dtype = keras.backend.standardize_dtype(x.dtype)
    return getattr(np.iinfo(dtype), end) if dtype in INTEGERS else {"min": -np.inf, "max": np.inf}[end]


class KerasFramework:
    """Tensors behind `keras.ops`, which Keras's backend differentiates and compiles.

    max_pool: `keras.ops.max_pool`, or what does the same.
    """

    name = "keras"
    xp = Names()

    def __init__(self, max_pool: Callable[..., Array]) -> None:
        self.max_pool = max_pool

    def empty(self, shape: tuple[int, ...], dtype: str, layout: tuple[int, ...], like: Array) -> Array:
        return ops.zeros(shape, available(dtype))  # never written to: it shows that there is memory

    def constant(self, array: Any, like: Array) -> Array:
        dtype = available(keras.backend.standardize_dtype(array.dtype))
        if dtype in INTEGERS and dtype != str(array.dtype):  # what stands in for an absent tap stays the extreme it is
            array = np.clip(array, np.iinfo(dtype).min, np.iinfo(dtype).max)
        return ops.convert_to_tensor(array, dtype)

    def cast(self, array: Array, dtype: str) -> Array:
        return ops.cast(array, available(dtype))

    def dense(self, array: Array, layout: tuple[int, ...]) -> Array:
        raise NotImplementedError("Keras's tensors do not show their memory")

    def spread(self, array: Array, shape: tuple[int, ...]) -> Array:
        return ops.broadcast_to(array, shape)

    def own_refusal(self, call: Call) -> str | None:
        return _own_refusal(call)

    def own(self, operands: Sequence[Array], call: Call) -> tuple[Array, Array | None]:
        """Keras's own pooling; halves in float32, where a mean should accumulate and TensorFlow has every operation."""
        geometry = call.geometry
        x = self.cast(operands[0], call.op.working_dtype(call.dtype))
        pool = self.max_pool if isinstance(call.op, Max) else ops.average_pool
        pooled = _at_once if geometry.regular and _added_at_once(call) <= LONGEST_OWN_MEAN else _axis_by_axis
        layout = "channels_last" if geometry.axes[0] == 1 else "channels_first"
        return self.cast(pooled(x, geometry, partial(pool, data_format=layout)), call.dtype), None


def _at_once(x: Array, geometry: Geometry, pool: Callable[..., Array]) -> Array:
    """All axes in one operation."""
    tables = [table for table in geometry.tables if isinstance(table, Regular)]
    padding = "same" if any(table.low or table.high for table in tables) else "valid"
    return pool(x, tuple(table.taps for table in tables), tuple(table.step for table in tables), padding)


def _axis_by_axis(x: Array, geometry: Geometry, pool: Callable[..., Array]) -> Array:
    """One axis after another, from the last, so that the first of equal elements wins."""
    rank = len(geometry.axes)
    for number in reversed(range(rank)):
        axis, table = geometry.axes[number], geometry.tables[number]
        along = partial(_along, pool, number, rank)
        x = along(x, table.taps, table.step) if isinstance(table, Regular) else _binned(x, axis, table, along)
    return x


def _along(pool: Callable[..., Array], number: int, rank: int, x: Array, taps: int, step: int) -> Array:
    """Windows along one of the axes alone."""
    before, after = (1,) * number, (1,) * (rank - 1 - number)
    return pool(x, (*before, taps, *after), (*before, step, *after), "valid")


def _binned(x: Array, axis: int, bins: Bins, along: Callable[..., Array]) -> Array:
    """Of each size that bins have, one or two, the windows at every place; of those the ones that are bins."""
    begin, end = bins.bounds(np.arange(bins.output))
    sizes = np.unique(end - begin)
    places = [np.flatnonzero(end - begin == taps) for taps in sizes]
    windows = [along(x, int(taps), 1) for taps in sizes]
    parts = [ops.take(each, begin[place], axis) for each, place in zip(windows, places, strict=True)]
    return ops.take(ops.concatenate(parts, axis), np.argsort(np.concatenate(places)), axis)


if BACKEND == "tensorflow":
    from poolwise.keras._tensorflow import max_pool, trained_max_pool
else:
    max_pool = trained_max_pool = ops.max_pool

KERAS = KerasFramework(max_pool)
TRAINED = KerasFramework(trained_max_pool)  # for graphs whose gradient is taken


def available(dtype: str) -> str:
    """The dtype, or the narrower one that JAX takes for it while its 64-bit types are off."""
    if BACKEND != "jax" or not dtype.endswith("64"):
        return dtype
    import jax  # noqa: PLC0415  (only where it is the backend, so installed)

    return dtype if jax.config.read("jax_enable_x64") else f"{dtype[:-2]}32"


@lru_cache(maxsize=4096)
def _own_refusal(call: Call) -> str | None:
    geometry, op = call.geometry, call.op
    if type(op) not in (Max, Mean):
        return f"Keras has no {op.name} pooling"
    if call.masked:
        return "Keras's pooling takes no mask"
    if call.keep:
        return "Keras's pooling does not say which element won"
    if call.dtype not in FLOATS:
        return f"Keras's backends differ on integers, and x is {call.dtype}"
    if BACKEND == "tensorflow" and call.dtype == "float64" and len(geometry.axes) == MOST_AXES and isinstance(op, Mean):
        return "TensorFlow averages no float64 in three dimensions"
    if isinstance(op, Mean) and op.divisor is not None:
        return f"Keras's average does not divide by {op.divisor}"
    if isinstance(op, Mean) and _added(call) > LONGEST_OWN_MEAN:
        return f"Keras's average over {prod(geometry.window)} taps is not as exact as promised"
    return _geometry_refusal(geometry, isinstance(op, Mean) and op.count_include_pad)


def _added_at_once(call: Call) -> int:
    """How many numbers an average of all axes in one operation adds for each cell."""
    return prod(call.geometry.window) if isinstance(call.op, Mean) else 0


def _added(call: Call) -> int:
    """The same of the operations that serve: without padding, one axis may be averaged after another."""
    padded = any(table.low or table.high for table in call.geometry.tables)
    return _added_at_once(call) if padded else sum(call.geometry.window)


def _geometry_refusal(geometry: Geometry, padding_counts: bool) -> str | None:
    rank = len(geometry.axes)
    first = geometry.axes[0]
    if rank > MOST_AXES or geometry.axes != tuple(range(first, first + rank)) or len(geometry.shape) != rank + 2:
        return f"Keras pools 1 to {MOST_AXES} axes between batch and channels, and these are {geometry.axes}"
    if any(isinstance(table, Bins) for table in geometry.tables):
        return None
    if not geometry.regular or any(isinstance(table, Regular) and table.dilation != 1 for table in geometry.tables):
        return "Keras's windows are not dilated, and their padding is absent"
    tables = [table for table in geometry.tables if isinstance(table, Regular)]
    if any(table.offset for table in tables):
        return "Keras's windows start with the padding"
    valid = all(table.low == table.high == 0 for table in tables)
    if not valid and not all(_is_same(table) for table in tables):
        return 'Keras pads every axis as "valid" or every axis as "same"'
    if any(table.output != (table.size + table.low + table.high - table.taps) // table.step + 1 for table in tables):
        return "Keras rounds sizes down"
    if not valid and padding_counts:
        return "Keras's average does not count padding"
    return None


def _is_same(table: Regular) -> bool:
    total = same_padding(table.size, table.taps, table.step)
    return (table.low, table.high) == (total // 2, total - total // 2)
