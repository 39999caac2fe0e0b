"""Generalised-mean pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import LARGEST, SMALLEST, Array, Extras, Namespace, Operation, Window, checked_number, take_winner
from poolwise.ops.max import Max


@dataclass(frozen=True)
class GeM(Operation):
    """The generalised mean of each window, (Σ max(x, ε)^p / n)^(1/p): the mean for p = 1, the maximum for p = inf.

    p: at least 1; inf is allowed. 3 in the paper.
    eps: the ε > 0 that smaller elements, negative ones too, are raised to.

    Floats, kept (half precision accumulates in float32). The elements are divided by the largest before they are
    raised, so that nothing overflows on the way. NaN makes NaN. An empty window gives NaN. Elements below ε have no
    gradient; for p = inf it goes to the first of the largest. Prefer it, over all of an image, to max and mean where
    images are compared (retrieval): it lies between the two.

    Source: Radenović, Tolias & Chum, Fine-tuning CNN image retrieval with no human annotation, IEEE Transactions on
    Pattern Analysis and Machine Intelligence 41, 2019, section 3.2.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.GeM(), (2, 2)).round(3)
    array([[2.924]])
    """

    p: float = 3
    eps: float = 1e-6

    name = "gem"

    def __post_init__(self) -> None:
        checked_number("p", self.p, least=1)
        checked_number("eps", self.eps, least=SMALLEST, most=LARGEST)

    def window(self, w: Window) -> Any:
        raised, largest = self._raised(w)
        if self.p == inf or not np.isfinite(largest):
            return largest
        return largest * np.mean((raised / largest) ** self.p) ** (1 / self.p)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        raised, _ = self._raised(w)
        if self.p == inf:
            first = Max().chosen(Window(raised, w.positions, w.size, w.count))
            share = (np.arange(len(raised)) == first).astype(np.float64)
        else:
            share = (raised / self.window(w)) ** (self.p - 1) / len(raised)
        return (np.where(w.values < self.eps, 0.0, g * share),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        ones = xp.ones_like(values)
        raised = xp.where(present & ~(values < self.eps), values, self.eps * ones)
        held = xp.sum(xp.where(present, ones, xp.zeros_like(values)), axis=-1)
        if self.p == inf:
            largest = take_winner(xp, raised, Max().winner(xp, raised, present))
            return largest * (held / held)  # NaN of an empty window
        largest = xp.max(raised, axis=-1, keepdims=True)
        scale = xp.where(largest < inf, largest, xp.ones_like(largest))
        powers = xp.where(present, (raised / scale) ** self.p, xp.zeros_like(values))
        return xp.squeeze(scale, axis=-1) * (xp.sum(powers, axis=-1) / held) ** (1 / self.p)

    def _raised(self, w: Window) -> tuple[NDArray[Any], Any]:
        raised = np.where(w.values < self.eps, self.eps, w.values)
        return raised, raised.max() if len(raised) else np.nan
