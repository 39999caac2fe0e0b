"""Max-blur pooling: a max at every position, then a blur that takes the stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolwise.api import pool
from poolwise.doors import Door, enter
from poolwise.errors import Fault, InvalidType
from poolwise.geometry import Geometry, Padding, PaddingMode, Whole
from poolwise.op import Array
from poolwise.ops.blur import Blur
from poolwise.ops.max import Max


def max_blur_pool(
    x: Any,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    taps: int | Sequence[float] = 3,
    padding_mode: PaddingMode = "reflect",
    axes: Whole | None = None,
    where: Any = None,
) -> Any:
    """The anti-aliased max pooling: max over windows at stride 1, then a blur of `taps` taps at the stride.

    y = blur(max(x)): a max alone, taken at one of several positions, changes with the position of its input by up to
    the whole contrast (aliasing). The same sizes come out as from `max_pool` with the same arguments, so it takes the
    place of one: prefer it where shifts of the input by a pixel should not change an answer. `blur_pool` alone is the
    anti-aliased form of a stride without a max (of a strided convolution, of an average).

    x: floats of any rank; window, padding (absence), dilation, axes: of the max, as in `pool`.
    stride: of the blur; None: the window. ceil_mode: of the blur too.
    taps: of the blur, along each axis: an int (binomial weights: 3 is [1, 2, 1]) or a tuple of weights, as `Blur`'s.
    padding_mode: what the blur reads beyond the maxima, of which it needs taps − 1 more: "reflect" as in the paper,
        "circular", "replicate", or "absent", where it renormalises.
    where: boolean mask that broadcasts against x; a window without an element takes no part in the blur.

    Returns an array of x's own type; its pooled axes have the sizes ⌊(n + pads − span) / s⌋ + 1.
    Raises InvalidValue or InvalidType that names the argument, before any work is done.

    Source: Zhang, Making convolutional networks shift-invariant again, ICML 2019, section 3.2.

    >>> import numpy as np, poolwise
    >>> poolwise.max_blur_pool(np.array([0.0, 0, 1, 1, 0, 0, 1, 1, 0, 0]), (2,))
    array([0.5, 1. , 0.5, 1. , 0.5])
    >>> poolwise.max_pool(np.array([0.0, 0, 1, 1, 0, 0, 1, 1, 0, 0]), (2,))
    array([0., 1., 0., 1., 0.])
    """
    try:
        blur = _blur(taps)
        door, x = enter(x)
        blur.result_dtype(door.facts(x).dtype)
        rules: dict[str, Any] = {"padding": padding, "dilation": dilation}
        where = _existing(door, x, where, window, axes, {**rules, "stride": stride, "ceil_mode": ceil_mode})
        maxima = pool(x, Max(), window, stride=1, axes=axes, where=where, **rules)
        if where is not None:
            where = pool(where, Max(), window, stride=1, axes=axes, **rules)
        step = window if stride is None else stride
        width = len(blur.taps) if isinstance(blur.taps, tuple) else int(blur.taps or 0)
        rank = _rank(window, axes)
        return pool(
            maxima,
            blur,
            (width,) * rank,
            stride=step,
            padding=(((width - 1) // 2, width // 2),) * rank,
            ceil_mode=ceil_mode,
            padding_mode=padding_mode,
            axes=axes,
            where=where,
        )
    except Fault as fault:
        raise fault.said_by("max_blur_pool") from None


def _blur(taps: Any) -> Blur:
    if taps is None:
        raise InvalidType("taps must be an int or a tuple of weights, got None")
    return Blur(taps)


def _existing(door: Door, x: Array, where: Any, window: Any, axes: Any, rules: dict[str, Any]) -> Any:
    """The mask over x; without one, a mask of all if a window may read padding only. Wrong arguments are refused."""
    shape = tuple(x.shape)
    if not door.tracing():
        Geometry.of(shape, axes, window=window, **rules)
    if where is not None:
        return door.framework.spread(door.mask(where, x), shape)
    may_be_empty = _largest(rules["dilation"]) > 1 or _largest(rules["padding"]) >= _smallest(window)
    return door.framework.xp.ones_like(x) > 0 if may_be_empty else None


def _largest(value: Any) -> int:
    """Of an int, or ints at any depth; a named padding is never wider than the window."""
    if isinstance(value, str):
        return 0
    return max(map(_largest, value)) if isinstance(value, Sequence) else value


def _smallest(window: Whole) -> int:
    return min(window) if isinstance(window, Sequence) else window


def _rank(window: Any, axes: Any) -> int:
    """How many axes are pooled."""
    given = window if axes is None else axes
    return len(given) if isinstance(given, Sequence) else 1
