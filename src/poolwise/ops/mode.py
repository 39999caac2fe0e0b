"""Mode pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np

from poolwise.op import (
    LAWS,
    Array,
    Extras,
    Namespace,
    Selection,
    Window,
    first_true,
    is_integer,
    last_nan_or,
    take_winner,
)
from poolwise.ops.quantile import count_held, sortable


@dataclass(frozen=True)
class Mode(Selection):
    """The most frequent element of each window, and the smallest of those that are equally frequent: for labels.

    Any dtype, kept, exactly: bool gives the majority. NaN wins (its index is the last NaN's), as in Max. An empty
    window gives NaN (integers: 0), and its index is −1. The index and the gradient are the first such element's. It
    never invents a label: prefer it to max, which favours large ones, and to one element of each window, which favours
    a place.

    Source: Gonzalez & Woods, Digital Image Processing, section 3.5 (order-statistic filters); as GDAL's and tinybrain's
    mode.

    >>> import numpy, poolwise
    >>> poolwise.pool(numpy.array([[7, 3], [3, 9]], "uint8"), poolwise.Mode(), (2, 2))
    array([[3]], dtype=uint8)
    """

    name = "mode"
    laws = LAWS - {"monotone"}
    fill = inf

    def chosen(self, w: Window) -> int:
        if not len(w.values):
            return -1
        nans = np.flatnonzero(np.isnan(w.values))
        if len(nans):
            return int(nans[-1])
        _, first, times = np.unique(w.values, return_index=True, return_counts=True)
        return int(first[np.argmax(times)])

    def winner(self, xp: Namespace, values: Array, present: Array, extras: Extras) -> Array:
        first = first_true(xp, present & (values == xp.expand_dims(most_frequent(xp, values, present), axis=-1)))
        return first if is_integer(values) else last_nan_or(xp, values, present, first)

    def window(self, w: Window) -> Any:
        return super().window(w) if len(w.values) else nan

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        winner = self.winner(xp, values, present, extras)
        nothing = 0 if is_integer(values) else nan
        y = take_winner(xp, values, winner)
        return xp.where(winner < 0, nothing * xp.ones_like(y), y)


def most_frequent(xp: Namespace, values: Array, present: Array) -> Array:
    """The first of the longest runs among the sorted elements; absent ones are filled with what sorts last."""
    held = xp.expand_dims(count_held(xp, values, present), axis=-1)
    order = xp.sort(sortable(xp, values), axis=-1)
    ordinal = xp.cumsum(xp.where(order == order, 1, 0), axis=-1) - 1  # noqa: PLR0124 (counts, whatever the size)
    changes = xp.concat([order[..., :1] == order[..., :1], order[..., 1:] != order[..., :-1]], axis=-1)
    begins = xp.sort(xp.where(changes & (ordinal < held), ordinal, held), axis=-1)
    lengths = xp.concat([begins[..., 1:], held], axis=-1) - begins
    return take_winner(xp, order, take_winner(xp, begins, xp.argmax(lengths, axis=-1)))
