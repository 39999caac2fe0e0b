"""Stochastic pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np

from poolwise.op import (
    Array,
    Extras,
    Namespace,
    Operand,
    Operation,
    Selection,
    Window,
    first_true,
    last_nan_or,
    last_true,
)
from poolwise.ops.stochasticmean import StochasticMean, chances, weights


@dataclass(frozen=True)
class Stochastic(Selection):
    """One element of each window, drawn at random: each with the probability x⁺ / Σ x⁺ of its positive part.

    Operand draws: one u, 0 ≤ u < 1, for each output: floats that broadcast against it. The element is the first up to
    which the probabilities add up to more than u. Where no draws are given they are drawn, from `seed`, an int or the
    framework's generator, or from nothing that repeats.

    Where nothing is above 0 all are as probable. Floats, kept. NaN wins, as in Max. An empty window gives NaN, and its
    index is −1. The gradient goes to what was drawn. Layers draw in training, and give `StochasticMean` when a model is
    evaluated. Prefer it, behind a ReLU, to max where a model overfits: it costs no more.

    Source: Zeiler & Fergus, Stochastic pooling for regularization of deep convolutional neural networks, ICLR 2013.

    >>> import poolwise
    >>> poolwise.stochastic_pool([[1, 3], [2, 4]], (2, 2), draws=[[0.5]])  # up to 0.1, 0.4, 0.6, 1
    array([[2.]])
    """

    name = "stochastic"
    laws = frozenset({"scale", "constant", "bounded"})
    arrays = (Operand("draws", over="output", drawn=True),)
    evaluated = StochasticMean
    fill = nan

    def chosen(self, w: Window) -> int:
        nans = np.flatnonzero(np.isnan(w.values))
        if len(nans) or not len(w.values):
            return int(nans[-1]) if len(nans) else -1
        sums = np.cumsum(chances(w.values))
        return int(min(np.searchsorted(sums, w.extras["draws"], side="right"), np.flatnonzero(chances(w.values))[-1]))

    def winner(self, xp: Namespace, values: Array, present: Array, extras: Extras) -> Array:
        weight = weights(xp, xp.where(present, values, xp.zeros_like(values)), present)
        sums = xp.cumsum(weight, axis=-1)
        drawn = first_true(xp, sums > xp.expand_dims(extras["draws"], axis=-1) * sums[..., -1:])
        return last_nan_or(xp, values, present, xp.where(drawn < 0, last_true(xp, weight > 0), drawn))

    def result_dtype(self, dtype: str) -> str:
        return Operation.result_dtype(self, dtype)
