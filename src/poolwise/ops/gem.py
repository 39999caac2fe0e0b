"""Generalised-mean pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
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
    Operand,
    Operation,
    Window,
    at_least,
    checked_number,
    held_fixed,
    number_held,
    there,
)
from poolwise.ops.max import Max, largest
from poolwise.ops.mean import Mean

LEAST_POWER = 0.01  # of which float32 can still tell a root from its neighbours


@dataclass(frozen=True)
class GeM(Operation):
    """The generalised mean of each window, (Σ max(x, ε)^p / n)^(1/p): the mean for p = 1, the maximum for p = inf.

    p: at least 1; inf is allowed; layers learn it from this start, 3 as in the paper. As an operand: floats that
        broadcast against the output (one number, or one for each channel: of shape (channels, 1, 1) where channels come
        first); below 0.01 they count as that, and have no gradient.
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

    p: float | None = 3
    eps: float = 1e-6

    name = "gem"
    laws = LAWS - {"shift"}
    positive = True
    root_of = Mean()
    arrays = (Operand("p", over="output", learned=True),)

    def __post_init__(self) -> None:
        if self.p is not None:
            checked_number("p", self.p, least=1)
        checked_number("eps", self.eps, least=SMALLEST, most=LARGEST)

    def window(self, w: Window) -> Any:
        raised, largest, p = self._raised(w)
        if p == inf or not np.isfinite(largest):
            return largest
        return largest * np.mean((raised / largest) ** p) ** (1 / p)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        raised, largest, p = self._raised(w)
        if p == inf:
            first = Max().chosen(Window(raised, w.positions, w.size, w.count))
            share = (np.arange(len(raised)) == first).astype(np.float64)
        else:
            share = (raised / self.window(w)) ** (p - 1) / np.float64(len(raised))
        grad = np.where(w.values < self.eps, 0.0, g * share)
        if self.p is not None:
            return (grad,)
        powers = (raised / largest) ** p
        slope = (
            np.sum(powers * np.log(raised / largest)) / np.sum(powers) / p
            - np.log(np.sum(powers) / np.float64(len(raised))) / p**2
        )
        return grad, g * self.window(w) * slope if w.extras["p"] >= LEAST_POWER else np.zeros(())

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        raised, held = at_least(xp, values, self.eps), number_held(xp, values, present)
        if self.p == inf:
            return largest(xp, raised, present) * (held / held)  # NaN of an empty window
        p = self._power(xp, extras)
        top = held_fixed(xp, xp.max(raised, axis=-1, keepdims=True))
        scale = xp.where(top < inf, top, xp.ones_like(top))
        powers = (raised / scale) ** (xp.expand_dims(p, axis=-1) if self.p is None else p)
        return xp.squeeze(scale, axis=-1) * (xp.sum(there(xp, powers, present), axis=-1) / held) ** (1 / p)

    def _power(self, xp: Namespace, extras: Extras) -> Any:
        if self.p is not None:
            return self.p
        return xp.where(extras["p"] < LEAST_POWER, LEAST_POWER * xp.ones_like(extras["p"]), extras["p"])

    def _raised(self, w: Window) -> tuple[NDArray[Any], Any, Any]:
        """The elements, none below ε, the largest of them, and the power."""
        raised = np.where(w.values < self.eps, self.eps, w.values)
        return raised, raised.max() if len(raised) else np.nan, self._power(np, w.extras)
