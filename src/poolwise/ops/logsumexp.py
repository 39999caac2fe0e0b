"""Log-sum-exp pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import (
    LARGEST,
    SMALLEST,
    Array,
    Extras,
    Namespace,
    Operation,
    Window,
    checked_number,
    everywhere,
    held_fixed,
    number_held,
)
from poolwise.ops.soft import from_the_top, shares


@dataclass(frozen=True)
class LogSumExp(Operation):
    """A smooth maximum of each window, log Σ exp(t·x) / t: its gradient is the softmax of t·x.

    temperature: the t that multiplies, more than 0: the larger, the nearer to the maximum, which it never is below.

    Floats, kept (half precision accumulates in float32). The largest element is taken off every exponent, so that
    nothing overflows at any temperature. NaN makes NaN. An empty window gives −inf. For scores of parts of which any
    may decide (multiple instances, weak labels): smoother than max, sharper than the mean.

    Source: Boyd & Vandenberghe, Convex Optimization, 2004, section 3.1.5; as a pooling: Pinheiro & Collobert, From
    image-level to pixel-level labeling with convolutional networks, CVPR 2015 (there with the mean).

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.LogSumExp(), (2, 2)).round(3)
    array([[4.44]])
    """

    temperature: float = 1.0

    name = "logsumexp"
    laws = frozenset({"monotone", "shift", "order"})
    fill = -inf

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, least=SMALLEST, most=LARGEST)

    def window(self, w: Window) -> Any:
        top = w.values.max(initial=-inf)
        if not np.isfinite(top):
            return top
        return top + np.log(np.sum(np.exp(self.temperature * (w.values - top)))) / self.temperature

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        return (g * shares(w.values, self.temperature),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        top, below = from_the_top(xp, values)
        total = xp.sum(xp.exp(self.temperature * below), axis=-1)
        highest, top = top, xp.squeeze(top, axis=-1)
        if not everywhere(present):  # the gradient of an infinity belongs to the elements that are there
            winners = present & xp.isinf(highest) & (values == highest)
            count = number_held(xp, values, winners)
            alike = xp.sum(xp.where(winners, values, 0), axis=-1) / xp.where(count == 0, 1, count)
            top = xp.where(count == 0, top, alike)
        return xp.where(xp.isinf(top), top, held_fixed(xp, top) + xp.log(total) / self.temperature)
