"""Average and max pooling together: their mean, or one beside the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolwise.api import adaptive_pool, pool
from poolwise.doors import enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import BinRule, Padding, PaddingMode, Whole, channel, pooled_axes
from poolwise.op import FLOATS, Array, Namespace, Operation
from poolwise.ops.max import Max
from poolwise.ops.mean import Mean


def avgmax_pool(
    x: Any,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    axes: Whole | None = None,
    where: Any = None,
) -> Any:
    """Half the average and half the maximum of each window: (mean + max) / 2.

    Its gradient reaches every element, and more of it the largest. Prefer it where max alone trains unevenly and a mean
    alone washes out.

    x: floats of any rank. The arguments, the result's shape and what is raised are `pool`'s.

    Source: Lee, Gallagher & Tu, Generalizing pooling functions in convolutional neural networks, AISTATS 2016, section
    3.1, with equal proportions; as timm's `avgmax` head.

    >>> import poolwise
    >>> poolwise.avgmax_pool([[1, 3], [2, 4]], (2, 2))
    array([[3.25]])
    """
    rules: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    rules |= {"padding_mode": padding_mode, "axes": axes, "where": where}
    _, mean, largest = _both("avgmax_pool", x, lambda x, op: pool(x, op, window, **rules))
    return mean / 2 + largest / 2


def catavgmax_pool(
    x: Any,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    axes: Whole | None = None,
    channel_axis: int | None = None,
    where: Any = None,
) -> Any:
    """The average and the maximum of each window side by side: twice the channels, the averages first.

    Prefer it to `avgmax_pool` where the next layer should weigh the two itself.

    x: floats of any rank. channel_axis: where the channels are; None: before the pooled axes. The other arguments, and
    what is raised, are `pool`'s. Returns `pool`'s shape with 2·C channels.

    Source: Woo et al., CBAM: convolutional block attention module, ECCV 2018, section 3; as timm's `catavgmax` head.

    >>> import poolwise
    >>> poolwise.catavgmax_pool([[[1, 3], [2, 4]]], (2, 2)).tolist()
    [[[2.5]], [[4.0]]]
    """
    rules: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    rules |= {"padding_mode": padding_mode, "axes": axes, "where": where}
    pooled = ("window", window, axes, channel_axis)
    return _beside("catavgmax_pool", x, pooled, lambda x, op: pool(x, op, window, **rules))


def adaptive_avgmax_pool(
    x: Any, output_size: Whole, *, bins: BinRule = "overlapping", axes: Whole | None = None, where: Any = None
) -> Any:
    """`avgmax_pool` over adaptive bins: half the average and half the maximum of each.

    The arguments, the result's shape and what is raised are `adaptive_pool`'s.

    >>> import poolwise
    >>> poolwise.adaptive_avgmax_pool([1, 3, 2, 6], (2,))
    array([2.5, 5. ])
    """
    rules: dict[str, Any] = {"axes": axes, "bins": bins, "where": where}
    _, mean, largest = _both("adaptive_avgmax_pool", x, lambda x, op: adaptive_pool(x, op, output_size, **rules))
    return mean / 2 + largest / 2


def adaptive_catavgmax_pool(
    x: Any,
    output_size: Whole,
    *,
    bins: BinRule = "overlapping",
    axes: Whole | None = None,
    channel_axis: int | None = None,
    where: Any = None,
) -> Any:
    """`catavgmax_pool` over adaptive bins: twice the channels, the averages first.

    The other arguments, and what is raised, are `adaptive_pool`'s.

    >>> import poolwise
    >>> poolwise.adaptive_catavgmax_pool([[1, 3, 2, 6]], (1,)).tolist()
    [[3.0], [6.0]]
    """
    rules: dict[str, Any] = {"axes": axes, "bins": bins, "where": where}
    pooled = ("output_size", output_size, axes, channel_axis)
    return _beside("adaptive_catavgmax_pool", x, pooled, lambda x, op: adaptive_pool(x, op, output_size, **rules))


def _both(name: str, x: Any, reduce: Callable[[Array, Operation], Array]) -> tuple[Namespace, Array, Array]:
    """The namespace of x, its mean and its max."""
    try:
        door, x = enter(x)
        if (dtype := door.facts(x).dtype) not in FLOATS:
            raise InvalidType(f"x must have one of the dtypes {', '.join(FLOATS)}, got {dtype}")
        return door.framework.xp, reduce(x, Mean()), reduce(x, Max())
    except Fault as fault:
        raise fault.said_by(name) from None


def _beside(name: str, x: Any, pooled: tuple[Any, ...], reduce: Callable[[Array, Operation], Array]) -> Array:
    """Mean and max along the channel axis; pooled: what is said of the axes, and under which name."""
    said, each, axes, channel_axis = pooled
    try:
        door, x = enter(x)
        shape = door.facts(x).shape
        axis = channel(len(shape), pooled_axes(shape, axes, each, said), channel_axis)
        if axis is None:
            raise InvalidValue("channel_axis must be given where no axis stands before the pooled ones, got None")
    except Fault as fault:
        raise fault.within(name) from None
    xp, mean, largest = _both(name, x, reduce)
    return xp.concat([mean, largest], axis=axis)
