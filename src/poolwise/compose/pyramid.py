"""Pyramids of adaptive bins: one vector of fixed length, or one small map for each level."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from poolwise.api import adaptive_pool
from poolwise.compose.blocks import sizes_of
from poolwise.compose.named import operation
from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType, InvalidValue, shown
from poolwise.geometry import Whole, channel, pooled_axes
from poolwise.op import Array, Operation

PLACED = "an int of at least 1 or a tuple of them, one for each pooled axis"
UNPLACED = "a tuple of ints of at least 1, one for each pooled axis (an int needs axes beside it)"


def spatial_pyramid_pool(
    x: Any,
    levels: Sequence[Whole] = (1, 2, 4),
    *,
    op: str | Operation = "max",
    axes: Whole | None = None,
    channel_axis: int | None = None,
    where: Any = None,
) -> Any:
    """Pool to each level's grid of bins, and line all of them up: a vector whose length no input size changes.

    What stands before a dense layer of a network that takes images of any size; a global pooling is the level 1 alone,
    and knows nothing of places.

    x: array of any size. levels: bins per pooled axis, an int or a tuple for each level: 21 cells per channel for
        (1, 2, 4) over two axes.
    op: an operation, or the name of one (`max`, as in the paper, `avg`, …) with its defaults.
    axes: the pooled axes; None: the last, as many as each level has entries. channel_axis: where the channels are;
        None: before the pooled axes. where: as in `pool`.

    Returns (*batch, features): the levels one after another, in each the channels, in each its bins in row-major order.
    Raises InvalidValue or InvalidType that names the argument.

    Source: He et al., Spatial pyramid pooling in deep convolutional networks for visual recognition, ECCV 2014, section
    2.2, with bins that cover the input exactly.

    >>> import numpy as np, poolwise
    >>> poolwise.spatial_pyramid_pool(np.arange(12.0).reshape(1, 3, 4), (1, 2), axes=(1, 2))
    array([11.,  5.,  7.,  9., 11.])
    """
    try:
        door, x = enter(x)
        pooled, grids = _grids(door, x, levels, op, axes, where)
        shared = channel(len(x.shape), pooled, channel_axis)
    except Fault as fault:
        raise fault.said_by("spatial_pyramid_pool") from None
    xp, own = door.framework.xp, (*(() if shared is None else (shared,)), *pooled)
    rows: list[Array] = []
    for grid in grids:
        last = xp.moveaxis(grid, own, tuple(range(-len(own), 0)))
        sizes = sizes_of(last)
        batch = sizes[: len(sizes) - len(own)]
        rows.append(xp.reshape(last, (*batch, prod(sizes[len(batch) :]))))
    return xp.concat(rows, axis=-1)


def pyramid_pool(
    x: Any,
    levels: Sequence[Whole] = (1, 2, 3, 6),
    *,
    op: str | Operation = "avg",
    axes: Whole | None = None,
    where: Any = None,
) -> Any:
    """Pool to each level's grid of bins: the pyramid that a scene parser resizes and puts beside its features.

    x: array. levels: bins per pooled axis, an int or a tuple for each level.
    op: an operation, or the name of one (`avg`, as in the paper, `max`, …) with its defaults.
    axes: the pooled axes; None: the last, as many as each level has entries. where: as in `pool`.

    Returns a tuple of arrays, one for each level, with its sizes on the pooled axes. The 1 × 1 convolutions and the
    upsampling that follow are the framework's own.
    Raises InvalidValue or InvalidType that names the argument.

    Source: Zhao et al., Pyramid scene parsing network, CVPR 2017, section 3.2.

    >>> import numpy as np, poolwise
    >>> [level.tolist() for level in poolwise.pyramid_pool(np.arange(6.0), ((1,), (3,)))]
    [[2.5], [0.5, 2.5, 4.5]]
    """
    try:
        door, x = enter(x)
        return tuple(_grids(door, x, levels, op, axes, where)[1])
    except Fault as fault:
        raise fault.said_by("pyramid_pool") from None


def _grids(
    door: Door, x: Array, levels: Any, op: Any, axes: Whole | None, where: Any
) -> tuple[tuple[int, ...], list[Array]]:
    """The pooled axes, and each level's cells."""
    made, shape = operation(op), door.facts(x).shape
    if not isinstance(levels, Sequence) or isinstance(levels, str | bytes):
        raise _no_levels(InvalidType, levels, axes)
    try:
        pooled = {pooled_axes(shape, axes, level, "levels") for level in levels}
        if len(pooled) == 1:
            return pooled.pop(), [adaptive_pool(x, made, level, axes=axes, where=where) for level in levels]
    except Fault as fault:
        if fault.fact.startswith(("levels must", "output_size must")):  # a fault names its argument first
            raise _no_levels(type(fault), levels, axes) from None
        raise type(fault)(fault.fact.replace("output_size", "levels", 1)) from None  # what is called a level here
    raise _no_levels(InvalidValue, levels, axes)


def _no_levels(kind: type[Fault], levels: Any, axes: Whole | None) -> Fault:
    each = PLACED if axes is not None else UNPLACED
    return kind(f"levels must be a tuple of at least one level, each {each}, got {shown(levels)}")
