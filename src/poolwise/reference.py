"""The judge: every operation on every geometry, one window at a time, in float64. Never optimised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from poolwise.call import INPUT, WHERE, Call, shape_over
from poolwise.geometry import Table
from poolwise.op import FLOATS, Array, Selection, Window


@dataclass(frozen=True, eq=False)
class Place:
    """One window's place: the output cell, and where in the input its present elements stand."""

    cell: tuple[int, ...]
    elements: tuple[NDArray[np.int64], ...]
    window: Window

    def index(self, over: str, axes: tuple[int, ...]) -> tuple[Any, ...]:
        """Where an operand that lies over the input, the output or the window has its part for this window."""
        if over != "window":
            return self.elements if over == "input" else self.cell
        index: list[Any] = list(self.cell)
        for number, axis in enumerate(axes):
            index[axis] = self.window.positions[:, number]
        return tuple(index)


class Reference:
    """The reference as a kernel, so that a user can ask for it by name."""

    name: ClassVar[str] = "reference"
    traced: ClassVar[bool] = False

    def refusal(self, call: Call) -> str | None:
        if call.framework.name != "numpy":
            return f"it works on NumPy arrays, not on {call.framework.name}'s"
        return None

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        y = np.empty(call.geometry.output_shape, call.result_dtype)
        for place in places(operands, call):
            with np.errstate(all="ignore"):
                y[place.cell] = _cast(call.op.window(place.window), y.dtype)
        return y, tuple(operands) if call.keep else None

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        extras = [name for name in call.operands if name in call.op.operands]
        over = {INPUT: "input", **{name: call.over(name) for name in extras}}
        grads = {name: np.zeros(shape_over(call.geometry, lies)) for name, lies in over.items()}
        for place in places(kept, call):
            with np.errstate(all="ignore"):
                parts = call.op.window_grad(place.window, float(g[place.cell]))
                for name, part in zip(grads, parts, strict=True):
                    np.add.at(grads[name], place.index(over[name], call.geometry.axes), part)
        return tuple(_gradient(grads.get(name), operand) for name, operand in zip(call.operands, kept, strict=True))

    def kept_bytes(self, call: Call) -> int:
        return call.input_bytes

    def indices(self, kept: Any, call: Call) -> Array:
        flat = np.full(call.geometry.output_shape, -1, np.int64)
        assert isinstance(call.op, Selection)
        for place in places(kept, call):
            chosen = call.op.chosen(place.window)
            if chosen >= 0:
                element = [place.elements[axis][chosen] for axis in call.geometry.axes]
                flat[place.cell] = np.ravel_multi_index(element, call.geometry.sizes)
        return flat


def places(operands: Sequence[Array], call: Call) -> Iterator[Place]:
    """Every window of the call, in row-major order of the output."""
    x, geometry = operands[0], call.geometry
    mask = np.broadcast_to(call.part(operands, WHERE), x.shape) if call.masked else None
    tables = {axis: table.table() for axis, table in zip(geometry.axes, geometry.tables, strict=True)}
    for cell in np.ndindex(geometry.output_shape):
        taps = [list(_taps(tables[axis], cell[axis])) for axis in geometry.axes]
        read = list(itertools.product(*taps))
        elements = tuple(
            np.array([tap[geometry.axes.index(axis)][0] for tap in read], np.int64)
            if axis in tables
            else np.full(len(read), cell[axis], np.int64)
            for axis in range(x.ndim)
        )
        positions = np.array([[ordinal for _, ordinal in tap] for tap in read], np.int64).reshape(len(read), len(taps))
        here = np.ones(len(read), bool) if mask is None else mask[elements]
        count = int(np.prod([tables[axis].count[cell[axis]] for axis in geometry.axes]))
        yield _place(cell, operands, call, tuple(e[here] for e in elements), positions[here], count)


def _place(
    cell: tuple[int, ...],
    operands: Sequence[Array],
    call: Call,
    elements: tuple[NDArray[np.int64], ...],
    positions: NDArray[np.int64],
    count: int,
) -> Place:
    values, geometry = _exact(operands[0][elements]), call.geometry
    window = Window(values, positions, int(np.prod(geometry.window)), count, {}, geometry.window)
    place = Place(cell, elements, window)
    extras: dict[str, Any] = {}
    for name in call.op.operands:
        laid = np.broadcast_to(call.part(operands, name), call.shape_of(name))
        extras[name] = laid[place.index(call.over(name), geometry.axes)].astype(np.float64)
    return replace(place, window=replace(window, extras=extras))


def _taps(table: Table, row: int) -> Iterator[tuple[int, int]]:
    """(element, ordinal inside the window) of each present tap of one row."""
    for tap in range(int(table.present[row])):
        yield int(table.index[row, tap]), int(table.first[row]) + tap


def _exact(values: NDArray[Any]) -> NDArray[Any]:
    """Integers as 64-bit integers, everything else as float64."""
    kind = values.dtype.kind
    return values.astype({"i": np.int64, "u": np.uint64, "b": np.int64}.get(kind, np.float64))


def _cast(value: Any, dtype: np.dtype[Any]) -> Any:
    """The value in the result's dtype; what an integer dtype cannot hold, infinities included, saturates."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return 0 if math.isnan(value) else int(min(max(value, limits.min), limits.max))
    if dtype.kind == "b":
        return value > 0
    return value


def _gradient(grad: NDArray[Any] | None, operand: NDArray[Any]) -> NDArray[Any] | None:
    """Summed to the operand's shape, which may have been spread, in its dtype."""
    if grad is None:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        whole: NDArray[Any] = grad.sum(tuple(range(grad.ndim - operand.ndim)))
        spread = tuple([axis for axis, size in enumerate(operand.shape) if size == 1 and whole.shape[axis] != 1])
        return whole.sum(spread, keepdims=True).astype(operand.dtype if str(operand.dtype) in FLOATS else np.float64)
