"""What is measured: one table, in the sections in which it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias

from poolwise import (
    LIP,
    Blur,
    Gated,
    GeM,
    InvalidValue,
    LogSumExp,
    Lp,
    Max,
    Mean,
    Median,
    Mixed,
    Mode,
    Operation,
    Quantile,
    ReLUMax,
    Soft,
    StochasticMean,
    TopKMean,
)

Layout: TypeAlias = Literal["first", "last"]  # where the channels stand
Task: TypeAlias = Literal["forward", "indices", "training", "tiny", "tiny recorded"]

LAYOUTS: tuple[Layout, ...] = ("first", "last")
WHOLE, AIMLESS = ("order", "weights"), ("without a goal", "trained without a goal")  # sections
SIDES = {1: "W", 2: "HW", 3: "DHW"}  # what the pooled axes are called


@dataclass(frozen=True)
class Size:
    """How much is measured: at most so large a batch, so many channels, and sides; so many rounds.

    brief: rounds where nobody needs more than a few milliseconds for one. calls: of a tiny pooling, per round.
    """

    name: str
    batch: int
    channels: int
    side: int
    rounds: int
    brief: int
    calls: int

    def of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, no larger than this. An odd side stays odd, an even one even: what is ragged stays ragged."""
        batch, channels, *sides = shape
        most = self.side - self.side % 2
        kept = (min(side, most + side % 2) for side in sides)
        return (min(batch, self.batch), min(channels, self.channels), *kept)


FULL = Size("full", 64, 512, 16000, 7, 21, 2000)  # the table's own shapes: none is larger
QUICK = Size("quick", 2, 16, 112, 3, 3, 300)


@dataclass(frozen=True)
class Sliding:
    """Windows of so many taps along each pooled axis, every so many elements. mode: what the padding holds."""

    window: int
    stride: int
    padding: int = 0
    mode: Literal["absent", "reflect"] = "absent"

    def __str__(self) -> str:
        padded = f" p{self.padding}" if self.padding else ""
        return f"{self.window}/{self.stride}{padded}" + (f" {self.mode}" if self.mode != "absent" else "")

    def outputs(self, side: int) -> int:
        """How many windows fit on a side."""
        return (side + 2 * self.padding - self.window) // self.stride + 1


@dataclass(frozen=True)
class Bins:
    """Adaptive pooling to so many outputs along each pooled axis; to one: global pooling."""

    output: int

    def outputs(self, side: int) -> int:
        """The same on every side."""
        return self.output

    @property
    def whole(self) -> bool:
        """Whether there is one bin, the whole plane."""
        return self.output == 1


Places: TypeAlias = Sliding | Bins


@dataclass(frozen=True)
class MaxBlur:
    """`max_blur_pool`, a composition: a max at stride 1, then a blur of so many taps that reflects the border."""

    taps: int = 3

    name: ClassVar[str] = "max_blur"
    stems: ClassVar[tuple[str, ...]] = ("max_blur",)
    operands: ClassVar[tuple[str, ...]] = ()


Pooling: TypeAlias = Operation | MaxBlur
WORDS = {
    "lp": "Lp({0.p:g})",
    "relumax": "ReLU + max",
    "max_blur": "max-blur",
    "quantile": "quantile({0.q:g})",
    "topkmean": "top-{0.k} mean",
    "logsumexp": "log-sum-exp",
    "gem": "GeM",
    "lip": "LIP",
    "stochasticmean": "stochastic mean",
}


@dataclass(frozen=True)
class Case:
    """One pooling, of one kind of array, for one task.

    shape: batch, channels, and the pooled axes, whatever the order in memory. layout: that order.
    task: "forward" keeps nothing; "indices" is the forward pass that keeps what backward needs; "training" is forward
    and backward; "tiny" is one call of many, "tiny recorded" the same on a tensor that requires a gradient.
    """

    section: str
    op: Pooling
    places: Places
    shape: tuple[int, ...]
    layout: Layout = "first"
    task: Task = "forward"
    dtype: str = "float32"

    @property
    def label(self) -> str:
        """The operation and its windows, such as "max 3/2 p1"."""
        word = WORDS.get(self.op.name, self.op.stems[0]).format(self.op)
        if isinstance(self.places, Sliding):
            return f"{word} {self.places}"
        if self.places.whole:
            return f"global {word}"
        return f"adaptive {word} to " + "×".join([str(self.places.output)] * self.rank)

    @property
    def order(self) -> str:
        """The order in memory, such as "NCHW"."""
        sides = SIDES[self.rank]
        return f"NC{sides}" if self.layout == "first" else f"N{sides}C"

    @property
    def note(self) -> str:
        """What sets the name apart from those of the other sections."""
        if self.section in ("forward", "indices", "training", "relu", "tiny", *AIMLESS):
            return ""
        if self.section in WHOLE:
            return "" if self.dtype == "float32" else f", {self.dtype}"
        sides = "x".join(map(str, self.shape[2:]))
        said = {"small planes": sides, "dtypes": self.dtype, "others": sides, "1-D and 3-D": f"{self.rank}-D"}
        return f", {said.get(self.section, self.section)}"

    @property
    def name(self) -> str:
        """What `--cases` matches."""
        return f"{self.label} {self.order} {self.task}{self.note}"

    @property
    def tiny(self) -> bool:
        return self.task.startswith("tiny")

    @property
    def resident(self) -> bool:
        """Whether the data is to be found in the cache, so that one call follows another."""
        return self.section == "cache resident"

    @property
    def gradient(self) -> bool:
        """Whether the answer has a gradient to compare."""
        return self.task in ("indices", "training", "tiny recorded")

    @property
    def labelled(self) -> bool:
        """Whether the data are labels rather than numbers."""
        return isinstance(self.op, Mode)

    @property
    def rank(self) -> int:
        """How many axes are pooled."""
        return len(self.shape) - 2

    @property
    def axes(self) -> tuple[int, ...]:
        """The pooled axes, in memory's order."""
        first = 2 if self.layout == "first" else 1
        return tuple(range(first, first + self.rank))

    def at(self, size: Size) -> tuple[int, ...]:
        """The input's shape in memory's order."""
        batch, channels, *sides = size.of(self.shape)
        return (batch, channels, *sides) if self.layout == "first" else (batch, *sides, channels)


SECTIONS: dict[str, str] = {
    "forward": "forward",
    "odd sizes": "forward, odd sizes",
    "short rows": "forward, short rows",
    "cache resident": "forward, in the cache",
    "indices": "forward + indices",
    "training": "forward + backward",
    "small planes": "forward + backward, small planes",
    "relu": "ReLU + max pool",
    "large windows": "large windows, stride 1",
    "dtypes": "forward, other dtypes",
    "1-D and 3-D": "forward, 1-D and 3-D",
    "order": "forward, median and mode",
    "weights": "forward, soft, Lp, blur",
    "others": "forward, adaptive, global",
    "without a goal": "forward, without a goal",
    "trained without a goal": "forward + backward, without a goal",
    "tiny": "a tiny call",
}


def same(taps: int) -> Sliding:
    """Stride 1, padded so that the output has the input's size."""
    return Sliding(taps, 1, (taps - 1) // 2)


MAX, AVG, RELUMAX = Max(), Mean(count_include_pad=True, rounding="truncate"), ReLUMax()
LARGE, MIDDLE, DEEP, DEEPER = (32, 64, 112, 112), (32, 64, 56, 56), (8, 512, 13, 13), (8, 512, 20, 20)
TWO, THREE, DENSE = Sliding(2, 2), Sliding(3, 2, 1), same(3)
OTHER_DTYPES = ("float16", "bfloat16", "uint8", "int8", "int32", "float64")
WINDOWS = (3, 7, 15, 31, 63)

COMMON: tuple[tuple[Operation, Sliding, tuple[int, ...]], ...] = (
    (MAX, TWO, LARGE),
    (MAX, THREE, LARGE),
    (MAX, Sliding(3, 3), LARGE),
    (AVG, TWO, LARGE),
    (AVG, THREE, LARGE),
    (MAX, DENSE, MIDDLE),
    (AVG, DENSE, MIDDLE),
    (MAX, Sliding(2, 1), MIDDLE),
    (MAX, Sliding(7, 2, 3), MIDDLE),
    (MAX, Sliding(4, 4), LARGE),
    (MAX, same(5), DEEP),
    (MAX, same(13), DEEPER),
    (AVG, same(13), DEEPER),
)
TRAINED = (*COMMON[:2], *COMMON[3:7])  # in both layouts


def _twice(cases: Iterable[Case]) -> Iterator[Case]:
    """Each with channels first and last."""
    for case in cases:
        yield from (replace(case, layout=layout) for layout in LAYOUTS)


def _forward() -> Iterator[Case]:
    yield from _twice(Case("forward", *row) for row in COMMON)
    yield from _twice(Case("odd sizes", MAX, places, (32, 17, 113, 111)) for places in (TWO, THREE))
    yield Case("short rows", MAX, TWO, (64, 512, 14, 14))
    yield Case("short rows", MAX, THREE, (64, 512, 7, 7))
    resident = ((MAX, TWO), (AVG, TWO), (MAX, DENSE))
    yield from (Case("cache resident", *row, (1, 64, 56, 56)) for row in resident)


def _recorded() -> Iterator[Case]:
    """A mean keeps nothing, so it has no case with indices."""
    yield from _twice(Case("indices", *row, task="indices") for row in TRAINED if row[0] == MAX)
    yield from _twice(Case("training", *row, task="training") for row in TRAINED)
    yield Case("training", MAX, same(5), DEEP, task="training")
    yield Case("training", MAX, same(13), DEEPER, task="training")
    for shape in ((64, 512, 14, 14), (64, 512, 7, 7), (64, 64, 8, 8, 8)):
        yield from (Case("small planes", op, TWO, shape, task="training") for op in (MAX, AVG))
    yield Case("small planes", AVG, Bins(1), (64, 512, 7, 7), task="training")
    yield Case("small planes", AVG, Bins(6), (32, 256, 13, 13), task="training")
    for task in ("forward", "training"):
        yield from (Case("relu", RELUMAX, places, LARGE, task=task) for places in (TWO, THREE))


def _large_windows() -> Iterator[Case]:
    shape = (8, 32, 128, 128)
    for op in (MAX, AVG):
        yield from (Case("large windows", op, same(taps), shape) for taps in WINDOWS)
    yield Case("large windows", MAX, same(31), shape, task="training")


def _kinds() -> Iterator[Case]:
    for dtype in OTHER_DTYPES:
        for op, places in ((MAX, TWO), (MAX, THREE), (AVG, TWO)):
            yield Case("dtypes", op, places, LARGE, dtype=dtype)
    line, volume = (64, 64, 16000), (4, 32, 32, 64, 64)
    yield Case("1-D and 3-D", MAX, TWO, line)
    yield Case("1-D and 3-D", AVG, THREE, line)
    yield from (Case("1-D and 3-D", op, Sliding(n, n), line) for n in (4, 8) for op in (MAX, AVG))
    yield from (Case("1-D and 3-D", op, places, volume) for op, places in ((MAX, TWO), (MAX, DENSE), (AVG, TWO)))


def _order() -> Iterator[Case]:
    """Labels of 32 and 64 bits are fewer, so that all have at least 25 MB."""
    median, mode, bare = Median(), Mode(), Sliding(3, 2)
    yield from _twice([Case("order", median, TWO, LARGE)])
    yield Case("order", median, THREE, LARGE)
    yield Case("order", median, bare, LARGE, dtype="uint8")
    yield from (Case("order", mode, places, LARGE, dtype="uint8") for places in (TWO, bare))
    for dtype, batch in (("uint32", 8), ("uint64", 4)):
        yield Case("order", mode, TWO, (batch, *LARGE[1:]), dtype=dtype)
    yield from (Case("order", median, places, MIDDLE) for places in (DENSE, Sliding(3, 1)))
    yield Case("order", mode, TWO, (4, 32, 64, 64, 64), dtype="uint8")


def _weights() -> Iterator[Case]:
    soft, blur = Soft(), Blur()
    rows = ((soft, TWO), (soft, THREE), (Lp(2), TWO), (blur, THREE), (blur, Sliding(5, 2, 2)), (MaxBlur(), TWO))
    yield from (Case("weights", *row, LARGE) for row in rows)


def _others() -> Iterator[Case]:
    uneven = (32, 64, 113, 113)  # seven bins of 16 and 17, so that no regular window serves them
    for shape in (LARGE, (32, 512, 14, 14)):
        yield Case("others", MAX, Bins(1), shape)
        yield from _twice([Case("others", AVG, Bins(1), shape)])
    yield from (Case("others", op, Bins(7), uneven) for op in (MAX, AVG))
    yield Case("others", AVG, Bins(6), (32, 256, 13, 13))
    yield Case("others", AVG, Bins(1), (64, 512, 7, 7))
    yield from (Case("others", op, Bins(6), (32, 64, 16000)) for op in (MAX, AVG))


def _without_goal() -> Iterator[Case]:
    """Smaller arrays; among them a blur that pads as its paper's code does."""
    section, shape = "without a goal", (8, 64, 56, 56)
    others = (LogSumExp(), Quantile(0.25), TopKMean(2), GeM(), LIP(), Mixed(), Gated(), StochasticMean())
    yield from (Case(section, op, TWO, shape) for op in others)
    yield from (Case(section, op, Sliding(3, 2), shape) for op in others[:5])
    yield Case(section, Blur(), Sliding(3, 2, 1, "reflect"), shape)
    for op, places in ((Lp(2), TWO), (GeM(), TWO), (Soft(), TWO), (Blur(), THREE)):
        yield Case("trained without a goal", op, places, MIDDLE, task="training")


def _tiny() -> Iterator[Case]:
    for task in ("tiny", "tiny recorded"):
        yield Case("tiny", MAX, TWO, (1, 1, 8, 8), task=task)


CASES: tuple[Case, ...] = (
    *_forward(),
    *_recorded(),
    *_large_windows(),
    *_kinds(),
    *_order(),
    *_weights(),
    *_others(),
    *_without_goal(),
    *_tiny(),
)


def matches(name: str, pattern: str) -> bool:
    """Whether the name holds the pattern (of `fnmatch`), whatever the case of its letters."""
    return fnmatchcase(name.lower(), f"*{pattern.lower()}*")


def matching(pattern: str, further: Iterable[str] = ()) -> list[Case]:
    """The case of that name, or else those whose name holds the pattern, or else those of the sections that hold it.

    further: names beside the cases', which a pattern may mean. Raises InvalidValue where nothing matches.
    """
    named = [case for case in CASES if case.name.lower() == pattern.lower()]
    found = named or [case for case in CASES if matches(case.name, pattern)]
    if found or any(matches(name, pattern) for name in further):
        return found
    found = [case for case in CASES if matches(SECTIONS[case.section], pattern)]
    if not found:
        raise InvalidValue(
            f"cases must match a case such as 'max 2/2 NCHW forward' (poolwise bench --list shows all) or a section "
            f"({'; '.join(SECTIONS.values())}), got {pattern!r}",
            "bench",
        )
    return found
