"""The native kernel against the reference on random calls: the strategy, the judge, and `python tests/soak.py`.

A case is a value: it says which operation, geometry, dtype, numbers, places in memory, mask, threads and instruction
set, and `--repeat` runs one again. Where a case has copies, its input stands many times along one more batch axis (two
different ones in turns), so that vectors are filled and threads share the work while the reference walks only the two.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, cast

import hypothesis.strategies as st
import ml_dtypes  # also names bfloat16 to NumPy
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from numpy.typing import NDArray

import cases as table
from poolwise import Mean, Operation, Sum, _native, get_num_threads, set_num_threads
from poolwise.call import INPUT, WHERE, Call, Kernel
from poolwise.doors import NUMPY
from poolwise.geometry import BIN_RULES, PADDING_MODES, Geometry
from poolwise.kernels.gathered import Gathered
from poolwise.kernels.native import Native
from poolwise.op import FLOATS, INTEGERS, Selection
from poolwise.reference import Reference

Numbers = NDArray[Any]

MEANS = [
    Mean(divisor=1),
    Mean(divisor=1000003),
    Mean(count_include_pad=True, rounding="truncate"),
    Mean(divisor=7, rounding="truncate"),
]
OPERATIONS: dict[str, Operation] = {repr(op): op for op in (*table.NATIVE, *MEANS)}
FLOAT_VALUES = ("ties", "special", "normal", "wide", "extreme", "mostly NaN")
INTEGER_VALUES = ("ties", "extreme", "any bits")
MEMORY = (
    "C order",
    "F order",
    "channels last",
    "permuted",
    "negative strides",
    "every second",
    "broadcast",
    "unaligned",
    "read-only",
)
MASKS = ("none", "full", "last axis", "first axis", "lower rank", "all", "nothing")
THREADS = (1, 2, 7)
WORTH_SHARING = 3 << 18  # bytes of input: three times those from which threads share the work (csrc/module.cc)
MOST = 1 << 20  # elements of an input with its copies
MOST_TAPS = 1 << 25  # that all windows of all copies read
ULPS = 4  # of Σ|x|, or of Σ|x|/n: what a sum or a mean may err by
KERNELS: dict[str, Kernel] = {"native": Native(), "gathered": Gathered()}
CHUNK = 500  # cases of one run of hypothesis: a fault ends the run, not the soak


class Disagreement(AssertionError):
    """The kernel gave something else than the reference."""


@dataclass(frozen=True)
class Case:
    """One random call, and how it is run. `shape` and `axes` are those of one copy."""

    op: str
    kind: str
    shape: tuple[int, ...]
    arguments: dict[str, Any]
    dtype: str
    values: str
    seed: int
    memory: str
    mask: str
    keep: bool
    gradient: str
    copies: int
    front: bool
    threads: int
    instruction_set: str

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.op]

    @property
    def place(self) -> int:
        """The axis of the copies."""
        return 0 if self.front else len(self.shape)

    @property
    def bytes(self) -> int:
        """Of the input."""
        return prod(self.shape) * self.copies * np.dtype(self.dtype).itemsize

    def text(self) -> str:
        """What `--repeat` takes."""
        return json.dumps(asdict(self))

    def facets(self) -> dict[str, str]:
        """What the figures count the case under."""
        mode = self.arguments.get("bins") or self.arguments.get("padding_mode", "whole")
        return {
            "operation": self.op,
            "dtype": self.dtype,
            "geometry": f"{self.kind}, {mode}",
            "pooled axes": str(len(self.arguments["axes"])),
            "memory": self.memory,
            "values": self.values,
            "mask": self.mask,
            "copies": "1" if self.copies == 1 else "a few" if self.bytes < WORTH_SHARING else "enough to share",
            "threads": str(self.threads),
            "instruction set": self.instruction_set,
        }


def case_from(text: str) -> Case:
    """The case that printed this."""
    fields = json.loads(text)
    return Case(**{**fields, "shape": tuple(fields["shape"])})


# The strategy


@st.composite
def _sliding(draw: st.DrawFn, rank: int, cells: int) -> tuple[list[int], dict[str, Any]]:
    """Sizes and arguments of windows that slide: at most about `cells` of them, in all."""
    taps = draw(st.sampled_from([1, 6, 27, 60, 300]))
    cells = max(1, min(cells, 4000 // taps))
    widest = 40 if taps == 300 else 5
    padded = draw(st.booleans())
    sizes: list[int] = []
    arguments: dict[str, list[Any]] = {"window": [], "stride": [], "dilation": [], "padding": []}
    for _ in range(rank):
        window = draw(st.integers(1, min(taps, widest)))
        stride = draw(st.sampled_from([1, 1, 2, 2, 3, 4, 7]))
        dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
        low, high = draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) if padded else (0, 0)
        output = draw(st.integers(1, cells))
        taps, cells = max(1, taps // window), max(1, cells // output)
        covered = (output - 1) * stride + (window - 1) * dilation + 1
        sizes.append(max(1, covered - low - high + draw(st.integers(0, stride - 1))))
        for name, value in zip(arguments, (window, stride, dilation, (low, high)), strict=True):
            arguments[name].append(value)
    modes = ("absent", "absent", *PADDING_MODES)
    named = draw(st.sampled_from(["", "", "", "same", "same_lower"]))
    return sizes, {
        **arguments,
        "padding": named or arguments["padding"],
        "ceil_mode": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(modes)),
    }


@st.composite
def _adaptive(draw: st.DrawFn, rank: int, cells: int) -> tuple[list[int], dict[str, Any]]:
    """Sizes and arguments of bins; overlapping ones may outnumber the elements."""
    bins = draw(st.sampled_from(BIN_RULES))
    sizes: list[int] = []
    outputs: list[int] = []
    elements = 400
    for _ in range(rank):
        size = draw(st.integers(1, min(elements, 40)))
        output = draw(st.integers(1, min(cells, size if bins == "disjoint" else 2 * size)))
        elements, cells = max(1, elements // size), max(1, cells // output)
        sizes.append(size)
        outputs.append(output)
    return sizes, {"output_size": outputs, "bins": bins}


@st.composite
def _whole(draw: st.DrawFn, rank: int, cells: int) -> tuple[list[int], dict[str, Any]]:
    """Sizes of axes that one window covers."""
    del cells
    sizes: list[int] = []
    for _ in range(rank):
        sizes.append(draw(st.integers(1, max(1, 400 // prod(sizes)))))
    return sizes, {}


KINDS = {"sliding": _sliding, "adaptive": _adaptive, "global": _whole}


@st.composite
def geometries(draw: st.DrawFn) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """Kind, shape and arguments: 1 to 4 pooled axes anywhere and in any order among up to two of the batch."""
    kind = draw(st.sampled_from(["sliding", "sliding", "sliding", "adaptive", "global"]))
    batch = draw(st.lists(st.sampled_from([1, 2, 2, 3, 3, 5, 0]), max_size=2))
    rank = draw(st.sampled_from([1, 1, 2, 2, 2, 3, 4]))
    cells = max(1, draw(st.sampled_from([1, 12, 40, 90])) // max(1, prod(batch)))
    sizes, arguments = draw(KINDS[kind](rank, cells))
    places = draw(st.permutations(range(rank + len(batch))))
    shape = [0] * len(places)
    for place, size in zip(places, [*sizes, *batch], strict=True):
        shape[place] = size
    return kind, tuple(shape), {**arguments, "axes": places[:rank]}


def _copies(draw: st.DrawFn, case: Case) -> int:
    """How many times the input stands there: once, a few times, or until threads share the work."""
    how = draw(st.sampled_from(["one"] * 8 + ["a few"] * 5 + ["enough to share"]))
    elements = prod(case.shape)
    if how == "one" or elements == 0:
        return 1
    if how == "a few":
        return draw(st.integers(2, 70))
    geometry = geometry_of(case, case.shape)
    taps = prod(geometry.output_shape) * prod(axis.widest for axis in geometry.tables)
    wanted = WORTH_SHARING // (np.dtype(case.dtype).itemsize * elements)
    return max(2, min(wanted + 1, MOST // elements, MOST_TAPS // taps))


def _values_of(dtype: str) -> Sequence[str]:
    return FLOAT_VALUES if dtype in FLOATS else INTEGER_VALUES if dtype in INTEGERS else ("any bits",)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """Any case."""
    op = draw(st.sampled_from(sorted(OPERATIONS)))
    dtypes = [*FLOATS, *INTEGERS, "bool"]
    dtype = draw(st.sampled_from(dtypes[:-1] if isinstance(OPERATIONS[op], Mean) else dtypes))
    kind, shape, arguments = draw(geometries())
    case = Case(
        op=op,
        kind=kind,
        shape=shape,
        arguments=arguments,
        dtype=dtype,
        values=draw(st.sampled_from(_values_of(dtype))),
        seed=draw(st.integers(0, 2**32 - 1)),
        memory=draw(st.sampled_from(MEMORY)),
        mask=draw(st.sampled_from(["none"] * 6 + [*MASKS[1:]])),
        keep=draw(st.integers(0, 3)) > 0,
        gradient=draw(st.sampled_from(MEMORY)),
        copies=1,
        front=draw(st.booleans()),
        threads=draw(st.sampled_from(THREADS)),
        instruction_set=draw(st.sampled_from(_native.instruction_sets())),
    )
    return replace(case, copies=_copies(draw, case))


CASES = drawn()


# What a case stands for


@dataclass(frozen=True, eq=False)
class Work:
    """A case's arrays and calls: `full` is what the kernel gets, `sample` the two copies that the reference gets."""

    case: Case
    full: tuple[Numbers, ...]
    sample: tuple[Numbers, ...]
    call: Call
    sample_call: Call

    def gradients(self) -> tuple[Numbers, Numbers]:
        """What flows into the output: in full, and of the sample. Each element's sum of |g| is then its gradient's."""
        case, shape = self.case, self.sample_call.geometry.output_shape
        rng = np.random.default_rng(case.seed + 2)
        g = rng.integers(-4, 5, shape).astype(case.dtype)
        if isinstance(case.operation, Mean):  # of one sign, so that nothing cancels
            g = ((rng.random(shape) + 0.1) * rng.choice([-1, 1])).astype(case.dtype)
        return _twice(g, case, case.gradient)


def work_of(case: Case) -> Work:
    """The arrays and calls of a case."""
    sample_shape = _with_copies(case, min(case.copies, 2))
    rng = np.random.default_rng(case.seed)
    x, few = _twice(numbers(rng, sample_shape, case.dtype, case.values), case, case.memory)
    mask = masked(rng, sample_shape, case)
    if mask is None:
        return Work(case, (x,), (few,), _call(case, (x,), case.keep), _call(case, (few,), True))
    full, sample = (x, _tiled(mask, case)), (few, mask)
    return Work(case, full, sample, _call(case, full, case.keep), _call(case, sample, True))


def _with_copies(case: Case, copies: int) -> tuple[int, ...]:
    if case.copies == 1:
        return case.shape
    return (*case.shape[: case.place], copies, *case.shape[case.place :])


def _twice(array: Numbers, case: Case, memory: str) -> tuple[Numbers, Numbers]:
    """The array with all copies, stored as wanted, and its first two copies."""
    full = stored(_tiled(array, case), memory, case.seed)
    if case.copies == 1:
        return full, full
    return full, full[:2] if case.front else full[..., :2]


def _tiled(array: Numbers, case: Case) -> Numbers:
    """Two copies in turns, as often as the case says."""
    missing = len(case.shape) + 1 - array.ndim
    place = case.place - missing
    if case.copies == 1 or place < 0 or array.shape[place] == 1:
        return array
    return array.take(np.arange(case.copies) % 2, axis=place)


def _call(case: Case, operands: Sequence[Numbers], keep: bool) -> Call:
    x = operands[0]
    facts = NUMPY.facts(x)
    names, dtypes = (INPUT, WHERE)[: len(operands)], (case.dtype, "bool")[: len(operands)]
    return Call(case.operation, geometry_of(case, x.shape), NUMPY.framework, dtypes, facts.layout, "cpu", names, keep)


def geometry_of(case: Case, shape: tuple[int, ...]) -> Geometry:
    """The case's geometry on a shape that may have the axis of the copies."""
    shift = case.front and case.copies > 1
    axes = [axis + shift for axis in case.arguments["axes"]]
    arguments = {name: value for name, value in case.arguments.items() if name != "axes"}
    if case.kind == "global":
        return Geometry.whole(shape, axes)
    build = cast("Callable[..., Geometry]", Geometry.adaptive if case.kind == "adaptive" else Geometry.of)
    return build(shape, axes, **arguments)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, values: str) -> Numbers:
    """Random numbers of one sort."""
    if dtype == "bool":
        return rng.random(shape) < rng.choice([0.1, 0.5, 0.9])
    if values == "ties":
        return rng.integers(0 if dtype.startswith("u") else -7, 8, shape).astype(dtype)
    return _floats(rng, shape, dtype, values) if dtype in FLOATS else _integers(rng, shape, dtype, values)


def _integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, values: str) -> Numbers:
    limits = np.iinfo(dtype)
    if values == "extreme":
        ends = [limits.min, limits.min + 1, limits.max - 1, limits.max, 0, 1]
        return rng.choice(np.array(ends, dtype), shape)
    return rng.integers(limits.min, limits.max, shape, dtype=cast("Any", dtype), endpoint=True)


def _floats(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, values: str) -> Numbers:
    limits = ml_dtypes.finfo(dtype)
    largest, normal, least = map(float, (limits.max, limits.smallest_normal, limits.smallest_subnormal))
    strange = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0])
    if values == "special":
        x = rng.integers(-7, 8, shape) + rng.choice([0, 0.25, 0.1], shape)
        x = np.where(rng.random(shape) < 0.15, rng.choice(strange, shape), x)
    elif values == "normal":
        x = rng.standard_normal(shape)
    elif values == "wide":
        power = rng.uniform(np.log2(least), np.log2(largest) - 1, shape)
        x = rng.choice([-1.0, 1.0], shape) * np.exp2(power)
    elif values == "extreme":
        x = rng.choice([largest, -largest, normal, -normal, least, -least, -0.0, 0.0, np.inf, -np.inf, 1.0], shape)
    else:
        x = np.where(rng.random(shape) < 0.7, np.nan, rng.standard_normal(shape))
    return x.astype(dtype)


def masked(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Numbers | None:
    """A mask that broadcasts against the sample."""
    if case.mask == "none":
        return None
    if case.mask in {"all", "nothing"}:
        return np.broadcast_to(np.array(case.mask == "all"), shape)
    if case.mask == "full":
        return np.asfortranarray(rng.random(shape) < 0.6)
    ones = [1] * len(shape)
    if case.mask == "last axis":
        return rng.random((*ones[1:], shape[-1])) < 0.6
    if case.mask == "first axis":
        return rng.random((shape[0], *ones[1:])) < 0.6
    return rng.random(shape[1:] or shape) < 0.6


def stored(x: Numbers, memory: str, number: int) -> Numbers:
    """The numbers in another place of memory ("broadcast" repeats the first along one axis)."""
    axis = number % x.ndim
    if memory == "F order":
        return np.asfortranarray(x)
    if memory == "channels last":
        channels = min(1, x.ndim - 1)
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, channels, -1)), -1, channels)
    if memory == "permuted":
        order = np.random.default_rng(number).permutation(x.ndim)
        return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    if memory == "negative strides":
        return np.flip(np.ascontiguousarray(np.flip(x)))
    if memory == "every second":
        return x.repeat(2, axis)[(slice(None),) * axis + (slice(None, None, 2),)]
    if memory == "broadcast":
        return np.broadcast_to(x[(slice(None),) * axis + (slice(0, 1),)], x.shape)
    if memory == "unaligned":
        return _unaligned(x)
    x = np.array(x, order="C")
    x.flags.writeable = memory != "read-only"
    return x


def _unaligned(x: Numbers) -> Numbers:
    raw = np.empty(x.nbytes + 1, np.uint8)
    moved = raw[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


# The judge


@dataclass(frozen=True)
class Verdict:
    """What came of a case that did not disagree: served or refused, cells compared, cells that overflow may decide."""

    refusal: str | None = None
    compared: int = 0
    undecided: int = 0


@contextmanager
def machine(instruction_set: str, threads: int) -> Iterator[None]:
    """Run on this instruction set and so many threads."""
    before = _native.instruction_set(), get_num_threads()
    try:
        _native.use_instruction_set(instruction_set)
        set_num_threads(threads)
        yield
    finally:
        _native.use_instruction_set(before[0])
        set_num_threads(before[1])


def judge(case: Case, kernel: Kernel) -> Verdict:
    """Disagreement where the kernel's values, indices or gradient are not the reference's."""
    work = work_of(case)
    refusal = kernel.refusal(work.call)
    if refusal is not None:
        return Verdict(refusal)
    g, few = work.gradients() if case.dtype in FLOATS else (None, None)
    untouched = [array.tobytes() for array in work.full]
    with machine(case.instruction_set, case.threads):
        got = run(kernel, work.full, work.call, g)
    if [array.tobytes() for array in work.full] != untouched:
        raise Disagreement("the kernel wrote to its input")
    if case.threads > 1:
        with machine(case.instruction_set, 1):
            _same_bits(got, run(kernel, work.full, work.call, g), case.threads)
    expected = run(Reference(), work.sample, work.sample_call, few)
    undecided = _compare(work, got, expected)
    return Verdict(None, sum(array.size for array in got.values()), undecided)


def run(kernel: Kernel, operands: Sequence[Numbers], call: Call, g: Numbers | None) -> dict[str, Numbers]:
    """Values; indices and the gradient where they can be asked for."""
    y, kept = kernel.forward(operands, call)
    results = {"values": y}
    if call.keep and isinstance(call.op, Selection):
        results["indices"] = kernel.indices(kept, call)
    if call.keep and g is not None:
        results["gradient"] = cast("Numbers", kernel.backward(g, kept, call)[0])
    return results


def _same_bits(many: dict[str, Numbers], one: dict[str, Numbers], threads: int) -> None:
    for name, array in one.items():
        if many[name].tobytes() != array.tobytes():
            raise Disagreement(f"{name} on {threads} threads have other bits than on 1")


def _compare(work: Work, got: dict[str, Numbers], expected: dict[str, Numbers]) -> int:
    """Every result against the reference's; how many cells were left undecided."""
    undecided = 0
    for name, array in got.items():
        bound = None
        if name == "values" and work.case.dtype in FLOATS and isinstance(work.case.operation, Sum | Mean):
            bound = _bound(work)
        if name == "gradient":
            read_by = prod(int(counts.max()) for counts in work.sample_call.geometry.coverage())
            bound = _rounding(work.case.dtype, np.abs(expected[name].astype(np.float64)), read_by / 2)
        wanted = _tiled(expected[name], work.case)
        bound = None if bound is None else _tiled(bound, work.case)
        _agree(name, array, wanted, bound)
        undecided += 0 if bound is None else int(np.isinf(bound).sum())
    return undecided


def _rounding(dtype: str, scale: Numbers, of_reference: float) -> Numbers:
    """So many units in the last place of `scale`, and the last place of subnormal numbers.

    of_reference: the units by which the reference, which works in float64, may err itself. It adds a gradient's terms
    one by one, half a unit each; NumPy's sum adds them in eight columns, runs of 128 pairwise (numpy/_core/src/umath).
    """
    limits = ml_dtypes.finfo(dtype)
    units = ULPS + (of_reference if dtype == "float64" else 0)
    return units * float(limits.eps) * scale + float(limits.smallest_subnormal)


def _bound(work: Work) -> Numbers:
    """What each sum or mean may err by; infinite where it depends on the order whether the sum overflows."""
    x = work.sample[0].astype(np.float64)
    operands = (np.where(np.isfinite(x), np.abs(x), 0), *work.sample[1:])
    total, scale = (_gathered(op, operands, work) for op in (Sum(), work.case.operation))
    accumulator = np.float64 if work.case.dtype == "float64" else np.float32
    order_decides = total > 0.99 * float(np.finfo(accumulator).max)
    taps = prod(axis.widest for axis in work.call.geometry.tables)
    scale = np.nan_to_num(scale, nan=0.0, posinf=np.inf)
    return np.where(order_decides, np.inf, _rounding(work.case.dtype, scale, taps / 16 + 2))


def _gathered(op: Operation, operands: tuple[Numbers, ...], work: Work) -> Numbers:
    call = work.sample_call
    order = tuple(range(operands[0].ndim))
    dtypes = ("float64", "bool")[: len(operands)]
    with np.errstate(all="ignore"):
        return Gathered().forward(
            operands, Call(op, call.geometry, NUMPY.framework, dtypes, order, "cpu", call.operands)
        )[0]


def _agree(name: str, got: Numbers, expected: Numbers, bound: Numbers | None) -> None:
    """The same dtype, shape and numbers; where there is a bound, to within it."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        raise Disagreement(f"{name} are {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}")
    right = _right(got, expected, bound)
    if not right.all():
        at = tuple(np.argwhere(~right)[0].tolist())
        within = "" if bound is None else f" ± {bound[at]:.3g}"
        raise Disagreement(
            f"{name}: {(~right).sum()} of {right.size} are wrong; "
            f"at {at} stands {got[at]!s}, expected {expected[at]!s}{within}"
        )


def _right(got: Numbers, expected: Numbers, bound: Numbers | None) -> NDArray[np.bool_]:
    same = (got == expected) | (_nan(got) & _nan(expected))
    if bound is None or same.all():
        return same
    top = float(ml_dtypes.finfo(got.dtype).max)
    with np.errstate(all="ignore"):
        mine, theirs = got.astype(np.float64), expected.astype(np.float64)
        edge = (np.abs(np.clip(mine, -top, top) - np.clip(theirs, -top, top)) <= bound) & ~np.isnan(mine + theirs)
    return same | edge | np.isinf(bound)


def _nan(array: Numbers) -> NDArray[np.bool_]:
    return np.isnan(array) if array.dtype.kind not in "iub" else np.zeros(array.shape, bool)


# The soak


@dataclass
class Figures:
    """What a soak has seen."""

    cases: int = 0
    refused: int = 0
    compared: int = 0
    undecided: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter[str])
    drawn: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    served: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    faults: list[str] = field(default_factory=list[str])

    def count(self, case: Case, verdict: Verdict) -> None:
        self.cases += 1
        self.compared += verdict.compared
        self.undecided += verdict.undecided
        if verdict.refusal is not None:
            self.refused += 1
            self.reasons[re.sub(r"\(.*?\)", "(…)", verdict.refusal)] += 1
        for name, value in case.facets().items():
            self.drawn.setdefault(name, Counter())[value] += 1
            self.served.setdefault(name, Counter())[value] += verdict.refusal is None

    def add(self, other: Figures) -> None:
        for name in ("cases", "refused", "compared", "undecided"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.faults.extend(other.faults)
        for mine, theirs in ((self.drawn, other.drawn), (self.served, other.served)):
            for name, counts in theirs.items():
                mine.setdefault(name, Counter()).update(counts)


def figures_from(text: str) -> Figures:
    """The figures that another process wrote."""
    fields = json.loads(text)
    for name in ("drawn", "served"):
        fields[name] = {facet: Counter(counts) for facet, counts in fields[name].items()}
    return Figures(**{**fields, "reasons": Counter(fields["reasons"])})


UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
Notice = Callable[[Case], None]
EVERY_PHASE = (Phase.generate, Phase.shrink)


def searched(
    kernel: Kernel,
    cases: int,
    number: int,
    figures: Figures,
    *,
    notice: Notice = lambda _: None,
    phases: Sequence[Phase] = EVERY_PHASE,
) -> None:
    """Judge random cases until one is a fault; then find a small one, and note it. `notice` sees each case first."""
    failed: list[tuple[Case, BaseException]] = []

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        derandomize=False,
        deadline=None,
        print_blob=False,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=UNHURRIED,
    )
    @given(CASES)
    def trial(case: Case) -> None:
        notice(case)
        try:
            verdict = judge(case, kernel)
        except Exception as fault:
            failed.append((case, fault))
            raise
        if not failed:
            figures.count(case, verdict)

    try:
        trial()
    except Exception:
        if not failed:  # the harness itself
            raise
        case, fault = failed[-1]
        figures.faults.append(f"seed {number}: {type(fault).__name__}: {fault}\n--repeat {shlex.quote(case.text())}")


def soak_alone(kernel: Kernel, cases: int, number: int, path: Path, most_faults: int = 20) -> Figures:
    """One process's share, its figures so far in `path`, and the case it is at beside it, should it be its last."""
    figures, began = Figures(), time.perf_counter()
    with path.with_suffix(".last").open("w") as last:

        def notice(case: Case) -> None:
            last.seek(0)
            last.write(case.text())
            last.truncate()
            last.flush()

        for begin in range(0, cases, CHUNK):
            searched(kernel, min(CHUNK, cases - begin), number + begin, figures, notice=notice)
            figures.seconds = time.perf_counter() - began
            path.write_text(json.dumps(vars(figures)))
            if len(figures.faults) >= most_faults:
                break
    return figures


def soak(kernel: str, cases: int, jobs: int, number: int) -> Figures:
    """The cases shared among processes; one that a signal ends is a fault, and its last case is noted."""
    began, total = time.perf_counter(), Figures()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{job}.json" for job in range(jobs)]
        shares = [len(range(job, cases, jobs)) for job in range(jobs)]
        children = [
            _child(kernel, share, number + (job << 32), path)
            for job, (share, path) in enumerate(zip(shares, paths, strict=True))
        ]
        for child, path in zip(children, paths, strict=True):
            total.add(reported(child.wait(), path))
    total.seconds = time.perf_counter() - began
    return total


def _child(kernel: str, cases: int, number: int, path: Path) -> subprocess.Popen[bytes]:
    options = ["--kernel", kernel, "--cases", str(cases), "--seed", str(number), "--alone", str(path)]
    return subprocess.Popen([sys.executable, __file__, *options])


def reported(status: int, path: Path) -> Figures:
    """What a process wrote, and a fault more if it did not end well."""
    figures = figures_from(path.read_text()) if path.exists() else Figures()
    if status:
        last = path.with_suffix(".last")
        text = last.read_text() if last.exists() else ""
        figures.faults.append(f"a process ended with status {status}\n--repeat {shlex.quote(text)}")
    return figures


def page(figures: Figures, kernel: str, cases: int, number: int) -> str:
    """The figures as Markdown."""
    lines = [
        f"# The {kernel} kernel against the reference",
        "",
        f"`python tests/soak.py --cases {cases} --seed {number}` on {dt.date.today()}: what",
        "`tests/soak.py` draws, judged by `poolwise.reference`, window by window.",
        "",
        *_rows(("", ""), [(name, f"{value:,}") for name, value in _totals(figures).items()]),
        "",
        f"## Faults: {len(figures.faults)}",
        *(f"\n```\n{fault}\n```" for fault in figures.faults),
    ]
    if figures.reasons:
        lines += ["", "## Refused", "", *_rows(("cases", "reason"), [(n, r) for r, n in figures.reasons.most_common()])]
    for facet, counts in figures.drawn.items():
        rows = [(value, f"{count:,}", f"{figures.served[facet][value]:,}") for value, count in sorted(counts.items())]
        lines += ["", f"## By {facet}", "", *_rows((facet, "cases", "compared"), rows)]
    return "\n".join(lines) + "\n"


def _totals(figures: Figures) -> dict[str, int]:
    return {
        "cases": figures.cases,
        "compared": figures.cases - figures.refused,
        "refused by the kernel": figures.refused,
        "numbers compared": figures.compared,
        "of these left open: the order of the sum decides whether it overflows": figures.undecided,
        "seconds": round(figures.seconds),
    }


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="random unless given")
    parser.add_argument("--output", type=Path, help="also write the figures here, as Markdown")
    parser.add_argument("--kernel", choices=KERNELS, default="native")
    parser.add_argument("--repeat", metavar="CASE", help="judge this one case, as a fault printed it")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: no fault."""
    options = _options(arguments)
    if options.repeat:
        sys.stdout.write(f"{judge(case_from(options.repeat), KERNELS[options.kernel])}\n")
        return 0
    number = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    if options.alone:
        soak_alone(KERNELS[options.kernel], options.cases, number, options.alone)
        return 0
    sys.stdout.write(f"seed {number}\n")
    figures = soak(options.kernel, options.cases, options.jobs, number)
    text = page(figures, options.kernel, options.cases, number)
    sys.stdout.write(text)
    if options.output:
        options.output.write_text(text)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
