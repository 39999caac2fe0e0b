"""Max unpooling: each maximum back to where it stood, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import _native
from poolwise.call import memory_order
from poolwise.doors import NUMPY, enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Padding, Whole, unpooled

Sizes = tuple[int, ...]
Unpool = Callable[[Any, Any, Sizes, Sizes], Any]  # y, indices, the pooled axes, the output's shape -> the output


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

    y: array of any dtype and rank. indices: integers of y's shape, flat over the pooled axes in their order; of y's own
        framework, which differentiates with respect to y.
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
        if door.framework.name not in _unpools:
            raise InvalidType(f"y must be a NumPy array or a PyTorch tensor, got {type(y).__name__}")
        pooled, shape = unpooled(tuple(y.shape), axes, window, stride, padding, dilation, output_size)
        return _unpools[door.framework.name](y, indices, pooled, shape)
    except Fault as fault:
        raise fault.within("max_unpool") from None


def register(framework: str, unpool: Unpool) -> None:
    """Arrays of this framework are unpooled by this function."""
    _unpools[framework] = unpool


def scattered(y: NDArray[Any], indices: NDArray[np.int64], axes: Sizes, shape: Sizes) -> NDArray[Any]:
    """y's elements at their indices, zeros elsewhere; in y's memory order."""
    order = _order(y, axes)
    x = np.empty([shape[axis] for axis in order], y.dtype)
    _run(_native.unpool, y.shape, shape, axes, order, _flat(y, order), _flat(indices, order), x)
    return x.transpose(np.argsort(order))


def picked(g: NDArray[Any], indices: NDArray[np.int64], axes: Sizes) -> NDArray[Any]:
    """The gradient of `scattered`: what stands at each index, zero for an element that a later one replaced."""
    order = _order(indices, axes)
    gy = np.empty([indices.shape[axis] for axis in order], g.dtype)
    _run(_native.unpool_backward, indices.shape, g.shape, axes, order, _flat(g, order), _flat(indices, order), gy)
    return gy.transpose(np.argsort(order))


def _by_numpy(y: NDArray[Any], indices: Any, axes: Sizes, shape: Sizes) -> NDArray[Any]:
    places = np.asarray(indices)
    check_indices(places.dtype.name, places.shape, y.shape)
    if places.dtype == np.uint64 and places.size and places.max() > np.iinfo(np.int64).max:
        raise InvalidValue(f"indices must fit 64 bits, got {places.max()}")
    return scattered(y, places.astype(np.int64, copy=False), axes, shape)


_unpools: dict[str, Unpool] = {NUMPY.framework.name: _by_numpy}


def check_indices(dtype: str, shape: Sizes, expected: Sizes) -> None:
    """Refuse what cannot be indices of an array of the shape `expected`."""
    if not dtype.startswith(("int", "uint")):
        raise InvalidType(f"indices must be integers, got {dtype}")
    if tuple(shape) != tuple(expected):
        raise InvalidValue(f"indices must have y's shape {tuple(expected)}, got {tuple(shape)}")


def _order(array: NDArray[Any], axes: Sizes) -> Sizes:
    """The axes as memory holds them if the pooled ones stand together there, in their order; else pooled ones last."""
    order = memory_order(array.shape, array.strides)
    first = order.index(axes[0])
    if order[first : first + len(axes)] == axes:
        return order
    return (*(axis for axis in order if axis not in axes), *axes)


def _flat(array: NDArray[Any], order: Sizes) -> NDArray[Any]:
    return np.ascontiguousarray(array.transpose(order))


def _run(
    function: Callable[..., int],
    inputs: Sizes,
    outputs: Sizes,
    axes: Sizes,
    order: Sizes,
    source: NDArray[Any],
    indices: NDArray[np.int64],
    target: NDArray[Any],
) -> None:
    """The module's function on planes that stand `outer` times, each holding `inner` elements per position."""
    first = order.index(axes[0])
    outer = prod(inputs[axis] for axis in order[:first])
    inner = prod(inputs[axis] for axis in order[first + len(axes) :])
    sizes = tuple(outputs[axis] for axis in axes)
    cells, positions = prod(inputs[axis] for axis in axes), prod(outputs[axis] for axis in axes)
    raw = f"u{target.itemsize}"
    bad = function(target.itemsize, outer, cells, positions, inner, source.view(raw), indices, target.view(raw))
    if bad >= 0:
        raise InvalidValue(
            f"indices must be between 0 and {positions - 1}, the positions of {sizes}, got {indices.reshape(-1)[bad]}; "
            "output_size says what was pooled where that is larger"
        )
