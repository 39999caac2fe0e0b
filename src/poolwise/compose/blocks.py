"""Arrays as blocks of neighbours, and blocks as arrays: what polyphase sampling and space-to-depth share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from poolwise.op import Array, Namespace


def sizes_of(x: Array) -> list[int]:
    """The sizes, −1 for one that only a running graph knows."""
    return [-1 if size is None else size for size in x.shape]


def split(xp: Namespace, x: Array, axes: Sequence[int], blocks: Sequence[int]) -> Array:
    """(…others, *offsets in a block, *blocks along the axes): element b·k + o of an axis becomes [o, b]."""
    rank = len(axes)
    x = xp.moveaxis(x, tuple(axes), tuple(range(-rank, 0)))
    sizes = sizes_of(x)
    others = sizes[: len(sizes) - rank]
    apart = [part for size, block in zip(sizes[len(others) :], blocks, strict=True) for part in (size // block, block)]
    x = xp.reshape(x, (*others, *apart))
    first = len(others)
    counts, offsets = (tuple(range(first + start, first + 2 * rank, 2)) for start in (0, 1))
    return xp.permute_dims(x, (*range(first), *offsets, *counts))


def joined(xp: Namespace, parts: Array, axes: Sequence[int]) -> Array:
    """The array that `split` took apart."""
    rank = len(axes)
    first = len(parts.shape) - 2 * rank
    order = [first + place for number in range(rank) for place in (rank + number, number)]
    sizes = sizes_of(parts)
    whole = [sizes[first + number] * sizes[first + rank + number] for number in range(rank)]
    x = xp.reshape(xp.permute_dims(parts, (*range(first), *order)), (*sizes[:first], *whole))
    return xp.moveaxis(x, tuple(range(-rank, 0)), tuple(axes))


def flattened(xp: Namespace, x: Array, first: int, count: int) -> Array:
    """`count` axes from `first` on made one."""
    sizes = sizes_of(x)
    return xp.reshape(x, (*sizes[:first], prod(sizes[first : first + count]), *sizes[first + count :]))
