"""Blur pooling: a weighted mean with the weights of a low-pass filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, inf
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Bins, Geometry
from poolwise.op import LAWS, WEIGHTS, Array, Extras, Namespace, Operation, Window, checked_number, tap_weights

MOST_EXACT = 1024  # taps up to which a binomial coefficient divided by its row's sum is a normal float64


@dataclass(frozen=True)
class Blur(Operation):
    """The weighted mean of each window, Σ w·x / Σ w, with binomial weights: a low-pass filter that takes its stride.

    The weight of a tap is the product of its weights along the axes, and along an axis of n taps these are the binomial
    coefficients C(n − 1, t): [1, 1] for 2 taps, [1, 2, 1] for 3, [1, 4, 6, 4, 1] for 5. A strided pooling keeps one
    position of several, and frequencies above half of that rate come back as others (aliasing); a blur of at least
    2·stride − 1 taps takes most of them away first. Prefer it to a mean of the same window where that stands before
    a stride (a mean's own frequency response has side lobes), and to max where an output should change little when its
    input moves; `max_blur_pool` has both.

    taps: None: binomial weights, as many as the window has taps. An int: the same, and another window is refused. A
        tuple of numbers of at least 0: the weights along every pooled axis, whose window must have as many taps.

    Floats, kept (half precision accumulates in float32). An absent element has no weight, and the weights of the others
    are divided by their own sum: a constant stays that constant at every border, under every mask. (Zhang reflects the
    input at its border: `padding_mode="reflect"`.) A window without any weight gives NaN. Bins of unequal size are
    refused. The gradient is w / Σ w times the output's.

    Source: Zhang, Making convolutional networks shift-invariant again, ICML 2019, section 3.2; the binomial filter:
    Burt & Adelson, The Laplacian pyramid as a compact image code, 1983, section II.

    >>> import poolwise
    >>> poolwise.pool([4, 8, 0, 4, 4], poolwise.Blur(), (3,), stride=2)
    array([5., 3.])
    """

    taps: int | tuple[float, ...] | None = None

    name = "blur"
    laws = LAWS - {"order"}
    linear_gradient = True
    separable = True

    def __post_init__(self) -> None:
        if isinstance(self.taps, Sequence) and not isinstance(self.taps, str):
            object.__setattr__(self, "taps", _checked_weights(self.taps))
        elif self.taps is not None:
            if isinstance(self.taps, bool) or not hasattr(self.taps, "__index__"):
                raise InvalidType(f"taps must be None, an int or a tuple of weights, got {self.taps!r}")
            checked_number("taps", self.taps, least=1)

    def window(self, w: Window) -> Any:
        weights = self._standing(w)
        return np.sum(weights * w.values) / np.sum(weights)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        weights = self._standing(w)
        return (g * weights / np.sum(weights),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        weights = xp.where(present, extras[WEIGHTS], xp.zeros_like(extras[WEIGHTS]))
        return xp.sum(values * weights, axis=-1) / xp.sum(weights, axis=-1)

    def weights(self, taps: Any, xp: Namespace = np) -> Array:
        if isinstance(self.taps, tuple):
            return np.array(self.taps) / sum(self.taps)
        return _binomial(taps) if isinstance(taps, int) and taps <= MOST_EXACT else _by_logarithms(xp, taps)

    def refusal(self, geometry: Geometry) -> str | None:
        if any(isinstance(table, Bins) for table in geometry.tables):
            return "its taps stand at fixed places, and these bins differ in size"
        own = len(self.taps) if isinstance(self.taps, tuple) else self.taps
        if own is not None and any(taps != own for taps in geometry.window):
            return f"it has {own} taps along each axis, and the window is {geometry.window}"
        return None

    def _standing(self, w: Window) -> NDArray[np.float64]:
        """The weights of the elements that are there."""
        whole = cast("NDArray[np.float64]", tap_weights(self, w.shape)).reshape(w.shape)
        return whole[tuple(w.positions.T)]


def _checked_weights(weights: Sequence[float]) -> tuple[float, ...]:
    for weight in weights:
        checked_number("taps", weight, least=0, most=np.finfo(float).max)
    if not 0 < sum(weights) < inf:
        raise InvalidValue(f"taps must hold a weight above 0, and their sum must be finite, got {tuple(weights)!r}")
    return tuple(map(float, weights))


@lru_cache(maxsize=256)
def _binomial(taps: int) -> NDArray[np.float64]:
    """C(n − 1, t) / 2^(n − 1): they add up to exactly 1 where float64 holds each."""
    weights = np.array([comb(taps - 1, tap) / 2 ** (taps - 1) for tap in range(taps)])
    weights.setflags(write=False)
    return weights


def _by_logarithms(xp: Namespace, taps: Any) -> Array:
    """The same but for a factor, the largest being 1: for many taps, or as many as only a running graph knows."""
    tap = xp.arange(1, taps)
    steps = xp.log(taps - tap) - xp.log(tap)
    logarithms = xp.concat([xp.zeros((1,), dtype=steps.dtype), xp.cumsum(steps, axis=0)], axis=0)
    return xp.exp(logarithms - xp.max(logarithms))
