"""Which elements does each output cell read?  Integers only; every error about a geometry starts here.

A geometry holds one table per pooled axis. `Regular` is the compact form (start, step, dilation, taps), `Bins` the
uneven form of adaptive pooling; both expand to a `Table` only when somebody asks for its rows.
"""

# Users pass anything: what the types promise is checked at run time too.
# pyright: reportUnnecessaryIsInstance=false, reportUnnecessaryComparison=false

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import InvalidType, InvalidValue

Choice = TypeVar("Choice", bound=str)
Ints: TypeAlias = NDArray[np.int64]
PaddingMode: TypeAlias = Literal["absent", "circular", "reflect", "replicate"]
BinRule: TypeAlias = Literal["overlapping", "disjoint"]
Whole: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | str | Sequence[int | Sequence[int]]
Offsets: TypeAlias = int | str | Sequence[int]

ABSENT = cast("Whole", None)  # of an argument that must be given: refused by its name, as everything else is
OFFSETS = ("start", "middle", "end")
PADDING_MODES: tuple[PaddingMode, ...] = ("absent", "circular", "reflect", "replicate")
BIN_RULES: tuple[BinRule, ...] = ("overlapping", "disjoint")
LARGEST = 2**63 - 1
LARGEST_PADDING = 2**62 - 1
LARGEST_BYTES = 2**47  # what a 64-bit process can address


@dataclass(frozen=True, eq=False)
class Table:
    """Some rows of an axis, expanded.

    index: (rows, width ≥ 1) element read by each present tap, left-aligned; 0 where there is none.
    first: (rows,) ordinal, inside the window, of the first present tap.
    present: (rows,) how many taps read an element.
    count: (rows,) how many taps count for a mean that includes padding.
    """

    index: Ints
    first: Ints
    present: Ints
    count: Ints

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(rows, width): True where `index` holds a tap."""
        return cast("NDArray[np.bool_]", np.arange(self.index.shape[1]) < self.present[:, None])


@dataclass(frozen=True)
class Regular:
    """Output cell i reads the taps start + i·step + t·dilation, 0 ≤ t < taps; start is −low, or `offset` later."""

    size: int
    output: int
    start: int
    step: int
    dilation: int
    taps: int
    low: int
    high: int
    mode: PaddingMode = "absent"

    kind: ClassVar[str] = "regular"

    @property
    def offset(self) -> int:
        """How many cells later than the padding the windows start."""
        return self.start + self.low

    @property
    def reach(self) -> int:
        """Cells from the first window's begin to the last one's end."""
        return (self.output - 1) * self.step + (self.taps - 1) * self.dilation + 1

    @property
    def slack(self) -> int:
        """Cells that the windows leave, of elements and padding; negative: that they reach beyond those."""
        return self.size + self.low + self.high - self.reach

    def table(self, begin: int = 0, end: int | None = None) -> Table:
        """The rows begin ≤ i < end."""
        rows = np.arange(begin, self.output if end is None else end, dtype=np.int64)
        origin = self.start + rows * self.step
        first, count = self._taps_between(origin, -self.low, self.size + self.high)
        present = count
        if self.mode == "absent":
            first, present = self._taps_between(origin, 0, self.size)
        tap = np.arange(max(1, int(present.max(initial=0))), dtype=np.int64)
        raw = (origin + first * self.dilation)[:, None] + tap * self.dilation
        index = np.where(tap < present[:, None], folded(raw, self.size, self.mode), 0)
        return Table(index, first, present, count)

    def reached(self) -> tuple[Ints, NDArray[np.bool_]]:
        """Every position from the first tap to the last: the element there, and whether there is one."""
        place = np.arange(self.start, self.start + self.reach, dtype=np.int64)
        low, high = (0, 0) if self.mode == "absent" else (self.low, self.high)
        inside = (place >= -low) & (place < self.size + high)
        return np.where(inside, folded(place, self.size, self.mode), 0), inside

    def _taps_between(self, origin: Ints, lowest: int, end: int) -> tuple[Ints, Ints]:
        """For each origin the first tap at or after `lowest`, and how many from there lie before `end`."""
        first = np.clip(-((origin - lowest) // self.dilation), 0, self.taps)
        past = np.clip(-((origin - end) // self.dilation), 0, self.taps)
        return first, np.maximum(past - first, 0)

    @property
    def widest(self) -> int:
        """The most taps of one window that read an element (an upper bound)."""
        return min(self.taps, -(-self.size // self.dilation)) if self.mode == "absent" else self.taps

    def describe(self) -> tuple[str, ...]:
        mode = "" if self.mode == "absent" else f" {self.mode}"
        later = f" offset {self.offset}" if self.offset else ""
        return (str(self.taps), str(self.step), str(self.dilation), f"{self.low}+{self.high}{mode}{later}")


@dataclass(frozen=True)
class Bins:
    """Adaptive bins whose sizes differ. Overlapping: ⌊i·n/m⌋ … ⌈(i+1)·n/m⌉; disjoint: the first n mod m are longer."""

    size: int
    output: int
    rule: BinRule

    kind: ClassVar[str] = "bins"
    low: ClassVar[int] = 0
    high: ClassVar[int] = 0
    mode: ClassVar[PaddingMode] = "absent"

    def table(self, begin: int = 0, end: int | None = None) -> Table:
        """The rows begin ≤ i < end."""
        rows = np.arange(begin, self.output if end is None else end, dtype=np.int64)
        start, stop = self.bounds(rows)
        present = stop - start
        tap = np.arange(max(1, int(present.max(initial=0))), dtype=np.int64)
        index = np.where(tap < present[:, None], start[:, None] + tap, 0)
        return Table(index, np.zeros_like(rows), present, present)

    def bounds(self, rows: Ints) -> tuple[Ints, Ints]:
        """Where each bin begins and ends."""
        if self.rule == "overlapping":
            return rows * self.size // self.output, -(-(rows + 1) * self.size // self.output)
        short, longer = divmod(self.size, self.output)
        return rows * short + np.minimum(rows, longer), (rows + 1) * short + np.minimum(rows + 1, longer)

    @property
    def taps(self) -> int:
        """Taps of the widest bin, as an upper bound; offsets inside a window count in rows of this many."""
        return self.widest

    @property
    def widest(self) -> int:
        return -(-self.size // self.output) + (self.rule == "overlapping")

    def describe(self) -> tuple[str, ...]:
        low, high = self.size // self.output, self.widest
        return (f"{low}…{high}", self.rule, "1", "0+0")


Axis: TypeAlias = Regular | Bins


def folded(raw: Any, size: int, mode: PaddingMode, xp: Any = np) -> Any:
    """Positions in the padding, led back to elements; xp: the functions of the framework that `raw` belongs to."""
    if mode == "circular":
        return raw % size
    if mode == "replicate":
        return xp.clip(raw, 0, size - 1)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        around = raw % period
        return xp.minimum(around, period - around) if size > 1 else xp.zeros_like(raw)
    return raw


@dataclass(frozen=True)
class Geometry:
    """One array shape, its pooled axes, and for each the table of what every output cell reads.

    >>> print(Geometry.of((1, 28, 29), window=(3, 2), stride=2))
    Geometry (1, 28, 29) → (1, 13, 14)
    axis  size  window  stride  dilation  padding  output  never read  empty windows
       1    28       3       2         1      0+0      13           1              0
       2    29       2       2         1      0+0      14           1              0
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    tables: tuple[Axis, ...]

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        axes: Whole | None = None,
        *,
        window: Whole = ABSENT,
        stride: Whole | None = None,
        padding: Padding = 0,
        dilation: Whole = 1,
        ceil_mode: bool = False,
        padding_mode: PaddingMode = "absent",
        offsets: Offsets = "start",
    ) -> Self:
        """The geometry of sliding windows over `shape`.

        shape: sizes of the array, each ≥ 0, the pooled ones ≥ 1.
        axes: the pooled axes, in the order of `window`'s entries; None: the last len(window).
        window: taps per pooled axis; a bare int only together with `axes`.
        stride: step per axis; None: the window.
        padding: an int, one per axis, (low, high) per axis, "valid", "same" or "same_lower".
        offsets: how many cells later the windows start: an int, or one per axis, between 0 and the slack, which is what
            they leave of n + padding (negative with `ceil_mode`, where they reach beyond it); or "start", which is 0,
            "middle", half of the slack towards 0, or "end", all of it.
        Raises InvalidValue or InvalidType with the argument's name, its value and what is allowed.

        >>> Geometry.of((8, 28, 28), window=(2, 2)).output_shape
        (8, 14, 14)
        """
        shape, pooled, rank = _shape_axes(shape, axes, window, "window")
        taps = _each("window", window, rank, least=1)
        steps = taps if stride is None else _each("stride", stride, rank, least=1)
        dilations = _each("dilation", dilation, rank, least=1)
        mode = _one_of("padding_mode", padding_mode, PADDING_MODES)
        if not isinstance(ceil_mode, bool | np.bool_):
            raise InvalidType(f"ceil_mode must be True or False, got {ceil_mode!r}")
        _fits("window", window, prod(taps))
        _fits("stride", stride, prod(steps))
        sizes = [shape[axis] for axis in pooled]
        pads = _padding(padding, sizes, taps, steps, dilations)
        columns = zip(pooled, sizes, taps, steps, dilations, pads, strict=True)
        tables = tuple(
            _regular(axis, size, count, step, gap, pair, bool(ceil_mode), mode)
            for axis, size, count, step, gap, pair in columns
        )
        if not (isinstance(offsets, str) and offsets == "start"):
            tables = _moved(pooled, tables, offsets)
        return cls(shape, pooled, tables)._checked(f"window {taps}, padding {padding!r}")

    @classmethod
    def adaptive(
        cls,
        shape: Sequence[int],
        axes: Whole | None = None,
        *,
        output_size: Whole = ABSENT,
        bins: BinRule = "overlapping",
    ) -> Self:
        """Bins that cover each pooled axis with `output_size` cells.

        Bins of equal size become a regular table, so that every fast kernel serves them.
        """
        shape, pooled, rank = _shape_axes(shape, axes, output_size, "output_size")
        outputs = _each("output_size", output_size, rank, least=1)
        rule = _one_of("bins", bins, BIN_RULES)
        tables = tuple(_bins(shape[axis], output, rule) for axis, output in zip(pooled, outputs, strict=True))
        return cls(shape, pooled, tables)._checked(f"output_size {output_size!r}")

    @classmethod
    def whole(cls, shape: Sequence[int], axes: Whole) -> Self:
        """One window over all of each pooled axis (global pooling)."""
        if axes is None:
            raise InvalidType("axes must be an int or a tuple of ints, got None")
        return cls.adaptive(shape, axes, output_size=1)

    def _checked(self, cause: str) -> Self:
        shape = self._output_shape()  # not the cached one, behind whose lock PyTorch's compiler stops
        if prod(shape) * 8 > LARGEST_BYTES:
            raise InvalidValue(f"{cause} gives an output of shape {shape}, more than memory can address")
        return self

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """The array's shape after pooling."""
        return self._output_shape()

    def _output_shape(self) -> tuple[int, ...]:
        shape = list(self.shape)
        for axis, table in zip(self.axes, self.tables, strict=True):
            shape[axis] = table.output
        return tuple(shape)

    @property
    def window(self) -> tuple[int, ...]:
        """Taps per pooled axis (of the widest bin, where bins differ)."""
        return tuple(table.taps for table in self.tables)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements per pooled axis."""
        return tuple(table.size for table in self.tables)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Output cells per pooled axis."""
        return tuple(table.output for table in self.tables)

    @property
    def regular(self) -> bool:
        """Whether every axis has the compact form and padding is absence."""
        return all(isinstance(table, Regular) and table.mode == "absent" for table in self.tables)

    def coverage(self) -> tuple[Ints, ...]:
        """Per pooled axis, how many windows read each element."""
        return tuple(_coverage(table) for table in self.tables)

    @cached_property
    def has_empty_windows(self) -> bool:
        """Whether some window reads no element at all."""
        return any(_empty_windows(table) for table in self.tables)

    def __str__(self) -> str:
        head = ("axis", "size", "window", "stride", "dilation", "padding", "output", "never read", "empty windows")
        rows: list[tuple[str, ...]] = [head]
        for axis, table in zip(self.axes, self.tables, strict=True):
            unread = int((_coverage(table) == 0).sum())
            empty = str(_empty_windows(table))
            rows.append((str(axis), str(table.size), *table.describe(), str(table.output), str(unread), empty))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([f"Geometry {self.shape} → {self.output_shape}", *lines])


def output_size(size: int, low: int, high: int, span: int, step: int, ceil_mode: bool) -> int:
    """⌊(n + low + high − span) / step⌋ + 1; ceil rounds up and drops a last window that starts in the right padding.

    PyTorch's rule, and ONNX's since opset 22. Works on symbolic sizes too.
    """
    free = size + low + high - span
    if not ceil_mode:
        return free // step + 1
    rounded = (free + step - 1) // step + 1
    return rounded - 1 if (rounded - 1) * step >= size + low else rounded


def unpooled(
    shape: Sequence[int],
    axes: Whole | None,
    window: Whole,
    stride: Whole | None,
    padding: Padding,
    dilation: Whole,
    output_size: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pooled axes, and the shape whose pooling gave `shape`: (n − 1)·s − padding + span, or a size near to it."""
    shape, pooled, _ = _shape_axes(shape, axes, window, "window")
    taps, steps, pads, dilations = windows(pooled, window, stride, padding, dilation)
    sizes = list(shape)
    asked = _asked_sizes(output_size, shape, pooled)
    for number, axis in enumerate(pooled):
        plain = (shape[axis] - 1) * steps[number] - sum(pads[number]) + (taps[number] - 1) * dilations[number] + 1
        sizes[axis] = plain if asked is None else asked[number]
        if sizes[axis] < 1:
            raise InvalidValue(f"padding must leave an output of at least 1 on axis {axis}, got {padding!r}")
        if not plain - steps[number] < sizes[axis] < plain + steps[number]:
            raise InvalidValue(
                f"output_size must be more than {plain - steps[number]} and less than {plain + steps[number]} "
                f"on axis {axis}, got {output_size!r}"
            )
    if prod(sizes) * 8 > LARGEST_BYTES:
        raise InvalidValue(
            f"window {taps} and stride {steps} give the shape {tuple(sizes)}, more than memory can address"
        )
    return pooled, tuple(sizes)


def windows(
    pooled: tuple[int, ...], window: Whole, stride: Whole | None, padding: Padding, dilation: Whole
) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]], tuple[int, ...]]:
    """Taps, steps, padding on both sides and dilation per pooled axis, where the padding is given in numbers."""
    rank = len(pooled)
    taps = _each("window", window, rank, least=1)
    steps = taps if stride is None else _each("stride", stride, rank, least=1)
    dilations = _each("dilation", dilation, rank, least=1)
    if isinstance(padding, str):
        raise InvalidValue(f"padding must be given in numbers where the size is sought, got {padding!r}")
    return taps, steps, _padding(padding, [1] * rank, taps, steps, dilations), dilations


def fractional(
    shape: Sequence[int], axes: Whole | None, window: Whole, output_size: Whole
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The pooled axes, the taps and the cells per axis of windows that lie where draws put them, none past the end."""
    shape, pooled, rank = _shape_axes(shape, axes, window, "window")
    taps = _each("window", window, rank, least=1)
    outputs = _each("output_size", output_size, rank, least=1)
    for axis, width, cells in zip(pooled, taps, outputs, strict=True):
        if width > shape[axis]:
            raise InvalidValue(f"window must fit the input's {shape[axis]} on axis {axis}, got {window!r}")
        if cells > shape[axis] - width + 1:
            raise InvalidValue(
                f"output_size must be at most {shape[axis] - width + 1} on axis {axis}, the places of a window of "
                f"{width} on {shape[axis]}, got {output_size!r}"
            )
    return pooled, taps, outputs


def pooled_axes(shape: Sequence[int], axes: Whole | None, each: Whole, name: str) -> tuple[int, ...]:
    """The pooled axes: as said, or the last ones, as many as `each` has entries."""
    return _shape_axes(shape, axes, each, name)[1]


def blocks(
    shape: Sequence[int], axes: Whole | None, sizes: Whole, name: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pooled axes, and how many neighbours along each make a block; the blocks cover the axes exactly."""
    pooled, each = spread(shape, axes, sizes, name)
    for axis, size in zip(pooled, each, strict=True):
        if shape[axis] % size:
            raise InvalidValue(f"{name} must divide the input's {shape[axis]} on axis {axis}, got {sizes!r}")
    return pooled, each


def spread(
    shape: Sequence[int], axes: Whole | None, sizes: Whole, name: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pooled axes, and the size of the block that each element along them becomes."""
    shape, pooled, rank = _shape_axes(shape, axes, sizes, name)
    each = _each(name, sizes, rank, least=1)
    if prod(shape) * prod(each) * 8 > LARGEST_BYTES:
        raise InvalidValue(f"{name} must give sizes that memory can address, got {sizes!r}")
    return pooled, each


def channel(ndim: int, pooled: tuple[int, ...], channel_axis: int | None) -> int | None:
    """Where the channels are: as said, or before the first pooled axis; None: no axis stands there."""
    if channel_axis is None:
        return pooled[0] - 1 if pooled[0] > 0 and pooled[0] - 1 not in pooled else None
    (axis,) = _axes(_whole("channel_axis", channel_axis, channel_axis), ndim)
    if axis in pooled:
        raise InvalidValue(f"channel_axis must not be one of the pooled axes {pooled}, got {channel_axis}")
    return axis


def _asked_sizes(
    output_size: Sequence[int] | None, shape: Sequence[int], pooled: tuple[int, ...]
) -> tuple[int, ...] | None:
    """One size per pooled axis, out of one for each of those or one for every axis."""
    if output_size is None:
        return None
    if len(pooled) != len(shape) and isinstance(output_size, Sequence) and len(output_size) == len(shape):
        sizes = tuple(_whole("output_size", size, output_size) for size in output_size)
        if any(size != shape[axis] for axis, size in enumerate(sizes) if axis not in pooled):
            raise InvalidValue(f"output_size must keep the sizes of the axes that are not pooled, got {output_size!r}")
        return tuple(sizes[axis] for axis in pooled)
    return _each("output_size", output_size, len(pooled), least=1)


def same_padding(size: int, span: int, step: int) -> int:
    """The total padding with which ⌈n / step⌉ windows cover the axis."""
    return max((-(-size // step) - 1) * step + span - size, 0)


def _parts(table: Axis, limit: int = 1 << 24) -> Iterator[Table]:
    """The rows that may read something, in runs of which none expands to more than about `limit` numbers."""
    rows = max(1, limit // max(table.widest, 1))
    first, end = _reading(table)
    for begin in range(first, end, rows):
        yield table.table(begin, min(begin + rows, end))


def _reading(table: Axis) -> tuple[int, int]:
    """The first row that may read an element, and the end of such rows: padding may be far wider than the axis."""
    if not isinstance(table, Regular) or table.mode != "absent":
        return 0, table.output
    begin = max(0, -((table.start + (table.taps - 1) * table.dilation) // table.step))
    end = min(table.output, (table.size - 1 - table.start) // table.step + 1)
    return begin, max(begin, end)


def _empty_windows(table: Axis) -> int:
    begin, end = _reading(table)
    return table.output - (end - begin) + sum(int((part.present == 0).sum()) for part in _parts(table))


def _coverage(table: Axis) -> Ints:
    read = np.zeros(table.size, dtype=np.int64)
    for part in _parts(table):
        read += np.bincount(part.index[part.mask], minlength=table.size)
    return read


def _regular(
    axis: int,
    size: int,
    taps: int,
    step: int,
    dilation: int,
    pads: tuple[int, int],
    ceil_mode: bool,
    mode: PaddingMode,
) -> Regular:
    low, high = pads
    span = (taps - 1) * dilation + 1
    _fits("dilation", dilation, span)
    _fits("padding", pads, size + low + high)
    output = output_size(size, low, high, span, step, ceil_mode)
    if output < 1:
        raise InvalidValue(
            f"window must fit the padded input: it spans {span} on axis {axis}, which has {size} + padding {low}+{high}"
        )
    _fits("stride", step, (output - 1) * step + span + low)
    return Regular(size, output, -low, step, dilation, taps, low, high, mode)


def _moved(pooled: tuple[int, ...], tables: tuple[Regular, ...], offsets: Offsets) -> tuple[Regular, ...]:
    """The tables with their windows so much later."""
    if isinstance(offsets, str):
        said = _one_of("offsets", offsets, OFFSETS)
        halves = OFFSETS.index(said)
        places = tuple([abs(table.slack) * halves // 2 * (-1 if table.slack < 0 else 1) for table in tables])
    else:
        places = _each("offsets", offsets, len(tables))
    for axis, table, place in zip(pooled, tables, places, strict=True):
        least, most = min(table.slack, 0), max(table.slack, 0)
        if not least <= place <= most:
            raise InvalidValue(f"offsets must be between {least} and {most} on axis {axis}, got {offsets!r}")
    return tuple([replace(table, start=place - table.low) for table, place in zip(tables, places, strict=True)])


def _bins(size: int, output: int, rule: BinRule) -> Axis:
    if rule == "disjoint" and output > size:
        raise InvalidValue(f"output_size must be at most {size} for disjoint bins, got {output}")
    if size % output:
        _fits("output_size", output, size * (output + 1))
        return Bins(size, output, rule)
    return Regular(size, output, 0, size // output, 1, size // output, 0, 0)


def _padding(
    padding: Padding, sizes: Sequence[int], taps: Sequence[int], steps: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        rule = _one_of("padding", padding, ("valid", "same", "same_lower"))
        return [_named_padding(rule, *numbers) for numbers in zip(sizes, taps, steps, dilations, strict=True)]
    if _is_whole(padding):
        return [_pair(padding, padding)] * len(sizes)
    if not isinstance(padding, Sequence) or len(padding) != len(sizes):
        raise _kind(padding)(
            f"padding must be an int, {len(sizes)} entries (an int or a pair (low, high) each), "
            f'"valid", "same" or "same_lower", got {padding!r}'
        )
    return [_pair(entry, padding) for entry in padding]


def _named_padding(rule: str, size: int, taps: int, step: int, dilation: int) -> tuple[int, int]:
    if rule == "valid":
        return 0, 0
    total = same_padding(size, (taps - 1) * dilation + 1, step)
    small, large = total // 2, total - total // 2
    return (small, large) if rule == "same" else (large, small)


def _pair(entry: Any, padding: Padding) -> tuple[int, int]:
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        if len(cast("Sequence[Any]", entry)) != 2:
            raise InvalidValue(f"padding must have two numbers (low, high) per axis, got {padding!r}")
        low, high = (_whole("padding", value, padding) for value in cast("Sequence[Any]", entry))
    else:
        low = high = _whole("padding", entry, padding)
    if low < 0 or high < 0:
        raise InvalidValue(f"padding must be at least 0, got {padding!r}")
    if max(low, high) > LARGEST_PADDING:
        raise InvalidValue(f"padding must be less than 2**62, got {padding!r}")
    return low, high


def _shape_axes(
    shape: Sequence[int], axes: Whole | None, each: Whole, name: str
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The shape and the pooled axes, checked and non-negative, and how many there are."""
    if not isinstance(shape, Sequence):
        raise InvalidType(f"shape must be a tuple of ints, got {shape!r}")
    shape = tuple([_whole("shape", size, shape) for size in shape])
    if not shape:
        raise InvalidValue("x must have at least 1 axis, got a 0-d array")
    if min(shape) < 0:
        raise InvalidValue(f"shape must have sizes of at least 0, got {shape}")
    _fits("shape", shape, max(shape))
    pooled = _axes(axes, len(shape)) if axes is not None else _last_axes(each, len(shape), name)
    if any(shape[axis] == 0 for axis in pooled):
        raise InvalidValue(f"x must have at least 1 element on each pooled axis, got shape {shape} and axes {pooled}")
    return shape, pooled, len(pooled)


def _axes(axes: Whole, ndim: int) -> tuple[int, ...]:
    given = (axes,) if _is_whole(axes) else axes
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InvalidType(f"axes must be an int or a tuple of ints, got {axes!r}")
    wanted = [_whole("axes", axis, axes) for axis in given]
    if not wanted:
        raise InvalidValue(f"axes must name at least 1 axis, got {axes!r}")
    if any(not -ndim <= axis < ndim for axis in wanted):
        raise InvalidValue(f"axes must be between {-ndim} and {ndim - 1} for an array of {ndim} axes, got {axes!r}")
    pooled = tuple(axis % ndim for axis in wanted)
    if len(set(pooled)) != len(pooled):
        raise InvalidValue(f"axes must not repeat, got {axes!r}")
    return pooled


def _last_axes(each: Whole, ndim: int, name: str) -> tuple[int, ...]:
    if _is_whole(each):
        raise InvalidType(
            f"{name} must be a tuple with one entry per pooled axis where axes is not given, got {each!r}"
        )
    if not isinstance(each, Sequence) or isinstance(each, str):
        raise InvalidType(f"{name} must be a tuple of ints, got {each!r}")
    if not 1 <= len(each) <= ndim:
        raise InvalidValue(f"{name} must have 1 to {ndim} entries for an array of {ndim} axes, got {each!r}")
    return tuple(range(ndim - len(each), ndim))


def _each(name: str, value: Whole, rank: int, *, least: int | None = None) -> tuple[int, ...]:
    """One int per pooled axis."""
    if _is_whole(value):
        numbers = (operator.index(cast("int", value)),) * rank
    elif not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidType(f"{name} must be an int or a tuple of {rank} ints, got {value!r}")
    elif len(value) != rank:
        raise InvalidValue(f"{name} must have {rank} entries, one per pooled axis, got {value!r}")
    else:
        numbers = tuple(_whole(name, entry, value) for entry in value)
    if least is not None and min(numbers) < least:
        raise InvalidValue(f"{name} must be at least {least}, got {value!r}")
    _fits(name, value, max(numbers))
    return numbers


def _is_whole(value: object) -> bool:
    if type(value) is int:
        return True
    if not hasattr(value, "__index__") or isinstance(value, bool | np.bool_ | np.ndarray):
        return False
    try:
        operator.index(cast("Any", value))
    except TypeError:  # a tensor of several elements has __index__ too
        return False
    return True


def _whole(name: str, value: Any, given: object) -> int:
    if type(value) is int or hasattr(value, "node"):  # PyTorch's symbolic sizes stay symbolic
        return value
    if not _is_whole(value):
        raise InvalidType(f"{name} must be made of ints, got {given!r}")
    return operator.index(value)


def _one_of(name: str, value: Choice, allowed: Sequence[Choice]) -> Choice:
    if not isinstance(value, str):
        raise InvalidType(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    if value not in allowed:
        raise InvalidValue(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def _fits(name: str, value: object, number: int) -> None:
    if number > LARGEST:
        raise InvalidValue(f"{name} must give sizes that fit 64 bits, got {value!r}")


def _kind(value: object) -> type[InvalidValue] | type[InvalidType]:
    return InvalidValue if isinstance(value, Sequence) else InvalidType
