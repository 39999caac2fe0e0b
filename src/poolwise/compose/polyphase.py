"""Adaptive polyphase sampling: the stride that keeps the component with the largest norm, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import numpy as np

from poolwise.compose.blocks import flattened, joined, sizes_of, split
from poolwise.doors import NUMPY, Door, enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Whole, blocks, channel, spread
from poolwise.op import Array, Namespace, checked_number


def polyphase_pool(
    x: Any,
    stride: Whole,
    *,
    p: float = 2,
    return_indices: bool = False,
    axes: Whole | None = None,
    channel_axis: int | None = None,
) -> Any:
    """Subsample by the polyphase component of the largest p-norm: a stride that commutes with circular shifts.

    x[o::stride] for each offset o are the polyphase components of x. A plain stride always keeps the one at 0, so a
    shift by one gives other numbers; kept here is the one whose norm, over all channels, is the largest, so a shifted
    input gives the same numbers, shifted. Circular convolutions, this and a global average make a classifier whose
    answer no circular shift changes. Prefer it to a blur where that must hold exactly; it smooths nothing.

    x: array of any dtype; its pooled sizes must be multiples of the strides.
    stride: step per pooled axis, a tuple (a bare int only together with `axes`).
    p: of the norm, at least 1; inf is allowed; 2 in the paper. Equal norms: the first component in row-major order.
    return_indices: also return which component each entry of the batch kept (int64, row-major over the offsets), which
        `polyphase_unpool` takes.
    axes: the pooled axes; None: the last len(stride). channel_axis: whose entries choose together; None: the axis
        before the pooled ones. Every other axis is batch, whose entries choose for themselves.

    Returns an array of x's own type; a pooled axis has n / s elements. The gradient goes to the elements that are kept.
    Raises InvalidValue or InvalidType that names the argument, before any work is done.

    Source: Chaman & Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021.

    >>> import numpy as np, poolwise
    >>> poolwise.polyphase_pool(np.array([0.0, 5, 1, 7, 2, 6]), (2,))
    array([5., 7., 6.])
    """
    try:
        checked_number("p", p, least=1)
        if not isinstance(return_indices, bool):
            raise InvalidType(f"return_indices must be True or False, got {return_indices!r}")
        door, x = enter(x)
        facts = door.facts(x)
        pooled, steps = blocks(facts.shape, axes, stride, "stride")
        shared = channel(len(facts.shape), pooled, channel_axis)
    except Fault as fault:
        raise fault.within("polyphase_pool") from None
    xp, batch = door.framework.xp, len(facts.shape) - len(pooled) - (shared is not None)
    components = _components(xp, x, pooled, steps, shared)
    norms = _powers(xp, door.framework.cast(components, "float64"), p, batch)
    chosen = door.framework.cast(xp.argmax(norms, axis=-1), "int64")
    kept = _at(xp, chosen, door.framework.constant(np.arange(prod(steps)), x), components)
    y = xp.sum(xp.where(kept, components, xp.zeros_like(components)), axis=batch)
    y = _back(xp, door.framework.cast(y, facts.dtype), pooled, shared)
    return (y, chosen) if return_indices else y


def polyphase_unpool(
    y: Any, indices: Any, stride: Whole, *, axes: Whole | None = None, channel_axis: int | None = None
) -> Any:
    """The inverse of `polyphase_pool(…, return_indices=True)` for decoders: y at the kept offsets, zeros elsewhere.

    y: array. indices: integers of the shape of y's batch, each less than the product of the strides.
    stride, axes, channel_axis: as in the pooling that is undone. Returns y's type; a pooled axis has n · s elements.
    Raises InvalidValue or InvalidType that names the argument.

    Source: Chaman & Dokmanić, Truly shift-equivariant convolutional neural networks with adaptive polyphase upsampling,
    Asilomar 2021.

    >>> import numpy as np, poolwise
    >>> y, indices = poolwise.polyphase_pool(np.array([0.0, 5, 1, 7, 2, 6]), (2,), return_indices=True)
    >>> poolwise.polyphase_unpool(y, indices, (2,))
    array([0., 5., 0., 7., 0., 6.])
    """
    try:
        door, y = enter(y)
        facts = door.facts(y)
        pooled, steps = spread(facts.shape, axes, stride, "stride")
        shared = channel(len(facts.shape), pooled, channel_axis)
        batch = [axis for axis in range(len(facts.shape)) if axis not in (*pooled, shared)]
        chosen = _checked(indices, door, y, [y.shape[axis] for axis in batch], prod(steps))
    except Fault as fault:
        raise fault.within("polyphase_unpool") from None
    xp = door.framework.xp
    components = xp.expand_dims(_front(xp, y, pooled, shared), axis=len(batch))
    chosen = door.framework.cast(chosen, "int64")
    kept = _at(xp, chosen, door.framework.constant(np.arange(prod(steps)), y), components)
    components = xp.where(kept, components, xp.zeros_like(components))
    return _back(xp, _whole(xp, components, steps, len(batch), shared is not None), pooled, shared)


def _front(xp: Namespace, x: Array, pooled: Sequence[int], shared: int | None) -> Array:
    """(…batch, channels, *pooled)."""
    own = (*(() if shared is None else (shared,)), *pooled)
    return xp.moveaxis(x, own, tuple(range(-len(own), 0)))


def _back(xp: Namespace, x: Array, pooled: Sequence[int], shared: int | None) -> Array:
    """The axes where they came from."""
    own = (*(() if shared is None else (shared,)), *pooled)
    return xp.moveaxis(x, tuple(range(-len(own), 0)), own)


def _components(xp: Namespace, x: Array, pooled: Sequence[int], steps: Sequence[int], shared: int | None) -> Array:
    """(…batch, components, channels, *sizes)."""
    rank = len(pooled)
    parts = split(xp, _front(xp, x, pooled, shared), range(-rank, 0), steps)
    first = len(parts.shape) - 2 * rank
    parts = flattened(xp, parts, first, rank)
    return parts if shared is None else xp.moveaxis(parts, (first,), (first - 1,))


def _whole(xp: Namespace, components: Array, steps: Sequence[int], batch: int, shared: bool) -> Array:
    """(…batch, channels, *pooled), from the components."""
    rank = len(steps)
    parts = xp.moveaxis(components, (batch,), (batch + 1,)) if shared else components
    sizes = sizes_of(parts)
    parts = xp.reshape(parts, (*sizes[: batch + shared], *steps, *sizes[batch + shared + 1 :]))
    return joined(xp, parts, range(-rank, 0))


def _powers(xp: Namespace, components: Array, p: float, batch: int) -> Array:
    """(…batch, components): each one's p-norm, raised to p and by one factor for all."""
    magnitudes, rest = xp.abs(components), tuple(range(batch + 1, len(components.shape)))
    if 0 in components.shape:
        return xp.sum(magnitudes, axis=rest)
    largest = xp.max(magnitudes, axis=(batch, *rest), keepdims=True)
    if p == inf:
        return xp.max(magnitudes, axis=rest)
    scale = xp.where((largest > 0) & (largest < inf), largest, xp.ones_like(largest))
    return xp.sum((magnitudes / scale) ** p, axis=rest)


def _at(xp: Namespace, chosen: Array, numbers: Array, components: Array) -> Array:
    """(…batch, components, 1, …): True for the one that is chosen."""
    kept = xp.expand_dims(chosen, axis=-1) == numbers
    for _ in range(len(components.shape) - len(kept.shape)):
        kept = xp.expand_dims(kept, axis=-1)
    return kept


def _checked(indices: Any, door: Door, y: Array, batch: Sequence[int], count: int) -> Array:
    """Refuse what cannot say which component each entry of the batch kept."""
    indices = np.asarray(indices) if door is NUMPY else indices
    if type(indices).__module__.partition(".")[0] != type(y).__module__.partition(".")[0]:
        raise InvalidType(f"indices must be an array of {door.framework.name}, as y is, got {type(indices).__name__}")
    if not (name := door.facts(indices).dtype).startswith(("int", "uint")):
        raise InvalidType(f"indices must be integers, got {name}")
    if tuple(indices.shape) != tuple(batch):
        raise InvalidValue(f"indices must have the batch's shape {tuple(batch)}, got {tuple(indices.shape)}")
    if not door.tracing() and door.facts(y).device == "cpu" and _any(door, (indices < 0) | (indices >= count)):
        raise InvalidValue(f"indices must be between 0 and {count - 1}, got others")
    return indices


def _any(door: Door, bad: Array) -> bool:
    """Whether one is True; a transform of torch.func does not show it."""
    try:
        return bool(door.framework.xp.any(bad))
    except RuntimeError:
        return False
