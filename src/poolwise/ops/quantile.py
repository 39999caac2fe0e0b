"""Quantile pooling, and what the order statistics share."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import (
    LAWS,
    Array,
    Extras,
    Namespace,
    Operation,
    Window,
    checked_number,
    everywhere,
    is_integer,
    take_winner,
)


@dataclass(frozen=True)
class Quantile(Operation):
    """The q-quantile of each window: its sorted elements read at q·(n − 1), linearly between two of them.

    q: 0 ≤ q ≤ 1: 0 is the minimum, 0.5 the median, 1 the maximum.

    Floats, kept (half precision computes in float32). NaN makes NaN. An empty window gives NaN. The gradient goes to
    the two elements read, of equal ones to the first. Prefer it to max or min where single outliers must not decide.

    Between −∞ and a number it is −∞, between a number and ∞ it is ∞ (where `numpy.quantile` may say NaN).

    Source: Hyndman & Fan, Sample quantiles in statistical packages, The American Statistician 50, 1996, definition 7;
    as `numpy.quantile`.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Quantile(0.9), (2, 2))
    array([[3.7]])
    """

    q: float = 0.5

    name = "quantile"
    laws = LAWS
    fill = inf

    def __post_init__(self) -> None:
        checked_number("q", self.q, least=0, most=1)

    def window(self, w: Window) -> Any:
        if unsettled(w.values):
            return nan
        place = self.q * (len(w.values) - 1)
        low, high = np.sort(w.values)[[floor(place), ceil(place)]]
        part = place - floor(place)
        return low if low == high else low * (1 - part) + high * part

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        if unsettled(w.values):
            return (np.zeros(len(w.values)),)
        place = self.q * (len(w.values) - 1)
        return (g * split(w.values, floor(place), ceil(place), place - floor(place)),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        ones = xp.ones_like(values)
        place = self.q * (xp.sum(xp.where(present, ones, xp.zeros_like(values)), axis=-1, keepdims=True) - 1)
        ordinal = xp.cumsum(ones, axis=-1) - 1
        order = xp.sort(sortable(xp, values), axis=-1)
        low = take_ranked(xp, order, values, present, xp.sum(xp.where(ordinal <= place, 1, 0), axis=-1) - 1)
        high = take_ranked(xp, order, values, present, xp.sum(xp.where(ordinal < place, 1, 0), axis=-1))
        part = xp.squeeze(place - xp.floor(place), axis=-1)
        endless = low * (1 - part) + xp.where(part > 0, high * part, xp.zeros_like(high))
        between = xp.where(xp.isfinite(high - low), low + (high - low) * part, endless)
        return or_nan(xp, between, values, present)


def unsettled(values: NDArray[Any]) -> bool:
    """Whether an order statistic of one window is NaN: nothing is there, or something that has no place."""
    return not len(values) or bool(np.isnan(values).any())


def split(values: NDArray[Any], low: int, high: int, part: float) -> NDArray[Any]:
    """A gradient of one on the elements that stand at two places of the sorted window, `part` of it on the higher."""
    order = np.argsort(values, kind="stable")
    grad = np.zeros(len(values))
    grad[order[low]] += 1 - part
    grad[order[high]] += part
    return grad


def sortable(xp: Namespace, values: Array) -> Array:
    """The values without NaN, which each framework sorts in its own way."""
    return values if is_integer(values) else xp.where(xp.isnan(values), xp.zeros_like(values), values)


def take_ranked(xp: Namespace, order: Array, values: Array, present: Array, rank: Array) -> Array:
    """The element at a rank of the sorted window; where it is ∞, one that is there, not what fills an absent tap."""
    found = take_winner(xp, order, rank)
    if everywhere(present) or is_integer(values):
        return found
    endless = present & (values == inf)
    below = xp.sum(xp.where(present & (values < inf), 1, 0), axis=-1)
    own = endless & (xp.cumsum(xp.where(endless, 1, 0), axis=-1) == xp.expand_dims(rank + 1 - below, axis=-1))
    return xp.where(xp.any(own, axis=-1), xp.sum(xp.where(own, values, 0), axis=-1), found)


def or_nan(xp: Namespace, y: Array, values: Array, present: Array) -> Array:
    """NaN for windows that are empty or hold NaN."""
    lost = ~xp.any(present, axis=-1) | xp.any(xp.isnan(values) & present, axis=-1)
    return xp.where(lost, nan * xp.ones_like(y), y)


def count_held(xp: Namespace, values: Array, present: Array) -> Array:
    """How many elements each window holds, as integers."""
    return xp.sum(xp.where(present & (xp.zeros_like(values) == 0), 1, 0), axis=-1)
