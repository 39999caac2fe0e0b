"""Average unpooling: each average back over the elements of its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType
from poolwise.geometry import Padding, Whole, unpooled, windows
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
    2014.

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
        rules = zip(pooled, *windows(pooled, window, stride, padding, dilation), strict=True)
    except Fault as fault:
        raise fault.within("avg_unpool") from None
    half = facts.dtype in ("float16", "bfloat16")
    x = door.framework.cast(y, "float32") if half else y
    for axis, taps, step, (low, _), gap in rules:
        x = _averaged(door, x, axis, shape[axis], (taps, step, low, gap))
    return door.framework.cast(x, facts.dtype) if half else x


def _averaged(door: Door, y: Array, axis: int, size: int, rule: tuple[int, int, int, int]) -> Array:
    """Along one axis, the mean of the windows that read each element: at most so many as steps fit a window."""
    xp, (taps, step, low, gap) = door.framework.xp, rule
    place = door.framework.constant(np.arange(size) if isinstance(size, int) else xp.arange(size), y) + low
    along = [1] * len(y.shape)
    along[axis] = -1
    total, count, last = 0, 0, (taps - 1) * gap
    for earlier in range(last // step + 1):
        window = place // step - earlier
        offset = place - window * step
        here = (window >= 0) & (window < y.shape[axis]) & (offset <= last) & (offset % gap == 0)
        part = xp.take(y, xp.where(here, window, xp.zeros_like(window)), axis=axis)
        here = xp.reshape(here, along)
        total = total + xp.where(here, part, xp.zeros_like(part))
        count = count + xp.where(here, 1, 0)
    return total / door.framework.cast(xp.where(count == 0, 1, count), door.facts(y).dtype)
