"""Does a small translation change the answer?  Two protocols, for any model and any number of axes of position.

Circular: every image against itself moved round by each of some shifts (Chaman & Dokmanić, Truly shift-invariant
convolutional neural networks, CVPR 2021). Crops: two random crops of every image against each other (Zhang, Making
convolutional networks shift-invariant again, ICML 2019, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = NDArray[Any]
Answers: TypeAlias = NDArray[Any]
Predict: TypeAlias = Callable[[Images], Answers]  # (N, …) → one answer for each image
Agree: TypeAlias = Callable[[Answers, Answers], NDArray[Any]]  # → (N,) numbers
Move: TypeAlias = tuple[int, ...]


def circular(
    predict: Predict, images: Images, axes: Sequence[int], moves: Sequence[Move], agree: Agree = np.equal
) -> NDArray[np.float64]:
    """How the answer to every image agrees with that to the image moved round: (N, moves).

    images: (N, …). axes: those of position. moves: of each, the pixels by axis.

    >>> lit = np.eye(5)[:, None]  # five images of one row, one pixel lit in each
    >>> circular(lambda x: x.argmax(2)[:, 0], lit, (2,), [(1,), (5,)]).mean(axis=0)
    array([0., 1.])
    """
    unmoved = predict(images)
    agreeing = [agree(predict(np.roll(images, move, tuple(axes))), unmoved) for move in moves]
    return np.stack([np.asarray(each, np.float64) for each in agreeing], axis=1)


def crops(
    predict: Predict,
    wide: Images,
    size: Sequence[int],
    axes: Sequence[int],
    corners: Sequence[NDArray[np.int64]],
    agree: Agree = np.equal,
) -> NDArray[np.float64]:
    """How the answers to two crops of every image agree: (N,).

    wide: (N, …), larger than `size` along the axes of position. corners: two arrays (axes, N), where the crops begin.
    """
    first, second = (predict(cropped(wide, size, axes, each)) for each in corners)
    return np.asarray(agree(first, second), np.float64)


def every_move(reach: int, rank: int) -> list[Move]:
    """All shifts of at most `reach` pixels along each of `rank` axes, but the one that moves nothing.

    >>> every_move(1, 1)
    [(-1,), (1,)]
    """
    return [move for move in product(range(-reach, reach + 1), repeat=rank) if any(move)]


def some_moves(reach: int, rank: int, most: int, random: np.random.Generator) -> list[Move]:
    """All shifts, or `most` of them, drawn without replacement, each as likely as another."""
    side = 2 * reach + 1
    count = side**rank - 1
    if count <= most:
        return every_move(reach, rank)
    drawn = random.choice(count, size=most, replace=False)
    places = np.stack(np.unravel_index(drawn + (drawn >= count // 2), (side,) * rank), axis=1) - reach
    return [tuple(map(int, place)) for place in places]


def padded(images: Images, reach: int, axes: Sequence[int]) -> Images:
    """The images with `reach` zeros on every side of every axis of position."""
    sides = [(reach, reach) if axis in axes else (0, 0) for axis in range(images.ndim)]
    return np.pad(images, sides)


def cropped(wide: Images, size: Sequence[int], axes: Sequence[int], corner: NDArray[np.int64]) -> Images:
    """One crop of each image; corner: (axes, N)."""
    index: list[Any] = [_along(np.arange(count), axis, wide.ndim) for axis, count in enumerate(wide.shape)]
    for axis, begin, count in zip(axes, corner, size, strict=True):
        index[axis] = _along(begin, 0, wide.ndim) + _along(np.arange(count), axis, wide.ndim)
    return wide[tuple(index)]


def central(wide: Images, size: Sequence[int], axes: Sequence[int]) -> Images:
    """The middle of each image."""
    index = [slice(None)] * wide.ndim
    for axis, count in zip(axes, size, strict=True):
        begin = (wide.shape[axis] - count) // 2
        index[axis] = slice(begin, begin + count)
    return wide[tuple(index)]


def _along(numbers: NDArray[np.int64], axis: int, ndim: int) -> NDArray[np.int64]:
    return numbers.reshape([-1 if each == axis else 1 for each in range(ndim)])


def cosine(first: Answers, second: Answers) -> NDArray[np.float64]:
    """The cosine between two outputs of each image, (N, numbers) both; 1 where both are zero, 0 where one is."""
    a, b = (np.asarray(each, np.float64).reshape(len(each), prod(each.shape[1:])) for each in (first, second))
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = lengths[0] * lengths[1]
    alone = np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, 0.0)
    return np.where(both > 0, (a * b).sum(axis=1) / np.where(both > 0, both, 1.0), alone)
