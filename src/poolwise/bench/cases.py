"""What is measured: one table, the data of each case, and its right answer in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise import Geometry, InvalidValue, Max, Mean, Operation

Floats: TypeAlias = NDArray[np.float32]
Layout: TypeAlias = Literal["NCHW", "NHWC"]
Task: TypeAlias = Literal["forward", "indices", "training", "tiny", "tiny recorded"]

REUSED = 32 << 20  # bytes up to which glibc's allocator reuses memory; a larger fresh output pays page faults
ITEM = 4  # bytes of a float32
HALF_RANGE = 1 << 23  # float32 holds every integer between −2²³ and 2²³


@dataclass(frozen=True)
class Size:
    """How much is measured. side: of the large images (3/1 windows take half); calls: of a tiny one, per round."""

    name: str
    batch: int
    channels: int
    side: int
    rounds: int
    calls: int


FULL = Size("full", 32, 64, 112, 7, 2000)
QUICK = Size("quick", 8, 32, 112, 3, 300)


@dataclass(frozen=True)
class Case:
    """One pooling, on one memory order, for one task.

    task: "forward" keeps nothing; "indices" is the forward pass that keeps what backward needs; "training" is forward
    and backward; "tiny" is one call on 1×1×8×8, "tiny recorded" the same on a tensor that requires a gradient.
    shrink: the image's side is the size's divided by this.
    """

    label: str
    op: Operation
    window: int
    stride: int
    padding: int
    shrink: int
    layout: Layout
    task: Task

    @property
    def name(self) -> str:
        """What `--cases` matches."""
        return f"{self.label} {self.layout} {self.task}"

    @property
    def tiny(self) -> bool:
        return self.task.startswith("tiny")

    def shares(self, other: Case) -> bool:
        """Whether the other case's data is this one's."""
        return (self.label, self.layout, self.tiny) == (other.label, other.layout, other.tiny)

    @property
    def gradient(self) -> bool:
        """Whether the answer has a gradient to compare."""
        return self.task in ("indices", "training", "tiny recorded")

    @property
    def axes(self) -> tuple[int, int]:
        """The pooled axes."""
        return (2, 3) if self.layout == "NCHW" else (1, 2)

    def shape(self, size: Size) -> tuple[int, ...]:
        """The input's, in memory order."""
        if self.tiny:
            return (1, 1, 8, 8)
        side = size.side // self.shrink
        return (
            (size.batch, size.channels, side, side)
            if self.layout == "NCHW"
            else (size.batch, side, side, size.channels)
        )


GEOMETRIES: tuple[tuple[str, Operation, int, int, int, int], ...] = (
    ("max 2/2", Max(), 2, 2, 0, 1),
    ("max 3/2 p1", Max(), 3, 2, 1, 1),
    ("max 3/1 p1", Max(), 3, 1, 1, 2),
    ("avg 2/2", Mean(count_include_pad=True), 2, 2, 0, 1),
    ("avg 3/2 p1", Mean(count_include_pad=True), 3, 2, 1, 1),
)
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
TASKS: tuple[Task, ...] = ("forward", "indices", "training")


def _all_cases() -> Iterator[Case]:
    """A mean keeps nothing, so it has no case with indices. Cases on the same data follow one another."""
    for geometry in GEOMETRIES:
        for layout in LAYOUTS:
            for task in TASKS:
                if task != "indices" or isinstance(geometry[1], Max):
                    yield Case(*geometry, layout, task)
    yield Case(*GEOMETRIES[0], "NCHW", "tiny")
    yield Case(*GEOMETRIES[0], "NCHW", "tiny recorded")


TUTORIAL = "tutorial CNN training step"
CASES: tuple[Case, ...] = tuple(_all_cases())


def matches(name: str, pattern: str) -> bool:
    """Whether the name holds the pattern (of `fnmatch`), whatever the case of its letters."""
    return fnmatchcase(name.lower(), f"*{pattern.lower()}*")


def matching(pattern: str) -> list[Case]:
    """The cases whose name holds the pattern."""
    found = [case for case in CASES if matches(case.name, pattern)]
    if not found and not matches(TUTORIAL, pattern):
        names = ", ".join(dict.fromkeys(case.label for case in CASES))
        raise InvalidValue(
            f"cases must match a name such as 'max 2/2 NCHW forward' ({names}), got {pattern!r}", "bench"
        )
    return found


@dataclass(frozen=True, eq=False)
class Data:
    """The input and the gradient of the output, in memory order, and the right answers; tasks that differ share it."""

    case: Case
    x: Floats
    g: Floats

    @cached_property
    def output(self) -> Floats:
        """Tap by tap, over all windows at once."""
        padded = self._padded
        y = np.array(padded[self._tap(0, 0)])
        for at in self._taps()[1:]:
            (np.maximum if self._selects else np.add)(y, padded[at], out=y)
        return y if self._selects else y / np.float32(self.case.window**2)

    @cached_property
    def gradient(self) -> Floats:
        """Of a maximum: to the element that equals it (no window has two); of a mean: to each its share."""
        padded = self._padded
        total = np.zeros_like(padded)
        share = self.g / np.float32(self.case.window**2)
        for at in self._taps():
            total[at] += np.where(padded[at] == self.output, self.g, 0) if self._selects else share
        return total[self._inside]

    @property
    def _selects(self) -> bool:
        return isinstance(self.case.op, Max)

    @property
    def _padded(self) -> Floats:
        shape = [n + 2 * self._pad(axis) for axis, n in enumerate(self.x.shape)]
        padded = np.full(shape, -np.inf if self._selects else 0, np.float32)
        padded[self._inside] = self.x
        return padded

    def _pad(self, axis: int) -> int:
        return self.case.padding if axis in self.case.axes else 0

    @property
    def _inside(self) -> tuple[slice, ...]:
        return tuple(slice(self._pad(axis), self._pad(axis) + n) for axis, n in enumerate(self.x.shape))

    def _taps(self) -> list[tuple[slice, ...]]:
        window = range(self.case.window)
        return [self._tap(row, column) for row in window for column in window]

    def _tap(self, row: int, column: int) -> tuple[slice, ...]:
        """Where one tap of every window stands in the padded input."""
        places = [slice(None)] * self.x.ndim
        for axis, first in zip(self.case.axes, (row, column), strict=True):
            places[axis] = slice(first, first + (self.g.shape[axis] - 1) * self.case.stride + 1, self.case.stride)
        return tuple(places)


@dataclass(frozen=True, eq=False)
class Problem:
    """A case and its data."""

    case: Case
    data: Data

    @property
    def x(self) -> Floats:
        """The input, in memory order."""
        return self.data.x

    @property
    def g(self) -> Floats:
        """The gradient of the output, in memory order."""
        return self.data.g

    @property
    def truth(self) -> tuple[Floats, ...]:
        """The output, and the gradient of the input where the task has one."""
        return (self.data.output, self.data.gradient) if self.case.gradient else (self.data.output,)

    @property
    def bytes(self) -> int:
        """What the task must move: each input read once, each output written once, one byte per index."""
        index = self.g.size if isinstance(self.case.op, Max) else 0
        forward = self.x.nbytes + self.g.nbytes
        backward = self.g.nbytes + index + self.x.nbytes
        return {"indices": forward + index, "training": forward + index + backward}.get(self.case.task, forward)

    @property
    def goal(self) -> float:
        """The ratio to the ruler (for a tiny call: to PyTorch) that the project aims at."""
        if self.case.tiny:
            return 2.0
        if self.case.task == "forward" and self.g.nbytes > REUSED:
            return 1.8
        return 1.2 if self.case.task == "training" else 1.25


def made(case: Case, size: Size, seed: int = 0) -> Data:
    """Random data, uniform on [−1, 1), in which no window holds the same value twice."""
    shape = case.shape(size)
    draws = np.random.default_rng(seed)
    # The upper 20 of 24 bits are drawn; the lower 4 say where modulo 3 an element stands, so that nothing ties.
    x = draws.integers(0, 1 << 20, shape, dtype=np.int32) << 4
    for axis, weight in zip(case.axes, (3, 1), strict=True):
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        x += weight * (np.arange(shape[axis], dtype=np.int32) % 3).reshape(along)
    values = (x - HALF_RANGE).astype(np.float32) / np.float32(HALF_RANGE)
    geometry = Geometry.of(shape, case.axes, window=(case.window,) * 2, stride=case.stride, padding=case.padding)
    return Data(case, values, draws.random(geometry.output_shape, dtype=np.float32) - np.float32(0.5))
