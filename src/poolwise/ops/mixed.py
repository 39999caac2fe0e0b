"""Mixed max-average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import LAWS, Array, Extras, Namespace, Operand, Operation, Window, checked_number, lowered, number_held
from poolwise.ops.max import Max, largest


class Mixture(Operation):
    """A part of each window's maximum and the rest of its mean; NaN for an empty window."""

    def mixed(self, w: Window, part: Any) -> Any:
        """part · max + (1 − part) · mean of one window."""
        return part * w.values.max() + (1 - part) * w.values.mean() if len(w.values) else np.nan

    def mixed_grad(self, w: Window, part: Any) -> NDArray[Any]:
        """Its gradient for the values, where the part is a constant."""
        won = np.arange(len(w.values)) == Max().chosen(w)
        return part * won + (1 - part) / np.float64(len(w.values))

    def gap(self, w: Window) -> Any:
        """max − mean of one window: its gradient for the part."""
        return w.values.max() - w.values.mean() if len(w.values) else 0.0

    def mixture(self, xp: Namespace, values: Array, present: Array, part: Array) -> Array:
        """`mixed` for an array of windows."""
        mean = xp.sum(values, axis=-1) / number_held(xp, values, present)
        return part * largest(xp, lowered(xp, values, present), present) + (1 - part) * mean


@dataclass(frozen=True)
class Mixed(Mixture):
    """A part of the maximum and the rest of the mean of each window: a·max + (1 − a)·mean.

    a: between 0 and 1; layers learn it from this start. As an operand: floats that broadcast against the output (one
        number, or one for each channel).

    Floats, kept (half precision accumulates in float32). NaN makes NaN. An empty window gives NaN. The winner has a
    gradient of a + (1 − a)/n, every other element of (1 − a)/n, and a has max − mean. Prefer it where neither max nor
    mean is known to be better: it learns which, in one number.

    Source: Lee, Gallagher & Tu, Generalizing pooling functions in convolutional neural networks: mixed, gated, and
    tree, AISTATS 2016 ("mixed" max-average pooling).

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Mixed(0.5), (2, 2))
    array([[3.25]])
    """

    a: float | None = 0.5

    name = "mixed"
    laws = LAWS
    arrays = (Operand("a", over="output", learned=True),)

    def __post_init__(self) -> None:
        if self.a is not None:
            checked_number("a", self.a, least=0, most=1)

    def window(self, w: Window) -> Any:
        return self.mixed(w, self._part(w.extras))

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        grad = g * self.mixed_grad(w, self._part(w.extras))
        return (grad, g * self.gap(w)) if self.a is None else (grad,)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        return self.mixture(xp, values, present, self._part(extras))

    def _part(self, extras: Extras) -> Any:
        return extras["a"] if self.a is None else self.a
