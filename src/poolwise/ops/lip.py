"""Local importance-based pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import LAWS, Array, Extras, Namespace, Operand, Operation, Window
from poolwise.ops.soft import shares, softmax, weighted, weighted_sum


@dataclass(frozen=True)
class LIP(Operation):
    """The mean of each window, weighted by the softmax of other numbers, its logits: Σ x·exp(l) / Σ exp(l).

    Operand logits: floats that broadcast against the input, in the paper a small network's output: how much each
    element matters. All equal they make it the mean, equal to x SoftPool.

    Floats, kept (half precision accumulates in float32). The largest logit is taken off every exponent; one of −inf
    takes its element away, an infinite one too, unless all are −inf. NaN makes NaN. An empty window gives NaN. The
    input and the logits have gradients. Prefer it where a network should learn what survives a downsampling; it costs
    that network and a second map.

    Source: Gao, Wang & Wu, LIP: Local importance-based pooling, ICCV 2019.

    >>> import poolwise
    >>> poolwise.lip_pool([[1, 3], [2, 4]], (2, 2), logits=[[0, 0], [0, 100]])
    array([[4.]])
    """

    name = "lip"
    stems = ("lip", "LIP", "LIP")
    laws = LAWS - {"order"}
    arrays = (Operand("logits", over="input"),)

    def window(self, w: Window) -> Any:
        return weighted(shares(w.extras["logits"]), w.values)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        share = shares(w.extras["logits"])
        return g * share, g * np.where(share == 0, 0.0, share * (w.values - self.window(w)))

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        return weighted_sum(xp, softmax(xp, extras["logits"], present), values)
