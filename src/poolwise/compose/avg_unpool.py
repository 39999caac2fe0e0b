"""Average unpooling: each average back over the elements of its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType
from poolwise.geometry import Geometry, Padding, Whole, unpooled
from poolwise.op import FLOATS, Array


def avg_unpool(
    y: Any,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    output_size: Sequence[int] | None = None,
    axes: Whole | None = None,
) -> Any:
    """Each element the mean of the averages whose windows read it; zero where none does.

    Where windows do not overlap every average is repeated over its window, and pooling the result gives the averages
    again. (The adjoint of average pooling, which shares an average out instead, is its gradient: `pool_backward`.)

    y: floats of any rank. window, stride, padding (numbers only), dilation, axes: as in the pooling that is undone.
    output_size: one size per pooled axis, or the whole shape; None: (n − 1)·s − padding + span.
    Returns an array of y's own type. Raises InvalidValue or InvalidType that names the argument.

    Source: the counterpart for averages of Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV
    2014, section 2.1.

    >>> import numpy as np, poolwise
    >>> poolwise.avg_unpool(np.array([1.0, 3.0]), (2,))
    array([1., 1., 3., 3.])
    >>> poolwise.avg_unpool(np.array([1.0, 3.0]), (3,), stride=2)
    array([1., 1., 2., 3., 3.])
    """
    try:
        door, y = enter(y)
        facts = door.facts(y)
        if facts.dtype not in FLOATS:
            raise InvalidType(f"y must have one of the dtypes {', '.join(FLOATS)}, got {facts.dtype}")
        pooled, shape = unpooled(facts.shape, axes, window, stride, padding, dilation, output_size)
        geometry = Geometry.of(shape, pooled, window=window, stride=stride, padding=padding, dilation=dilation)
    except Fault as fault:
        raise fault.within("avg_unpool") from None
    half = facts.dtype in ("float16", "bfloat16")
    x = door.framework.cast(y, "float32") if half else y
    for axis, table in zip(geometry.axes, geometry.tables, strict=True):
        rows = table.table()
        x = _averaged(door, x, axis, *_readers(rows.index, rows.mask, table.size))
    return door.framework.cast(x, facts.dtype) if half else x


def _readers(index: NDArray[Any], mask: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(size, most readers): which windows read each element, and whether there is one."""
    window = np.broadcast_to(np.arange(len(index))[:, None], index.shape)[mask]
    element = index[mask]
    order = np.argsort(element, kind="stable")
    count = np.bincount(element, minlength=size)
    present = np.arange(max(1, count.max(initial=0))) < count[:, None]
    readers = np.zeros(present.shape, np.int64)
    readers[present] = window[order]
    return readers, present


def _averaged(door: Door, y: Array, axis: int, readers: NDArray[Any], present: NDArray[Any]) -> Array:
    """Along one axis, the mean of the windows that read each element."""
    xp, most = door.framework.xp, readers.shape[1]
    along = [1] * len(y.shape)
    along[axis] = len(readers)
    count = np.maximum(present.sum(axis=1), 1)
    total: Any = 0
    for number in range(most):
        part = xp.take(y, door.framework.constant(readers[:, number], y), axis=axis)
        here = door.framework.constant(present[:, number].reshape(along), y)
        total = total + xp.where(here, part, xp.zeros_like(part))
    return total / door.framework.cast(door.framework.constant(count.reshape(along), y), _dtype(y))


def _dtype(y: Array) -> str:
    return str(y.dtype).rpartition(".")[2]
