"""The judge: every operation on every geometry, one window at a time, in float64. Never optimised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from poolwise.call import INPUT, WHERE, Call
from poolwise.geometry import Table
from poolwise.op import FLOATS, Array, Selection, Window


@dataclass(frozen=True, eq=False)
class Place:
    """One window's place: the output cell, and where in the input its present elements stand (the pooled axes)."""

    cell: tuple[int, ...]
    elements: tuple[NDArray[np.int64], ...]
    window: Window


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
        grads = {name: np.zeros(np.shape(call.part(kept, name)), np.float64) for name in (INPUT, *extras)}
        for place in places(kept, call):
            with np.errstate(all="ignore"):
                parts = call.op.window_grad(place.window, float(g[place.cell]))
            for name, part in zip(grads, parts, strict=True):
                np.add.at(grads[name], place.elements if grads[name].ndim == len(place.elements) else (), part)
        return tuple(_gradient(grads.get(name), kept[0].dtype) for name in call.operands)

    def kept_bytes(self, call: Call) -> int:
        return int(np.prod(call.geometry.shape)) * np.dtype(call.dtype).itemsize

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
    extras = {name: _extra(call.part(operands, name), elements) for name in call.op.operands}
    values = _exact(operands[0][elements])
    size = int(np.prod(call.geometry.window))
    return Place(cell, elements, Window(values, positions, size, count, extras, call.geometry.window))


def _taps(table: Table, row: int) -> Iterator[tuple[int, int]]:
    """(element, ordinal inside the window) of each present tap of one row."""
    for tap in range(int(table.present[row])):
        yield int(table.index[row, tap]), int(table.first[row]) + tap


def _extra(operand: Array, elements: tuple[NDArray[np.int64], ...]) -> Any:
    """A window's part of an operand that lies over the input, or all of a smaller one."""
    array = np.asarray(operand)
    return array[elements] if array.ndim == len(elements) else array


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


def _gradient(grad: NDArray[Any] | None, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    return None if grad is None else grad.astype(dtype if str(dtype) in FLOATS else np.float64)
