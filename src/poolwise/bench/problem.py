"""A case with its data: what every contender is given, what it must answer, what that has to move."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import product

import numpy as np

from poolwise import Lp, Operation, Soft
from poolwise.bench import truth
from poolwise.bench.cases import AIMLESS, WHOLE, Case, Size, Sliding
from poolwise.bench.truth import Numbers
from poolwise.op import Selection

REUSED = 32 << 20  # bytes up to which glibc's allocator reuses memory; a larger fresh output pays page faults
FRESH_GOAL = 1.8  # for the time over a copy's, of such a case
HALF_RANGE = 1 << 23  # float32 holds every integer between −2²³ and 2²³
LABELS, BLOCK = 64, 8  # how many a segmentation has, and how many elements a block of one label is long
PERIODS = {1: 31, 2: 31, 3: 7}  # windows of so many taps along each axis hold no value twice, by rank


@dataclass(frozen=True, eq=False)
class Data:
    """The input and the output's gradient, in memory's order, and the right answers; tasks that differ share it.

    operands: the arrays that the operation needs beside the input, by name.
    """

    case: Case
    x: Numbers
    g: Numbers
    operands: Mapping[str, Numbers] = field(default_factory=dict[str, Numbers])

    @cached_property
    def output(self) -> Numbers:
        return truth.output(self.x, self.case.op, self.case.places, self.case.axes, self.operands)

    @cached_property
    def gradient(self) -> Numbers:
        return truth.gradient(self.x, self.g, self.case.op, self.case.places, self.case.axes)


@dataclass(frozen=True, eq=False)
class Problem:
    """A case and its data."""

    case: Case
    data: Data

    @property
    def x(self) -> Numbers:
        """The input, in memory's order."""
        return self.data.x

    @property
    def g(self) -> Numbers:
        """The gradient of the output, in memory's order."""
        return self.data.g

    @property
    def operands(self) -> Mapping[str, Numbers]:
        """What the operation needs beside the input."""
        return self.data.operands

    @property
    def truth(self) -> tuple[Numbers, ...]:
        """The output, and the gradient of the input where the task has one."""
        return (self.data.output, self.data.gradient) if self.case.gradient else (self.data.output,)

    @property
    def bytes(self) -> int:
        """What the task must move: each input read once, each output written once, one byte per index."""
        index = self.g.size if isinstance(self.case.op, Selection) else 0
        forward = self.x.nbytes + self.g.nbytes + sum(each.nbytes for each in self.operands.values())
        again = self.x.nbytes if isinstance(self.case.op, Lp | Soft) else 0  # their gradients depend on the input
        backward = self.g.nbytes + index + again + self.x.nbytes
        return {"indices": forward + index, "training": forward + index + backward}.get(self.case.task, forward)

    @property
    def goal(self) -> float | None:
        """The ratio to the ruler (for a tiny call: to PyTorch) that the project aims at; None: it has no such aim."""
        if self.case.section in ("large windows", *AIMLESS):
            return None
        if self.case.section in ("tiny", "others", *WHOLE):
            return 2.0 if self.case.tiny else 2.5
        training = self.case.task == "training"
        fresh = self.x if training else self.g
        if fresh.nbytes > REUSED:
            return FRESH_GOAL
        return 1.2 if training else 1.25


def known(dtype: str) -> bool:
    """Whether NumPy has the dtype, by itself or by ml_dtypes."""
    try:
        return bool(_dtype(dtype))
    except ImportError:
        return False


def _dtype(name: str) -> np.dtype[np.generic]:
    return np.dtype(import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def problems(cases: Sequence[Case], size: Size) -> Iterator[Problem]:
    """One after the other, those on the same data together: it is drawn, and its answers are found, once."""
    for alike in _grouped(cases, lambda case: (case.shape, case.layout, case.dtype, case.labelled)):
        x = drawn(alike[0], size)
        for same in _grouped(alike, lambda case: (case.op, case.places)):
            data = data_of(same[0], x)
            yield from (Problem(case, data) for case in same)


def made(case: Case, size: Size) -> Problem:
    """One case and its data."""
    return next(problems([case], size))


def _grouped(cases: Sequence[Case], key: Callable[[Case], Hashable]) -> list[list[Case]]:
    groups: dict[Hashable, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def drawn(case: Case, size: Size, seed: int = 0) -> Numbers:
    """Random data: floats uniform on [−1, 1), of which no window holds one twice; integers over their whole range."""
    if case.labelled:
        return _labels(case, size, seed)
    draws, dtype, shape = np.random.default_rng(seed), _dtype(case.dtype), case.at(size)
    if dtype.kind in "iu":
        limits = np.iinfo(case.dtype)
        return draws.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    # The lower digits say where modulo the period an element stands; the upper ones are random.
    period = PERIODS[case.rank]
    marks = period**case.rank
    x = draws.integers(0, 2 * HALF_RANGE // marks, shape, np.int32) * np.int32(marks)
    for number, axis in enumerate(case.axes):
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        x += (period**number * (np.arange(shape[axis], dtype=np.int32) % period)).astype(np.int32).reshape(along)
    return ((x - HALF_RANGE).astype(np.float32) / np.float32(HALF_RANGE)).astype(dtype)


def _labels(case: Case, size: Size, seed: int) -> Numbers:
    """A segmentation: blocks of one label, and in half of the tiles of two elements a side one that has another.

    No such tile holds two labels equally often: libraries differ in which they choose then.
    """
    draws, shape, limits = np.random.default_rng(seed), case.at(size), np.iinfo(case.dtype)
    blocks = [-(-n // BLOCK) if axis in case.axes else n for axis, n in enumerate(shape)]
    label = draws.integers(0, LABELS, blocks, np.uint8)
    for axis in case.axes:
        label = label.repeat(BLOCK, axis).take(range(shape[axis]), axis)
    tiles = [n // 2 if axis in case.axes else n for axis, n in enumerate(shape)]
    place, other = (draws.integers(0, most, tiles, np.uint8) for most in (2 << case.rank, LABELS))
    for number, offsets in enumerate(product(range(2), repeat=case.rank)):
        at = [slice(None)] * len(shape)
        for axis, offset in zip(case.axes, offsets, strict=True):
            at[axis] = slice(offset, 2 * tiles[axis], 2)
        np.copyto(label[tuple(at)], other, where=place == number)
    return draws.integers(limits.min, limits.max, LABELS, case.dtype, endpoint=True)[label]


def data_of(case: Case, x: Numbers, seed: int = 1) -> Data:
    """The input with a gradient of the output, and what else the operation needs, uniform on [−½, ½)."""
    draws, half = np.random.default_rng(seed), np.float32(0.5)
    shape = [case.places.outputs(n) if axis in case.axes else n for axis, n in enumerate(x.shape)]
    g = (draws.random(shape, np.float32) - half).astype(x.dtype)
    return Data(case, x, g, {name: draws.random(_over(case, x, name), np.float32) - half for name in case.op.operands})


def _over(case: Case, x: Numbers, name: str) -> tuple[int, ...]:
    """The shape of an operand: the input's, or a window's."""
    assert isinstance(case.op, Operation)
    assert isinstance(case.places, Sliding)
    return x.shape if case.op.over(name) == "input" else (case.places.window,) * case.rank
