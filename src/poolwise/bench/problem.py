"""A case with its data: what every contender is given, what it must answer, what that has to move."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import numpy as np

from poolwise.bench import truth
from poolwise.bench.cases import Case, Size
from poolwise.bench.truth import Numbers
from poolwise.op import Selection

REUSED = 32 << 20  # bytes up to which glibc's allocator reuses memory; a larger fresh output pays page faults
FRESH_GOAL = 1.8  # for the time over a copy's, of such a case
HALF_RANGE = 1 << 23  # float32 holds every integer between −2²³ and 2²³
PERIODS = {1: 31, 2: 31, 3: 7}  # windows of so many taps along each axis hold no value twice, by rank


@dataclass(frozen=True, eq=False)
class Data:
    """The input and the output's gradient, in memory's order, and the right answers; tasks that differ share it."""

    case: Case
    x: Numbers
    g: Numbers

    @cached_property
    def output(self) -> Numbers:
        return truth.output(self.x, self.case.op, self.case.places, self.case.axes)

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
    def truth(self) -> tuple[Numbers, ...]:
        """The output, and the gradient of the input where the task has one."""
        return (self.data.output, self.data.gradient) if self.case.gradient else (self.data.output,)

    @property
    def bytes(self) -> int:
        """What the task must move: each input read once, each output written once, one byte per index."""
        index = self.g.size if isinstance(self.case.op, Selection) else 0
        forward = self.x.nbytes + self.g.nbytes
        backward = self.g.nbytes + index + self.x.nbytes
        return {"indices": forward + index, "training": forward + index + backward}.get(self.case.task, forward)

    @property
    def goal(self) -> float | None:
        """The ratio to the ruler (for a tiny call: to PyTorch) that the project aims at; None: it has no such aim."""
        if self.case.section == "large windows":
            return None
        if self.case.section in ("tiny", "others"):
            return {"tiny": 2.0, "others": 2.5}[self.case.section]
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
    for alike in _grouped(cases, lambda case: (case.shape, case.layout, case.dtype)):
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


def data_of(case: Case, x: Numbers, seed: int = 1) -> Data:
    """The input with a gradient of the output, uniform on [−½, ½)."""
    shape = [case.places.outputs(n) if axis in case.axes else n for axis, n in enumerate(x.shape)]
    g = np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)
    return Data(case, x, g.astype(x.dtype))
