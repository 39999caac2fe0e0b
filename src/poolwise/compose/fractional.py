"""Fractional pooling: windows of one size, a random and not whole distance apart."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from poolwise.api import adaptive_pool
from poolwise.compose.blocks import sizes_of
from poolwise.compose.draws import drawn, dtype_of, known, per_plane
from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Whole, fractional, pooled_axes
from poolwise.op import Array, Operation
from poolwise.ops.max import Max
from poolwise.ops.mean import Mean


def fractional_pool(
    x: Any,
    op: Operation,
    window: Whole,
    output_size: Whole,
    *,
    draws: Any = None,
    seed: Any = None,
    axes: Whole | None = None,
    return_indices: bool = False,
    kernel: str | None = None,
) -> Any:
    """Pool to a given output size with windows of one size, whose places each plane draws for itself.

    Along an axis of n elements, window i of m starts at ⌊(i + u)·a⌋ − ⌊u·a⌋ with a = (n − k) / (m − 1), and the last at
    n − k: the pseudorandom, overlapping form, as in PyTorch.

    x: array of any dtype that `op` takes. op: the operation; `Max()` in the paper.
    window: taps k per pooled axis. output_size: cells m per pooled axis, at most n − k + 1.
    draws: one number u, 0 ≤ u < 1, per plane and pooled axis: floats of shape (*the other axes' sizes, pooled axes).
    seed: where no draws are given, an int or the framework's generator; None: others every time.
    axes: the pooled axes; None: the last len(window). return_indices, kernel: as in `adaptive_pool`.

    Raises InvalidValue or InvalidType that names the argument, before any work is done.

    Source: Graham, Fractional max-pooling, 2014, section 2.

    >>> import numpy as np, poolwise
    >>> fractional_pool(np.arange(10.0), poolwise.Max(), (2,), (4,), draws=[0.5])
    array([1., 4., 6., 9.])
    """
    try:
        door, x = enter(x)
        pooled, taps, outputs = fractional(door.facts(x).shape, axes, window, output_size)
        known(x, pooled)
        draws = drawn(door, x, per_plane(x.shape, pooled), draws, seed)
    except Fault as fault:
        raise fault.within("fractional_pool") from None
    xp, last = door.framework.xp, tuple(range(-len(pooled), 0))
    sizes = [x.shape[axis] for axis in pooled]
    planes = [size for axis, size in enumerate(sizes_of(x)) if axis not in pooled]
    places = [
        xp.reshape(_places(door, draws[..., i], *numbers), (*planes, numbers[1] * numbers[2]))
        for i, numbers in enumerate(zip(sizes, taps, outputs, strict=True))
    ]
    dtype = dtype_of(x)
    half = dtype in ("float16", "bfloat16")  # an element that many windows read sums its gradients in float32
    windows = xp.moveaxis(door.framework.cast(x, "float32") if half else x, pooled, last)
    for axis, place in zip(last, places, strict=True):
        along = [1] * len(pooled)
        along[axis] = place.shape[-1]
        windows = xp.take_along_axis(windows, xp.reshape(place, (*planes, *along)), axis=axis)
    try:
        y = adaptive_pool(windows, op, outputs, return_indices=return_indices, kernel=kernel)
    except Fault as fault:
        raise fault.said_by("fractional_pool") from None
    y, flat = y if return_indices else (y, None)
    y = xp.moveaxis(door.framework.cast(y, dtype) if half else y, last, pooled)
    return y if flat is None else (y, xp.moveaxis(_in_input(xp, flat, places, sizes), last, pooled))


def fractional_max_pool(
    x: Any,
    window: Whole,
    output_size: Whole | None = None,
    output_ratio: float | Sequence[float] | None = None,
    *,
    return_indices: bool = False,
    draws: Any = None,
    seed: Any = None,
    axes: Whole | None = None,
) -> Any:
    """The largest element of windows whose places are drawn, a fraction apart: maps shrink by less than 2, say by √2.

    Draws in evaluation too, as PyTorch's layer does; the paper averages the answers of several such runs.

    output_size: cells per pooled axis. output_ratio: in its place, the part of an axis's size, between 0 and 1, that is
        left: a float, or one per pooled axis. The other arguments, and what is raised, are `fractional_pool`'s.

    Source: Graham, Fractional max-pooling, 2014, section 2.

    >>> import numpy as np, poolwise
    >>> poolwise.fractional_max_pool(np.arange(10.0), (2,), output_ratio=0.4, draws=[0.5])
    array([1., 4., 6., 9.])
    """
    rules: dict[str, Any] = {"return_indices": return_indices, "draws": draws, "seed": seed}
    return _sized("fractional_max_pool", x, Max(), window, output_size, output_ratio, axes, rules)


def fractional_avg_pool(
    x: Any,
    window: Whole,
    output_size: Whole | None = None,
    output_ratio: float | Sequence[float] | None = None,
    *,
    draws: Any = None,
    seed: Any = None,
    axes: Whole | None = None,
) -> Any:
    """The mean of windows whose places are drawn, a fraction apart, as in `fractional_max_pool`.

    The arguments, and what is raised, are `fractional_max_pool`'s.

    >>> import numpy as np, poolwise
    >>> poolwise.fractional_avg_pool(np.arange(10.0), (2,), output_ratio=0.4, draws=[0.5])
    array([0.5, 3.5, 5.5, 8.5])
    """
    rules: dict[str, Any] = {"draws": draws, "seed": seed}
    return _sized("fractional_avg_pool", x, Mean(), window, output_size, output_ratio, axes, rules)


def _sized(
    name: str,
    x: Any,
    op: Operation,
    window: Whole,
    output_size: Whole | None,
    output_ratio: float | Sequence[float] | None,
    axes: Whole | None,
    rules: dict[str, Any],
) -> Any:
    """`fractional_pool` to a size, or to a part of the input's."""
    try:
        door, x = enter(x)
        pooled = pooled_axes(door.facts(x).shape, axes, window, "window")
        known(x, pooled)
        outputs = output_sizes([x.shape[axis] for axis in pooled], output_size, output_ratio)
        return fractional_pool(x, op, window, outputs, axes=pooled, **rules)
    except Fault as fault:
        raise fault.said_by(name) from None


def output_sizes(sizes: Sequence[int], output_size: Any, output_ratio: Any) -> Any:
    """The cells per axis: as said, or this part of the sizes."""
    if (output_size is None) == (output_ratio is None):
        raise InvalidValue(
            f"output_size or output_ratio must be given, one of them, got {output_size!r}, {output_ratio!r}"
        )
    if output_size is not None:
        return output_size
    ratios = output_ratio if isinstance(output_ratio, Sequence) else (output_ratio,) * len(sizes)
    if len(ratios) != len(sizes):
        raise InvalidValue(f"output_ratio must be a number or {len(sizes)} of them, got {output_ratio!r}")
    for ratio in ratios:
        if not isinstance(ratio, float):
            raise InvalidType(f"output_ratio must be made of floats, got {output_ratio!r}")
        if not 0 < ratio < 1:
            raise InvalidValue(f"output_ratio must be between 0 and 1, got {output_ratio!r}")
    return tuple([int(size * ratio) for size, ratio in zip(sizes, ratios, strict=True)])


def _places(door: Door, draws: Array, size: int, taps: int, outputs: int) -> Array:
    """(…planes, outputs, taps): the elements that the windows along one axis read, window by window."""
    xp = door.framework.xp
    start = xp.zeros_like(xp.expand_dims(draws, axis=-1))
    if outputs > 1:
        u, distance = xp.expand_dims(draws, axis=-1), (size - taps) / (outputs - 1)
        number = door.framework.cast(door.framework.constant(np.arange(outputs - 1), draws), dtype_of(draws))
        start = xp.floor((number + u) * distance) - xp.floor(u * distance)
        start = xp.concat([start, xp.zeros_like(u)], axis=-1)
    start = door.framework.cast(start, "int64")
    final = door.framework.constant(np.arange(outputs) == outputs - 1, draws)
    start = xp.where(final | (start > size - taps), size - taps, xp.where(start < 0, 0, start))  # rounded, still inside
    return xp.expand_dims(start, axis=-1) + door.framework.constant(np.arange(taps), draws)


def _in_input(xp: Any, flat: Array, places: list[Array], sizes: list[int]) -> Array:
    """Flat positions among the gathered elements as flat positions in the input."""
    shape = sizes_of(flat)
    flat = xp.reshape(flat, (*shape[: len(shape) - len(places)], prod(shape[len(shape) - len(places) :])))
    result, scale = xp.zeros_like(flat), 1
    for place, size in zip(reversed(places), reversed(sizes), strict=True):
        width = place.shape[-1]
        result = result + xp.take_along_axis(place, flat % width, axis=-1) * scale
        flat, scale = flat // width, scale * size
    return xp.reshape(result, shape)
