"""Space to depth and back: blocks of neighbours as channels, in any number of axes."""

from __future__ import annotations

from math import prod
from typing import Any, Literal, get_args

from poolwise.compose.blocks import flattened, joined, sizes_of, split
from poolwise.doors import enter
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Whole, blocks, channel, spread
from poolwise.op import Array

Mode = Literal["CRD", "DCR"]


def space_to_depth(
    x: Any, block_size: Whole, *, mode: Mode = "CRD", axes: Whole | None = None, channel_axis: int | None = None
) -> Any:
    """Each block of neighbours becomes that many channels: a downsampling that loses nothing.

    x: array of any dtype; its pooled sizes must be multiples of the block's.
    block_size: neighbours per pooled axis, a tuple (a bare int only together with `axes`).
    mode: the order of the new channels, by ONNX's names: "CRD" (a channel's offsets together: channel · block + offset,
        as PyTorch's pixel_unshuffle) or "DCR" (an offset's channels together: offset · C + channel, as TensorFlow's).
    axes: the pooled axes; None: the last len(block_size). channel_axis: where the channels are; None: before them.

    Returns an array of x's type with block times the channels; a pooled axis has n / b elements.
    Raises InvalidValue or InvalidType that names the argument.

    Source: Shi et al., Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network, CVPR 2016, section 2.2 (its inverse).

    >>> import numpy as np, poolwise
    >>> poolwise.space_to_depth(np.arange(4).reshape(1, 2, 2), (2, 2)).ravel()
    array([0, 1, 2, 3])
    """
    try:
        checked_mode(mode)
        door, x = enter(x)
        shape = door.facts(x).shape
        pooled, sizes = blocks(shape, axes, block_size, "block_size")
        depth = _depth(len(shape), pooled, channel_axis)
    except Fault as fault:
        raise fault.within("space_to_depth") from None
    xp, rank = door.framework.xp, len(pooled)
    parts = split(xp, xp.moveaxis(x, (depth, *pooled), tuple(range(-rank - 1, 0))), range(-rank, 0), sizes)
    first = len(parts.shape) - 2 * rank - 1  # where the channels are, the offsets behind them
    parts = flattened(xp, parts, first + 1, rank)
    parts = xp.moveaxis(parts, (first + 1,), (first,)) if mode == "DCR" else parts
    parts = flattened(xp, parts, first, 2)
    return xp.moveaxis(parts, tuple(range(-rank - 1, 0)), (depth, *pooled))


def depth_to_space(
    x: Any, block_size: Whole, *, mode: Mode = "CRD", axes: Whole | None = None, channel_axis: int | None = None
) -> Any:
    """The inverse of `space_to_depth`: the channels' blocks become neighbours, as PyTorch's pixel_shuffle.

    x: array whose channels are a multiple of the block. The arguments are `space_to_depth`'s.

    Source: Shi et al., Real-time single image and video super-resolution using an efficient sub-pixel convolutional
    neural network, CVPR 2016, section 2.2.

    >>> import numpy as np, poolwise
    >>> poolwise.depth_to_space(np.arange(4).reshape(4, 1, 1), (2, 2))
    array([[[0, 1],
            [2, 3]]])
    """
    try:
        checked_mode(mode)
        door, x = enter(x)
        shape = door.facts(x).shape
        pooled, sizes = spread(shape, axes, block_size, "block_size")
        depth = _depth(len(shape), pooled, channel_axis)
        if shape[depth] % prod(sizes):
            raise InvalidValue(f"block_size must divide the {shape[depth]} channels, got {block_size!r}")
    except Fault as fault:
        raise fault.within("depth_to_space") from None
    xp, rank = door.framework.xp, len(pooled)
    parts = _apart(door.framework.xp, xp.moveaxis(x, (depth, *pooled), tuple(range(-rank - 1, 0))), sizes, mode)
    return xp.moveaxis(joined(xp, parts, range(-rank, 0)), tuple(range(-rank - 1, 0)), (depth, *pooled))


def _apart(xp: Any, x: Array, sizes: tuple[int, ...], mode: Mode) -> Array:
    """(…, channels · block, *pooled) → (…, channels, *offsets, *pooled)."""
    rank, whole = len(sizes), sizes_of(x)
    first = len(whole) - rank - 1
    channels = whole[first] // prod(sizes)
    pair = (channels, *sizes) if mode == "CRD" else (*sizes, channels)
    parts = xp.reshape(x, (*whole[:first], *pair, *whole[first + 1 :]))
    return parts if mode == "CRD" else xp.moveaxis(parts, (first + rank,), (first,))


def _depth(ndim: int, pooled: tuple[int, ...], channel_axis: int | None) -> int:
    depth = channel(ndim, pooled, channel_axis)
    if depth is None:
        raise InvalidValue("channel_axis must be given where no axis stands before the pooled ones, got None")
    return depth


def checked_mode(mode: object) -> None:
    """Refuse what is no order of channels."""
    if not isinstance(mode, str):
        raise InvalidType(f"mode must be one of {', '.join(map(repr, get_args(Mode)))}, got {mode!r}")
    if mode not in get_args(Mode):
        raise InvalidValue(f"mode must be one of {', '.join(map(repr, get_args(Mode)))}, got {mode!r}")
