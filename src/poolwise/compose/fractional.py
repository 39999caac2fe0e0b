"""Fractional pooling: windows of one size, a random and not whole distance apart."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from poolwise.api import adaptive_pool
from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Whole, fractional
from poolwise.op import FLOATS, Array, Operation


def fractional_pool(
    x: Any,
    op: Operation,
    window: Whole,
    output_size: Whole,
    *,
    draws: Any = None,
    seed: int | None = None,
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
    seed: of NumPy's generator, where no draws are given; None: another one every time.
    axes: the pooled axes; None: the last len(window). return_indices, kernel: as in `adaptive_pool`.

    Raises InvalidValue or InvalidType that names the argument, before any work is done.

    Source: Graham, Fractional max-pooling, 2014, section 2.

    >>> import numpy as np, poolwise
    >>> fractional_pool(np.arange(10.0), poolwise.Max(), (2,), (4,), draws=[0.5])
    array([1., 4., 6., 9.])
    """
    try:
        door, x = enter(x)
        pooled, taps, outputs = fractional(tuple(x.shape), axes, window, output_size)
        draws = _drawn(draws, seed, x, pooled, door)
    except Fault as fault:
        raise fault.within("fractional_pool") from None
    xp, last = door.framework.xp, tuple(range(-len(pooled), 0))
    sizes = [x.shape[axis] for axis in pooled]
    places = [
        _places(door, draws[..., i], *numbers) for i, numbers in enumerate(zip(sizes, taps, outputs, strict=True))
    ]
    dtype = _dtype(x)
    half = dtype in ("float16", "bfloat16")  # an element that many windows read sums its gradients in float32
    windows = xp.moveaxis(door.framework.cast(x, "float32") if half else x, pooled, last)
    for axis, place in zip(last, places, strict=True):
        along = [1] * len(pooled)
        along[axis] = place.shape[-1]
        windows = xp.take_along_axis(windows, xp.reshape(place, (*place.shape[:-1], *along)), axis=axis)
    y = adaptive_pool(windows, op, outputs, return_indices=return_indices, kernel=kernel)
    y, flat = y if return_indices else (y, None)
    y = xp.moveaxis(door.framework.cast(y, dtype) if half else y, last, pooled)
    return y if flat is None else (y, xp.moveaxis(_in_input(xp, flat, places, sizes), last, pooled))


def _places(door: Door, draws: Array, size: int, taps: int, outputs: int) -> Array:
    """(…planes, outputs · taps): the elements that the windows along one axis read, window by window."""
    xp = door.framework.xp
    start = xp.zeros_like(xp.expand_dims(draws, axis=-1))
    if outputs > 1:
        u, distance = xp.expand_dims(draws, axis=-1), (size - taps) / (outputs - 1)
        dtype = _dtype(draws)
        number = door.framework.cast(door.framework.constant(np.arange(outputs - 1), draws), dtype)
        start = xp.floor((number + u) * distance) - xp.floor(u * distance)
        start = xp.concat([start, xp.zeros_like(u)], axis=-1)
    start = door.framework.cast(start, "int64")
    final = door.framework.constant(np.arange(outputs) == outputs - 1, draws)
    start = xp.where(final | (start > size - taps), size - taps, xp.where(start < 0, 0, start))  # rounded, still inside
    places = xp.expand_dims(start, axis=-1) + door.framework.constant(np.arange(taps), draws)
    return xp.reshape(places, (*draws.shape, outputs * taps))


def _in_input(xp: Any, flat: Array, places: list[Array], sizes: list[int]) -> Array:
    """Flat positions among the gathered elements as flat positions in the input."""
    shape = flat.shape
    flat = xp.reshape(flat, (*shape[: len(shape) - len(places)], prod(shape[len(shape) - len(places) :])))
    result, scale = xp.zeros_like(flat), 1
    for place, size in zip(reversed(places), reversed(sizes), strict=True):
        width = place.shape[-1]
        result = result + xp.take_along_axis(place, flat % width, axis=-1) * scale
        flat, scale = flat // width, scale * size
    return xp.reshape(result, shape)


def _dtype(array: Array) -> str:
    """Its name, whatever the framework."""
    return str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2]


def _drawn(draws: Any, seed: int | None, x: Array, pooled: tuple[int, ...], door: Door) -> Array:
    planes = tuple(size for axis, size in enumerate(x.shape) if axis not in pooled)
    wanted = (*planes, len(pooled))
    if draws is None:
        return door.framework.constant(np.random.default_rng(_checked_seed(seed)).random(wanted), x)
    if seed is not None:
        raise InvalidValue(f"seed must be None where draws are given, got {seed!r}")
    draws = np.asarray(draws) if isinstance(draws, list | tuple) else draws
    found, draws = enter(draws)
    if found is not door:
        raise InvalidType(f"draws must be an array of {door.framework.name}, as x is, got {type(draws).__name__}")
    name = _dtype(draws)
    if name not in FLOATS:
        raise InvalidType(f"draws must be floats, got {name}")
    if tuple(draws.shape) != wanted:
        raise InvalidValue(f"draws must have the shape {wanted}, got {tuple(draws.shape)}")
    if not door.tracing() and door.facts(draws).device == "cpu" and not ((draws >= 0) & (draws < 1)).all():
        raise InvalidValue("draws must be at least 0 and less than 1, got others")
    return draws if name in ("float32", "float64") else door.framework.cast(draws, "float32")


def _checked_seed(seed: int | None) -> int | None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise InvalidType(f"seed must be None or an int of at least 0, got {seed!r}")
    return None if seed is None else int(seed)
