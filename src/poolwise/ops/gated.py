"""Gated max-average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.geometry import Bins, Geometry
from poolwise.op import Array, Extras, Namespace, Operand, Window
from poolwise.ops.mixed import Mixture


@dataclass(frozen=True)
class Gated(Mixture):
    """A part of the maximum and the rest of the mean of each window, as the window itself decides: a = σ(Σ ω·x).

    Operand gate: ω, floats that broadcast against the window (one mask for all, or one for each channel). Layers learn
    it, from zeros: half of each.

    Floats, kept (half precision accumulates in float32). An absent element adds nothing to the gate. NaN makes NaN. An
    empty window gives NaN. The input and the gate have gradients. Bins of unequal size are refused: ω stands at fixed
    places. Prefer it to `Mixed` where one share does not fit every part of an image.

    Source: Lee, Gallagher & Tu, Generalizing pooling functions in convolutional neural networks: mixed, gated, and
    tree, AISTATS 2016 ("gated" max-average pooling).

    >>> import poolwise
    >>> poolwise.gated_pool([[1, 3], [2, 4]], (2, 2), gate=[[0, 0], [0, 0]])
    array([[3.25]])
    """

    name = "gated"
    laws = frozenset({"constant", "bounded"})
    arrays = (Operand("gate", over="window", learned=True),)

    def window(self, w: Window) -> Any:
        return self.mixed(w, self._part(w))

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        part = self._part(w)
        slope = g * part * (1 - part) * self.gap(w)
        return g * self.mixed_grad(w, part) + slope * w.extras["gate"], slope * w.values

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        pull = xp.sum(values * extras["gate"], axis=-1)
        return self.mixture(xp, values, present, 0.5 + 0.5 * xp.tanh(0.5 * pull))

    def refusal(self, geometry: Geometry) -> str | None:
        if any(isinstance(table, Bins) for table in geometry.tables):
            return "its gate stands at fixed places, and these bins differ in size"
        return None

    def _part(self, w: Window) -> Any:
        return 0.5 + 0.5 * np.tanh(0.5 * np.sum(w.extras["gate"] * w.values))
