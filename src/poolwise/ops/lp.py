"""Power-average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import Array, Extras, Namespace, Operation, Window, checked_number, held_fixed
from poolwise.ops.max import Max, largest
from poolwise.ops.sum import Sum


@dataclass(frozen=True)
class Lp(Operation):
    """The p-norm of each window, (Σ|x|^p)^(1/p): its sum of magnitudes for p = 1, the largest of them for p = inf.

    p: at least 1; inf is allowed.

    Floats, kept (half precision accumulates in float32). The magnitudes are divided by the largest before they are
    raised, so that nothing overflows on the way. NaN makes NaN. An empty window gives 0. Where the norm is 0 the
    gradient is 0; for p = inf it goes to the first of the largest magnitudes.

    Source: Sermanet, Chintala & LeCun, Convolutional neural networks applied to house numbers digit classification,
    ICPR 2012, section 2.2; as ONNX's LpPool.

    >>> import poolwise
    >>> poolwise.pool([[3, 0], [0, -4]], poolwise.Lp(), (2, 2))
    array([[5.]])
    """

    p: float = 2

    name = "lp"
    stems = ("lp", "LP", "Lp")
    laws = frozenset({"scale", "order"})
    root_of = Sum()

    def __post_init__(self) -> None:
        checked_number("p", self.p, least=1)

    def window(self, w: Window) -> Any:
        if not len(w.values):
            return 0.0
        magnitudes = np.abs(w.values)
        largest = magnitudes.max()
        if self.p == inf or not 0 < largest < inf:
            return largest
        return largest * np.sum((magnitudes / largest) ** self.p) ** (1 / self.p)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        magnitudes, norm = np.abs(w.values), self.window(w)
        if norm == 0:
            return (np.zeros(len(w.values)),)
        if self.p == inf:
            return (np.where(np.arange(len(magnitudes)) == self._largest(magnitudes), g * np.sign(w.values), 0.0),)
        largest = magnitudes.max()
        # a norm below the normal numbers is rounded: what an element is of it is not found by dividing by it
        if largest < inf:
            magnitudes = magnitudes / largest
            norm = np.sum(magnitudes**self.p) ** (1 / self.p)
        return (g * np.sign(w.values) * (magnitudes / norm) ** (self.p - 1),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        magnitudes = xp.abs(values)
        if self.p == inf:
            return largest(xp, magnitudes, present)
        top = held_fixed(xp, xp.max(magnitudes, axis=-1))
        scale = xp.where((top > 0) & (top < inf), top, xp.ones_like(top))
        total = xp.sum((magnitudes / xp.expand_dims(scale, axis=-1)) ** self.p, axis=-1)
        nothing = total == 0
        norm = scale * xp.where(nothing, xp.ones_like(total), total) ** (1 / self.p)
        return xp.where(nothing, xp.zeros_like(norm), norm)

    def _largest(self, magnitudes: NDArray[Any]) -> int:
        return Max().chosen(Window(magnitudes, np.empty((0, 0), np.int64), 0, 0))
