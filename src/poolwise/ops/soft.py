"""SoftPool, and the softmax inside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import (
    LARGEST,
    LAWS,
    SMALLEST,
    Array,
    Extras,
    Namespace,
    Operation,
    Window,
    checked_number,
    held_fixed,
    lowered,
    there,
)


@dataclass(frozen=True)
class Soft(Operation):
    """The mean of each window, weighted by the softmax of its own elements: Σ x·exp(t·x) / Σ exp(t·x).

    temperature: the t that multiplies, more than 0, 1 in the paper: near 0 the mean, large the maximum.

    Floats, kept (half precision accumulates in float32). Where exponentials would overflow or vanish, the largest
    element is taken off every exponent first; an infinite one is the result. NaN makes NaN. An empty window gives NaN.
    Every element has a gradient, which max's winner alone has: prefer it to max where weak activations should still
    learn.

    Source: Stergiou, Poppe & Kalliatakis, Refining activation downsampling with SoftPool, ICCV 2021, section 3.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Soft(), (2, 2)).round(3)
    array([[3.493]])
    """

    temperature: float = 1.0

    name = "soft"
    laws = LAWS - {"monotone", "scale"}

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, least=SMALLEST, most=LARGEST)

    def window(self, w: Window) -> Any:
        return weighted(shares(w.values, self.temperature), w.values)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        share, top = shares(w.values, self.temperature), w.values.max(initial=-inf)
        if not np.isfinite(top):
            return (g * share,)
        below = np.where(share > 0, w.values - top, 0.0)
        return (g * share * (1 + self.temperature * (below - np.sum(share * below))),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        return weighted_sum(xp, softmax(xp, values, present, self.temperature), values)


def shares(scores: NDArray[Any], factor: float = 1.0) -> NDArray[Any]:
    """exp(factor · score) / Σ of one window; where the largest is infinite, only those equal to it share."""
    top = scores.max(initial=-inf)
    each = np.exp(factor * (scores - top)) if np.isfinite(top) else (scores == top).astype(np.float64)
    return each / each.sum()


def weighted(share: NDArray[Any], values: NDArray[Any]) -> Any:
    """Σ share · value of one window; an infinite value that has no share adds nothing; NaN of an empty window."""
    return np.sum(share * np.where((share == 0) & np.isinf(values), 0.0, values)) if len(values) else nan


def softmax(xp: Namespace, scores: Array, present: Array, factor: float = 1.0) -> Array:
    """`shares` for an array of windows; an absent tap has none."""
    _, below = from_the_top(xp, lowered(xp, scores, present))
    each = there(xp, xp.exp(below if factor == 1 else factor * below), present)
    return each / xp.sum(each, axis=-1, keepdims=True)


def from_the_top(xp: Namespace, scores: Array) -> tuple[Array, Array]:
    """The largest score of each window, and how far each is below it: 0 or −inf where it is infinite."""
    top = xp.max(scores, axis=-1, keepdims=True)
    below, endless = scores - held_fixed(xp, top), xp.isinf(top)
    fixed = held_fixed(xp, below)
    even = xp.where((scores == top) & endless, 0.0, fixed)
    return top, even if fixed is below else xp.where(endless, even, below)


def weighted_sum(xp: Namespace, share: Array, values: Array) -> Array:
    """`weighted` for an array of windows."""
    return xp.sum(share * xp.where((share == 0) & xp.isinf(values), 0.0, values), axis=-1)
