"""The right answers of what needs a whole window, in plain NumPy and float64, with nothing of the library in them.

`Windows` has the taps on the first axis, so that every step is one of whole arrays. What stands where in the sorted
window is found by counting how many are smaller. A weighted mean is a share for each tap, and so is a gradient, whose
shares are added up where the taps stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from math import comb
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise import LIP, Blur, Gated, GeM, LogSumExp, Lp, Median, Mixed, Mode, Quantile, Soft, StochasticMean, TopKMean
from poolwise.bench.cases import MaxBlur, Pooling, Sliding

Numbers: TypeAlias = NDArray[Any]
Operands: TypeAlias = Mapping[str, Numbers]


class Windows(NamedTuple):
    """The elements of each window (floats as float64), and whether they are there, which broadcasts against them."""

    values: Numbers
    there: NDArray[np.bool_]


Answer: TypeAlias = Callable[[Windows, Any, Mapping[str, Numbers]], Numbers]


def output(x: Numbers, op: Pooling, places: Sliding, axes: Sequence[int], operands: Operands) -> Numbers:
    """The pooled array. operands: those over the input as large as x, those over a window as large as that."""
    if isinstance(op, MaxBlur):
        x = windows(x, Sliding(places.window, 1), axes).values.max(0)
        op, places = Blur(), Sliding(op.taps, places.stride, op.taps // 2, "reflect")
    w, beside = windows(x, places, axes), _beside(operands, x, places, axes)
    if type(op) in SHARES:
        return np.sum(SHARES[type(op)](w, op, beside) * w.values, 0)
    return ANSWERS[type(op)](w, op, beside)


def gradient(x: Numbers, g: Numbers, op: Pooling, places: Sliding, axes: Sequence[int]) -> Numbers:
    """That of Σ g · output(x): each tap's share of the output's gradient, added where it stands."""
    w = windows(x, places, axes)
    shares = g * MOVES[type(op)](w, op, {})
    padded = np.zeros([n + 2 * places.padding * (axis in axes) for axis, n in enumerate(x.shape)])
    for share, at in zip(shares, _taps(padded.shape, places, axes), strict=True):
        padded[at] += share
    inner = [slice(places.padding, places.padding + n) if axis in axes else slice(n) for axis, n in enumerate(x.shape)]
    return padded[tuple(inner)]


def windows(x: Numbers, places: Sliding, axes: Sequence[int]) -> Windows:
    """Every window of x; what padding absents is 0, and not there."""
    pads = [(places.padding,) * 2 if axis in axes else (0, 0) for axis in range(x.ndim)]
    here = np.ones([n if axis in axes else 1 for axis, n in enumerate(x.shape)], bool)
    x = x if x.dtype.kind in "iu" else x.astype(np.float64)
    mode = "reflect" if places.mode == "reflect" else "constant"
    return Windows(*(_gathered(np.pad(each, pads, mode), places, axes) for each in (x, here)))


def _gathered(padded: Numbers, places: Sliding, axes: Sequence[int]) -> Numbers:
    return np.stack([padded[at] for at in _taps(padded.shape, places, axes)])


def _taps(padded: Sequence[int], places: Sliding, axes: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """For each tap of a window the elements of the padded array that all windows read there, as slices."""
    valid = Sliding(places.window, places.stride)
    for offsets in product(range(places.window), repeat=len(axes)):
        at = [slice(None)] * len(padded)
        for axis, offset in zip(axes, offsets, strict=True):
            last = places.stride * (valid.outputs(padded[axis]) - 1)
            at[axis] = slice(offset, offset + last + 1, places.stride)
        yield tuple(at)


def _beside(operands: Operands, x: Numbers, places: Sliding, axes: Sequence[int]) -> dict[str, Numbers]:
    """The operands with their taps in front."""
    return {
        name: windows(each, places, axes).values if each.shape == x.shape else each.reshape(-1, *[1] * x.ndim)
        for name, each in operands.items()
    }


# What stands where in the sorted window


def _ranks(w: Windows) -> tuple[Numbers, Numbers]:
    """The elements, absent ones as large as can be, and how many of the window's stand before each when sorted."""
    values = np.where(w.there, w.values, _largest(w.values.dtype))
    before = [
        np.sum(values < own, 0, np.int8) + np.sum(values[:tap] == own, 0, np.int8) for tap, own in enumerate(values)
    ]
    return values, np.stack(before)


def _largest(dtype: np.dtype[Any]) -> Any:
    return dtype.type(np.inf if dtype.kind == "f" else np.iinfo(dtype).max)


def _sum(values: Numbers, chosen: Numbers) -> Numbers:
    return np.sum(np.where(chosen, values, values.dtype.type(0)), 0, values.dtype)


def _median(w: Windows, op: Median, beside: Operands) -> Numbers:
    (values, ranks), held = _ranks(w), w.there.sum(0)
    low = _sum(values, ranks == (held - 1) // 2)
    return low if values.dtype.kind in "iu" else (low + _sum(values, ranks == held // 2)) / 2


def _quantile(w: Windows, op: Quantile, beside: Operands) -> Numbers:
    values, ranks = _ranks(w)
    place = op.q * (w.there.sum(0) - 1)
    low, high = (_sum(values, ranks == which(place)) for which in (np.floor, np.ceil))
    return low + (high - low) * (place - np.floor(place))


def _top_mean(w: Windows, op: TopKMean, beside: Operands) -> Numbers:
    (values, ranks), held = _ranks(w), w.there.sum(0)
    counted = np.minimum(held, op.k)
    return _sum(values, (ranks >= held - counted) & (ranks < held)) / counted


def _mode(w: Windows, op: Mode, beside: Operands) -> Numbers:
    times = np.stack([np.sum((w.values == own) & w.there, 0, np.int8) for own in w.values]) * w.there
    return np.where(times == times.max(0), w.values, _largest(w.values.dtype)).min(0)


# Weights that add up to one


def _softmax(w: Windows, scores: Numbers) -> Numbers:
    return _even(w.there * np.exp(scores - scores.max(0)))


def _even(weights: Numbers) -> Numbers:
    return weights / weights.sum(0)


def _soft(w: Windows, op: Soft, beside: Operands) -> Numbers:
    return _softmax(w, op.temperature * w.values)


def _lip(w: Windows, op: LIP, beside: Operands) -> Numbers:
    return _softmax(w, beside["logits"])


def _blur(w: Windows, op: Blur, beside: Operands) -> Numbers:
    """Binomial weights along each axis; a window has as many taps along all."""
    rank = w.values.ndim - 2  # taps, channels and what is pooled
    taps = round(len(w.values) ** (1 / rank))
    line = [comb(taps - 1, tap) for tap in range(taps)]
    weights = np.ravel(reduce(np.multiply.outer, [line] * rank))
    return _even(w.there * weights.reshape(-1, *[1] * (w.values.ndim - 1)))


def _positive(w: Windows, op: StochasticMean, beside: Operands) -> Numbers:
    positive = np.maximum(w.values, 0) * w.there
    return _even(np.where(positive.any(0), positive, w.there))


# The others


def _logsumexp(w: Windows, op: LogSumExp, beside: Operands) -> Numbers:
    return np.log(np.sum(w.there * np.exp(op.temperature * w.values), 0)) / op.temperature


def _gem(w: Windows, op: GeM, beside: Operands) -> Numbers:
    assert op.p is not None
    return np.mean(np.maximum(w.values, op.eps) ** op.p, 0, where=w.there) ** (1 / op.p)


def _mixed(w: Windows, op: Mixed, beside: Operands) -> Numbers:
    return _between(w, op.a)


def _gated(w: Windows, op: Gated, beside: Operands) -> Numbers:
    return _between(w, 1 / (1 + np.exp(-np.sum(beside["gate"] * w.values, 0))))


def _between(w: Windows, part: Any) -> Numbers:
    largest = np.max(w.values, 0, where=w.there, initial=-np.inf)
    return part * largest + (1 - part) * np.mean(w.values, 0, where=w.there)


# Each tap's derivative


def _lp_moves(w: Windows, op: Lp, beside: Operands) -> Numbers:
    norm = np.sum(np.abs(w.values) ** op.p, 0) ** (1 / op.p)
    return np.sign(w.values) * (np.abs(w.values) / norm) ** (op.p - 1)


def _gem_moves(w: Windows, op: GeM, beside: Operands) -> Numbers:
    assert op.p is not None
    shares = (np.maximum(w.values, op.eps) / _gem(w, op, beside)) ** (op.p - 1) / w.there.sum(0)
    return np.where(w.values < op.eps, 0, shares)


def _soft_moves(w: Windows, op: Soft, beside: Operands) -> Numbers:
    shares = _soft(w, op, beside)
    return shares * (1 + op.temperature * (w.values - np.sum(shares * w.values, 0)))


SHARES: dict[type[Pooling], Answer] = {Soft: _soft, LIP: _lip, Blur: _blur, StochasticMean: _positive}
ANSWERS: dict[type[Pooling], Answer] = {
    Median: _median,
    Quantile: _quantile,
    TopKMean: _top_mean,
    Mode: _mode,
    LogSumExp: _logsumexp,
    GeM: _gem,
    Mixed: _mixed,
    Gated: _gated,
}
MOVES: dict[type[Pooling], Answer] = {Lp: _lp_moves, GeM: _gem_moves, Soft: _soft_moves, Blur: _blur}
