"""What the cells of an enlarged map read: transposed convolutions, resizes, depth to space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from poolwise.design.graph import Step
from poolwise.design.trace import Ints

Reach = tuple[Ints, Ints]  # for each cell of one axis the first and the last element that it reads
_AROUND = {"nearest": 0, "linear": 1, "cubic": 2}  # elements read on each side of a place between two


def reaches(step: Step, before: Sequence[int], after: Sequence[int]) -> list[Reach] | None:
    """By axis what an enlarging step reads; None for any other, and where places depend on data (unpooling)."""
    sizes = list(zip(before, after, strict=True))
    if step.op == "DepthToSpace":
        return [_copied(size, output) for size, output in sizes]
    if step.op == "Resize":
        return [_resized(size, output, _mode(step.attributes.get("mode", "nearest"))) for size, output in sizes]
    if step.op == "ConvTranspose" and "kernel_shape" in step.attributes:
        return [_transposed(step.attributes, axis, len(sizes), *each) for axis, each in enumerate(sizes)]
    return None


def _copied(size: int, output: int) -> Reach:
    place = np.arange(output) * size // output
    return place, place


def _mode(name: Any) -> int:
    """How far a resize of this name reads: nearest, bilinear, cubic and the like."""
    said = name.decode() if isinstance(name, bytes) else str(name)
    return next((around for mode, around in _AROUND.items() if mode in said), _AROUND["cubic"])


def _resized(size: int, output: int, around: int) -> Reach:
    if not around:
        return _copied(size, output)
    left = np.floor((np.arange(output) + 0.5) * size / output - 0.5).astype(np.int64)
    return np.clip(left - around + 1, 0, size - 1), np.clip(left + around, 0, size - 1)


def _transposed(given: Any, axis: int, rank: int, size: int, output: int) -> Reach:
    """Element i is added to the outputs i·stride + tap·dilation − padding."""
    taps, step = given["kernel_shape"][axis], (given.get("strides") or [1] * rank)[axis]
    gap = (given.get("dilations") or [1] * rank)[axis]
    span = (taps - 1) * gap + 1
    pads = given.get("pads")
    low = pads[axis] if pads else max(0, (size - 1) * step + span - output) // 2
    place = np.arange(output) + low
    first, last = -((span - 1 - place) // step), place // step
    return np.clip(first, 0, size - 1), np.clip(last, 0, size - 1)
