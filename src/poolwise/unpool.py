"""Max unpooling: each maximum back to where it stood, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import _native
from poolwise.doors import NUMPY, enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Padding, Whole, unpooled

Sizes = tuple[int, ...]


def max_unpool(
    y: Any,
    indices: Any,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    axes: Whole | None = None,
    output_size: Sequence[int] | None = None,
) -> Any:
    """The inverse of `max_pool(..., return_indices=True)`: zeros, and each element of y at its index.

    y: array of any dtype and rank. indices: integers of y's shape, flat over the pooled axes in their order.
    window, stride, padding (numbers only), dilation, axes: as in the pooling that is undone.
    output_size: one size per pooled axis, or the whole shape; None: (n − 1)·s − padding + span. Pooling rounds sizes
        down, so anything that is less than a stride away is allowed.
    Where indices repeat (windows that overlap), the last in row-major order wins.
    Raises InvalidValue for an index outside the output, −1 (an empty window's) included.

    Source: Zeiler & Fergus, Visualizing and understanding convolutional networks, 2014, section 2.1.

    >>> import numpy as np, poolwise
    >>> y, indices = poolwise.max_pool(np.array([[1, 3], [2, 4]]), (2, 2), return_indices=True)
    >>> max_unpool(y, indices, (2, 2))
    array([[0, 0],
           [0, 4]])
    """
    try:
        door, y = enter(y)
        if door is not NUMPY:
            raise InvalidType(f"y must be a NumPy array, got {type(y).__name__}; pass numpy.asarray(y)")
        places = _places(indices, y)
        pooled, shape = unpooled(y.shape, axes, window, stride, padding, dilation, output_size)
        return _scattered(y, places, pooled, shape)
    except Fault as fault:
        raise fault.within("max_unpool") from None


def _places(indices: Any, y: NDArray[Any]) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise InvalidType(f"indices must be integers, got {array.dtype}")
    if array.shape != y.shape:
        raise InvalidValue(f"indices must have y's shape {y.shape}, got {array.shape}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise InvalidValue(f"indices must fit 64 bits, got {array.max()}")
    return array.astype(np.int64, copy=False)


def _scattered(y: NDArray[Any], places: NDArray[np.int64], axes: Sizes, shape: Sizes) -> NDArray[Any]:
    """Batch axes first, pooled ones last: planes that the native module fills one by one."""
    last = tuple(range(y.ndim - len(axes), y.ndim))
    values = np.ascontiguousarray(np.moveaxis(y, axes, last))
    indices = np.ascontiguousarray(np.moveaxis(places, axes, last))
    sizes = [shape[axis] for axis in axes]
    inputs, outputs = prod(y.shape[axis] for axis in axes), prod(sizes)
    planes = prod(values.shape[: y.ndim - len(axes)])
    x = np.empty((*values.shape[: y.ndim - len(axes)], *sizes), y.dtype)
    raw = f"u{y.itemsize}"
    bad = _native.unpool(y.itemsize, planes, inputs, outputs, 1, values.view(raw), indices, x.view(raw))
    if bad >= 0:
        raise InvalidValue(f"indices must be between 0 and {outputs - 1}, got {indices.reshape(-1)[bad]}")
    return np.ascontiguousarray(np.moveaxis(x, last, axes))
