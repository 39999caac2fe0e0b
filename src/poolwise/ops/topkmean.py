"""Top-k mean pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import InvalidType
from poolwise.op import LAWS, Array, Extras, Namespace, Operation, Window, checked_number, everywhere
from poolwise.ops.quantile import or_nan, sortable, unsettled


@dataclass(frozen=True)
class TopKMean(Operation):
    """The mean of the k largest elements of each window, or of all where it holds fewer.

    k: a whole number of at least 1: 1 is the maximum, as many as the window has taps the mean.

    Floats, kept (half precision accumulates in float32). NaN makes NaN. An empty window gives NaN. The gradient is
    shared by those k, of equal ones by the first. Prefer it to max where one activation is too little evidence, and to
    the mean where most of a window says nothing.

    Source: Durand, Thome & Cord, WELDON: weakly supervised learning of deep convolutional neural networks, CVPR 2016
    (its top instances).

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.TopKMean(2), (2, 2))
    array([[3.5]])
    """

    k: int = 2

    name = "topkmean"
    laws = LAWS
    fill = -inf

    def __post_init__(self) -> None:
        checked_number("k", self.k, least=1, most=2**53)
        if int(self.k) != self.k or isinstance(self.k, float):
            raise InvalidType(f"k must be an int, got {self.k!r}")

    def window(self, w: Window) -> Any:
        return nan if unsettled(w.values) else np.mean(np.sort(w.values)[-self.k :])

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        if unsettled(w.values):
            return (np.zeros(len(w.values)),)
        largest = np.argsort(-w.values, kind="stable")[: self.k]
        return (np.where(np.isin(np.arange(len(w.values)), largest), g / len(largest), 0.0),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        ones = xp.ones_like(values)
        held = xp.sum(xp.where(present, ones, xp.zeros_like(values)), axis=-1, keepdims=True)
        held = xp.where(held < self.k, held, self.k * xp.ones_like(held))
        largest = -xp.sort(-sortable(xp, values), axis=-1)
        counted = xp.where(xp.cumsum(ones, axis=-1) <= held, largest, xp.zeros_like(values))
        if not everywhere(present):  # the gradient of −∞ belongs to elements that are there
            endless = present & (values == -inf)
            left = held - xp.sum(
                xp.where(present & (values > -inf), ones, xp.zeros_like(values)), axis=-1, keepdims=True
            )
            own = endless & (xp.cumsum(xp.where(endless, ones, xp.zeros_like(values)), axis=-1) <= left)
            counted = xp.where(counted > -inf, counted, 0) + xp.where(own, values, 0)
        return or_nan(xp, xp.sum(counted, axis=-1) / xp.squeeze(held, axis=-1), values, present)
