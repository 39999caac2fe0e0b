"""Geometry through a stack: sizes, strides, receptive fields, and what no window reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise import Geometry
from poolwise.design.stack import Input, Layer, placed

Ints: TypeAlias = NDArray[np.int64]
CHUNK = 1 << 22  # taps expanded at a time


@dataclass(frozen=True)
class Unread:
    """How many elements of one axis no window reads: before the first one read, after the last, and in between."""

    before: int
    after: int
    between: int


@dataclass(frozen=True)
class Span:
    """What the cells of one axis see of the input.

    jump: input elements from one cell to the next (their mean, where bins differ).
    field: elements in a cell's receptive field, padding included (the largest, where they differ).
    first: where the first cell's receptive field starts; negative: in the padding.
    even: whether all cells are alike.
    """

    jump: float
    field: int
    first: int
    even: bool

    @property
    def centre(self) -> float:
        """The middle of the first cell's receptive field, in input elements; 0 is the first one's middle."""
        return self.first + (self.field - 1) / 2


@dataclass(frozen=True)
class Stage:
    """One layer, placed: sizes before and after, and for each axis what it reads and sees."""

    layer: Layer
    geometry: Geometry
    channels: tuple[int | None, int | None]
    spans: tuple[Span, ...]
    unread: tuple[Unread, ...]
    empty: int

    @property
    def input(self) -> tuple[int, ...]:
        """Sizes before."""
        return self.geometry.shape

    @property
    def output(self) -> tuple[int, ...]:
        """Sizes after."""
        return self.geometry.output_shape

    @property
    def kept(self) -> float:
        """Output positions per input position."""
        return prod(self.output) / prod(self.input)


def trace(given: Input, layers: Sequence[Layer]) -> list[Stage]:
    """Every layer of a stack on the sizes that reach it.

    Raises InvalidValue, which names the layer and the sizes, where one does not fit.
    Source: Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks, Distill, 2019.

    >>> from poolwise.design import parse
    >>> [stage.spans[0].field for stage in trace(*parse("28x28 conv3 max2/2 conv3".split()))]
    [3, 4, 8]
    """
    stages: list[Stage] = []
    sizes, channels = given.sizes, given.channels
    views: list[Even | Uneven] = [Even(1, 1, 0) for _ in sizes]
    for number, layer in enumerate(layers, start=2):
        geometry = placed(layer, number, sizes)
        views = [view.through(table) for view, table in zip(views, geometry.tables, strict=True)]
        after = layer.channels if layer.name == "conv" else channels
        unread = tuple(unread_by(read) for read in geometry.coverage())
        spans = tuple(view.span for view in views)
        stages.append(Stage(layer, geometry, (channels, after), spans, unread, empty_windows(geometry)))
        sizes, channels = geometry.output_shape, after
    return stages


@dataclass(frozen=True)
class Even:
    """Cell i sees the input elements first + i·jump … first + i·jump + field − 1, for every i, in the padding too."""

    jump: int
    field: int
    first: int

    def through(self, table: Any) -> Even | Uneven:
        if table.kind == "regular":
            reach = (table.taps - 1) * table.dilation * self.jump
            return Even(self.jump * table.step, self.field + reach, self.first + table.start * self.jump)
        first, last = _ends(table)
        return Uneven(self.first + first * self.jump, self.first + last * self.jump + self.field - 1)

    def cells(self, count: int) -> Uneven:
        """The same, cell by cell."""
        starts = self.first + self.jump * np.arange(count)
        return Uneven(starts, starts + self.field - 1)

    @property
    def span(self) -> Span:
        return Span(self.jump, self.field, self.first, True)


@dataclass(frozen=True, eq=False)
class Uneven:
    """Cell i sees the input elements starts[i] … ends[i]; after uneven bins, padding has no place in the input."""

    starts: Ints
    ends: Ints

    def cells(self, count: int) -> Uneven:
        return self

    def through(self, table: Any) -> Uneven:
        first, last = _ends(table)
        return Uneven(self.starts[first], self.ends[last])

    @property
    def span(self) -> Span:
        cells = len(self.starts)
        jump = float(self.starts[-1] - self.starts[0]) / (cells - 1) if cells > 1 else float(self.ends[0] + 1)
        return Span(jump, int((self.ends - self.starts).max()) + 1, int(self.starts[0]), False)


def _runs(table: Any) -> Iterator[Any]:
    """The axis in runs of rows, so that no run expands to many more than `CHUNK` taps."""
    rows = max(1, CHUNK // max(table.widest, 1))
    for begin in range(0, table.output, rows):
        yield table.table(begin, min(begin + rows, table.output))


def _ends(table: Any) -> tuple[Ints, Ints]:
    """The first and the last element that each window reads (element 0 for a window that reads none)."""
    runs = [(part.index[:, 0], part.index.max(axis=1)) for part in _runs(table)]
    return np.concatenate([first for first, _ in runs]), np.concatenate([last for _, last in runs])


def unread_by(read: Ints) -> Unread:
    touched = np.flatnonzero(read)
    if not len(touched):
        return Unread(len(read), 0, 0)
    before, after = int(touched[0]), len(read) - 1 - int(touched[-1])
    return Unread(before, after, len(read) - before - after - len(touched))


def empty_windows(geometry: Geometry) -> int:
    """How many output cells read no element."""
    if not geometry.has_empty_windows:
        return 0
    held = [sum(int((part.present > 0).sum()) for part in _runs(table)) for table in geometry.tables]
    return prod(geometry.outputs) - prod(held)
