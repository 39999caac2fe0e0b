"""The mean of what stochastic pooling draws, and the probabilities that it draws by."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import LAWS, Array, Extras, Namespace, Operation, Window
from poolwise.ops.soft import weighted, weighted_sum


@dataclass(frozen=True)
class StochasticMean(Operation):
    """The mean of what `Stochastic` draws from each window, Σ x·x⁺ / Σ x⁺: each element weighs its positive part x⁺.

    Where nothing is above 0 all weigh alike. Floats, kept (half precision accumulates in float32). NaN makes NaN. An
    empty window gives NaN. Layers of `Stochastic` give this when a model is evaluated.

    Source: Zeiler & Fergus, Stochastic pooling for regularization of deep convolutional neural networks, ICLR 2013
    (probabilistic weighting at test time).

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.StochasticMean(), (2, 2))
    array([[3.]])
    """

    name = "stochasticmean"
    laws = LAWS - {"monotone", "shift"}

    def window(self, w: Window) -> Any:
        return weighted(chances(w.values), w.values)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        total, grad = np.maximum(w.values, 0.0).sum(), chances(w.values)
        if 0 < total < inf:
            grad = grad + np.where(w.values > 0, (w.values - self.window(w)) / total, 0.0)
        return (g * grad,)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        weight = weights(xp, values, present)
        return weighted_sum(xp, weight, values) / xp.sum(weight, axis=-1)


def chances(values: NDArray[Any]) -> NDArray[Any]:
    """With which probability each element of one window is drawn; where some are infinite, one of those."""
    positive = np.maximum(values, 0.0)
    if not positive.any():
        positive = np.ones(len(values))
    elif np.isinf(positive).any():
        positive = np.where(np.isnan(positive), positive, np.isinf(positive))
    return positive / positive.sum()


def weights(xp: Namespace, values: Array, present: Array) -> Array:
    """The same before they are divided by their sum, for an array of windows."""
    ones, zeros = xp.ones_like(values), xp.zeros_like(values)
    positive = xp.where(present & ~(values <= 0), values, zeros)
    endless = xp.isinf(positive)
    certain = xp.where(endless, ones, xp.where(xp.isnan(positive), positive, zeros))
    positive = xp.where(xp.any(endless, axis=-1, keepdims=True), certain, positive)
    some = xp.any(~(positive == 0), axis=-1, keepdims=True)
    return xp.where(some, positive, xp.where(present, ones, zeros))
