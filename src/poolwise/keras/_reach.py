"""What a layer's windows read, but for the sizes, which a shape or a running graph tells later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from keras import ops

from poolwise.api import adaptive, adaptive_pool, pool, sliding
from poolwise.geometry import Geometry
from poolwise.op import Array, Operation

Shape = Sequence[int | None]


class Table(NamedTuple):
    """What windows read along one axis of a running graph, (outputs, taps).

    index: the element that each tap reads. inside: whether there is one.
    """

    index: Array
    inside: Array


class Slide(NamedTuple):
    """A sliding layer's geometry, but for the sizes."""

    axes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str

    build = staticmethod(sliding)
    whole = False

    @property
    def arguments(self) -> tuple[Any, ...]:
        """`poolwise.api.sliding`'s, after the shape."""
        return self.window, self.stride, self.padding, 1, False, "absent", self.axes

    def stand_in(self, shape: Shape) -> tuple[int, ...]:
        """Sizes for the unknown ones, such that "same" pads wherever it can (a remainder of 1 leaves most to pad)."""
        steps = zip(self.window, self.stride, strict=True)
        return _sized(shape, self.axes, [-(-taps // step) * step + 1 for taps, step in steps])

    def cells(self, sizes: Sequence[Any]) -> list[Any]:
        """A tensor's sizes after pooling, by arithmetic that sizes of a running graph can do; None stays None."""
        found = list(sizes)
        for axis, taps, step in zip(self.axes, self.window, self.stride, strict=True):
            found[axis] = None if found[axis] is None else _outputs(found[axis], taps, step, self.padding)
        return found

    def taps(self, shape: Shape) -> Sequence[int | None]:
        """Of one window, per pooled axis."""
        return self.window

    def tables(self, sizes: Sequence[Any]) -> list[Table]:
        """What the windows read along each pooled axis of these sizes of a running graph."""
        rules = zip(self.axes, self.window, self.stride, strict=True)
        return [_slides(sizes[axis], taps, step, self.padding) for axis, taps, step in rules]

    def count(self, present: Array) -> Any:
        """How many taps of each window count for a mean that includes padding."""
        return prod(self.window)

    def pool(self, x: Array, op: Operation, axes: tuple[int, ...], operands: Mapping[str, Array]) -> Array:
        """`poolwise.pool` over these axes of a tensor that has a door of its own."""
        return pool(x, op, self.window, stride=self.stride, padding=self.padding, axes=axes, operands=operands)


class Adapt(NamedTuple):
    """The same of a layer whose output has a given size."""

    axes: tuple[int, ...]
    output_size: tuple[int, ...]

    build = staticmethod(adaptive)

    @property
    def whole(self) -> bool:
        """Whether one bin is all of each pooled axis, whatever the sizes."""
        return set(self.output_size) == {1}

    @property
    def arguments(self) -> tuple[Any, ...]:
        """`poolwise.api.adaptive`'s, after the shape."""
        return self.output_size, self.axes, "overlapping"

    def stand_in(self, shape: Shape) -> tuple[int, ...]:
        """Sizes for the unknown ones, such that bins differ wherever they can."""
        return _sized(shape, self.axes, [2 * outputs + 1 for outputs in self.output_size])

    def cells(self, sizes: Sequence[Any]) -> list[Any]:
        """A tensor's sizes after pooling."""
        return [dict(zip(self.axes, self.output_size, strict=True)).get(axis, size) for axis, size in enumerate(sizes)]

    def taps(self, shape: Shape) -> Sequence[int | None]:
        """Of the widest bin, per pooled axis; None where the size is unknown."""
        widest = adaptive(self.stand_in(shape), *self.arguments).window
        return [None if shape[axis] is None else taps for axis, taps in zip(self.axes, widest, strict=True)]

    def tables(self, sizes: Sequence[Any]) -> list[Table]:
        """What the bins read along each pooled axis of these sizes of a running graph."""
        return [_bins(sizes[axis], outputs) for axis, outputs in zip(self.axes, self.output_size, strict=True)]

    def count(self, present: Array) -> Any:
        """How many taps of each bin count: a bin has no padding."""
        return ops.sum(ops.cast(present, "int32"), axis=-1)

    def pool(self, x: Array, op: Operation, axes: tuple[int, ...], operands: Mapping[str, Array]) -> Array:
        """`poolwise.adaptive_pool` over these axes of a tensor that has a door of its own."""
        return adaptive_pool(x, op, self.output_size, axes=axes, operands=operands)


Reach: TypeAlias = Slide | Adapt


def geometry_of(shape: Shape, reach: Reach) -> Geometry:
    """What is read of a tensor of that shape, or of one that has sizes for the unknown ones."""
    return reach.build(reach.stand_in(shape), *reach.arguments)


def _sized(shape: Shape, axes: tuple[int, ...], pooled: Sequence[int]) -> tuple[int, ...]:
    """The shape with these sizes for unknown ones of the pooled axes, and 1 for others."""
    unknown = dict(zip(axes, pooled, strict=True))
    return tuple(unknown.get(axis, 1) if size is None else size for axis, size in enumerate(shape))


def _outputs(size: Any, taps: int, step: int, padding: str) -> Any:
    return (size - taps) // step + 1 if padding == "valid" else -(-size // step)


def _slides(size: Any, taps: int, step: int, padding: str) -> Table:
    outputs = _outputs(size, taps, step, padding)
    low = 0 if padding == "valid" else cast("Any", ops.maximum((outputs - 1) * step + taps - size, 0)) // 2
    raw = ops.expand_dims(cast("Any", ops.arange(outputs)) * step - low, 1) + np.arange(taps, dtype="int32")
    return Table(ops.clip(raw, 0, size - 1), ops.logical_and(raw >= 0, raw < size))


def _bins(size: Any, outputs: int) -> Table:
    size = cast("Any", ops.cast(size, "int64"))
    cell = cast("Any", ops.expand_dims(ops.arange(outputs, dtype="int64"), 1))
    end = -(-(cell + 1) * size // outputs)
    raw = cell * size // outputs + ops.arange(-(-size // outputs) + 1, dtype="int64")
    return Table(ops.minimum(raw, size - 1), raw < end)
