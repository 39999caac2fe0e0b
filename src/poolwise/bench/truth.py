"""The right answers in plain NumPy, with nothing of the library in them: here those that go axis by axis.

A pooling's windows are, along each axis, ranges of elements: `Ranges` holds where each begins and ends. A maximum is
found tap by tap along one axis after the other; a sum is the difference of two cumulative sums in float64. What needs
a whole window is in `windowed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise import Lp, Max, Mean, ReLUMax
from poolwise.bench import windowed
from poolwise.bench.cases import Bins, Places, Pooling, Sliding
from poolwise.bench.windowed import Numbers, Operands

Ints: TypeAlias = NDArray[np.int64]
HALVES = ("float16", "bfloat16")
AXIS_BY_AXIS = (Max, ReLUMax, Mean, Lp)
NOTHING: Operands = {}


class Ranges(NamedTuple):
    """Along one axis: output i reads the elements starts[i] ≤ … < stops[i]; no range is empty."""

    starts: Ints
    stops: Ints


def ranges(places: Places, side: int) -> Ranges:
    """What each output along a side of so many elements reads; the padding is cut off."""
    cells = np.arange(places.outputs(side), dtype=np.int64)
    if isinstance(places, Bins):
        return Ranges(cells * side // places.output, -(-(cells + 1) * side // places.output))
    starts = cells * places.stride - places.padding
    return Ranges(np.maximum(starts, 0), np.minimum(starts + places.window, side))


def output(x: Numbers, op: Pooling, places: Places, axes: Sequence[int], operands: Operands = NOTHING) -> Numbers:
    """The pooled array, in x's dtype. operands: by name, as large as x or as a window."""
    # the batch in parts: what a part needs fits a cache better than what all need
    beside = (
        {name: each[i] if each.ndim == x.ndim else each for name, each in operands.items()} for i in range(len(x))
    )
    inner = [axis - 1 for axis in axes]
    return np.stack([_output(*part, op, places, inner) for part in zip(x, beside, strict=True)]).astype(x.dtype)


def gradient(x: Numbers, g: Numbers, op: Pooling, places: Places, axes: Sequence[int]) -> Numbers:
    """That of Σ g · output(x), in x's dtype. No window may hold its largest value twice."""
    grads = [_gradient(part, its, op, places, [axis - 1 for axis in axes]) for part, its in zip(x, g, strict=True)]
    return np.stack(grads).astype(x.dtype)


def _output(x: Numbers, operands: Operands, op: Pooling, places: Places, axes: Sequence[int]) -> Numbers:
    if isinstance(places, Sliding) and not isinstance(op, AXIS_BY_AXIS):
        return windowed.output(x, op, places, axes, operands)
    along = [(axis, ranges(places, x.shape[axis])) for axis in axes]
    if isinstance(op, Max | ReLUMax):
        best = x.astype(np.float32) if x.dtype.name in HALVES else x
        for axis, taps in along:
            best = _largest(best, axis, taps)
        return np.maximum(best, 0) if isinstance(op, ReLUMax) else best
    if isinstance(op, Lp):
        return np.sqrt(_summed(x.astype(np.float64) ** 2, along))
    mean = _summed(x, along) / _divisor(places, along, x.ndim)
    return np.trunc(mean) if x.dtype.kind in "iu" else mean


def _gradient(x: Numbers, g: Numbers, op: Pooling, places: Places, axes: Sequence[int]) -> Numbers:
    if isinstance(places, Sliding) and not isinstance(op, Max | ReLUMax | Mean):
        return windowed.gradient(x, g, op, places, axes)
    along = [(axis, ranges(places, x.shape[axis])) for axis in axes]
    if isinstance(op, Mean):
        shares = g / _divisor(places, along, x.ndim)
        return _summed(shares, [(axis, _readers(taps, x.shape[axis])) for axis, taps in along])
    best, where = _winners(x, along)
    g = np.where(best > 0, g, 0) if isinstance(op, ReLUMax) else g
    return np.bincount(where.reshape(-1), g.reshape(-1), x.size).reshape(x.shape)


def _largest(x: Numbers, axis: int, taps: Ranges) -> Numbers:
    best = np.take(x, taps.starts, axis)
    for at in _later(taps):
        np.maximum(best, np.take(x, at, axis), out=best)
    return best


def _winners(x: Numbers, along: Sequence[tuple[int, Ranges]]) -> tuple[Numbers, Ints]:
    """The largest element of each window, and where in x it stands."""
    best, where = x, np.arange(x.size).reshape(x.shape)
    for axis, taps in along:
        values, places = np.take(best, taps.starts, axis), np.take(where, taps.starts, axis)
        for at in _later(taps):
            others = np.take(best, at, axis)
            larger = others > values
            np.copyto(values, others, where=larger)
            np.copyto(places, np.take(where, at, axis), where=larger)
        best, where = values, places
    return best, where


def _later(taps: Ranges) -> list[Ints]:
    """For each tap after the first the element it reads; a shorter window reads its last again."""
    widest = int((taps.stops - taps.starts).max(initial=1))
    return [np.minimum(taps.starts + tap, taps.stops - 1) for tap in range(1, widest)]


def _summed(x: Numbers, along: Sequence[tuple[int, Ranges]]) -> Numbers:
    for axis, taps in along:
        total = np.zeros([n + (other == axis) for other, n in enumerate(x.shape)])
        behind = tuple(slice(1, None) if other == axis else slice(None) for other in range(x.ndim))
        np.cumsum(x, axis, np.float64, out=total[behind])
        x = np.take(total, taps.stops, axis) - np.take(total, taps.starts, axis)
    return x


def _readers(taps: Ranges, side: int) -> Ranges:
    """Which outputs read an element: as starts and stops never fall, they are a range, too."""
    elements = np.arange(side)
    return Ranges(np.searchsorted(taps.stops, elements, "right"), np.searchsorted(taps.starts, elements, "right"))


def _divisor(places: Places, along: Sequence[tuple[int, Ranges]], rank: int) -> Any:
    """The taps of a window, those in the padding too; of a bin, its elements."""
    if isinstance(places, Sliding):
        return places.window ** len(along)
    counts = [
        (taps.stops - taps.starts).reshape([-1 if other == axis else 1 for other in range(rank)])
        for axis, taps in along
    ]
    return prod(counts)
