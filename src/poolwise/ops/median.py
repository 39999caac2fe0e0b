"""Median pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import LAWS, Array, Extras, Namespace, Operation, Window, is_integer
from poolwise.ops.quantile import count_held, or_nan, sortable, split, take_ranked, unsettled


@dataclass(frozen=True)
class Median(Operation):
    """The middle of each window's sorted elements: of an even number of floats the mean of the middle two.

    Any dtype, kept: of an even number of integers the lower of the middle two, exactly; of bool the majority. NaN makes
    NaN. An empty window gives NaN (integers: 0). The gradient goes to the one or, in halves, the two in the middle, of
    equal ones to the first. Prefer it to the mean where single outliers (impulse noise) must not show.

    Source: Tukey, Exploratory Data Analysis, 1977, chapter 7; Huang, Yang & Tang, A fast two-dimensional median
    filtering algorithm, IEEE Transactions on Acoustics, Speech, and Signal Processing 27, 1979.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 400]], poolwise.Median(), (2, 2))
    array([[2.5]])
    """

    name = "median"
    laws = LAWS
    fill = inf

    def window(self, w: Window) -> Any:
        if unsettled(w.values):
            return nan
        order, middle = np.sort(w.values), (len(w.values) - 1) // 2
        if len(w.values) % 2 or order.dtype.kind != "f":
            return order[middle]
        return order[middle] / 2 + order[middle + 1] / 2

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        if unsettled(w.values):
            return (np.zeros(len(w.values)),)
        return (g * split(w.values, (len(w.values) - 1) // 2, len(w.values) // 2, 0.5),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        held = count_held(xp, values, present)
        order = xp.sort(sortable(xp, values), axis=-1)
        low = take_ranked(xp, order, values, present, (held - 1) // 2)
        if is_integer(values):
            return xp.where(held > 0, low, xp.zeros_like(low))
        high = take_ranked(xp, order, values, present, held // 2)
        alike = low + (high - low) / 2  # the same number, and half of the gradient to each
        middle = xp.where((low == high) & xp.isfinite(low), alike, low / 2 + high / 2)
        return or_nan(xp, middle, values, present)

    def result_dtype(self, dtype: str) -> str:
        return dtype
