"""The C++ module: regular geometries of up to three axes that lie side by side in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np

from poolwise import _native
from poolwise.call import Call
from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Axis, Regular
from poolwise.op import Array, Selection

BODIES = ("max", "min", "sum", "mean")
FLOATS = ("float32", "float64")
MOST_AXES = 3


class Native:
    """Compiled for each instruction set, chosen at run time; keeps one byte per output of a max, nothing of a mean."""

    name: ClassVar[str] = "native"
    traced: ClassVar[bool] = False

    def refusal(self, call: Call) -> str | None:
        return _refusal(call)

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        framework, layout, plan = call.framework, call.layout, plan_of(call)
        x = framework.dense(operands[0], layout)
        y = framework.empty(call.geometry.output_shape, call.result_dtype, layout, x)
        kept = None
        if call.keep and plan.kept_dtype:
            kept = framework.empty(call.geometry.output_shape, plan.kept_dtype, layout, x)
        _run(plan, "forward", (x, y, kept), call)
        return y, kept

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        framework, layout = call.framework, call.layout
        g = _output_like("g", g, call.dtype, call)
        gx = framework.empty(call.geometry.shape, call.dtype, layout, g)
        _run(plan_of(call), "backward", (g, gx, _kept(kept, call)), call)
        return gx, *(None,) * (len(call.operands) - 1)

    def kept_bytes(self, call: Call) -> int:
        size = {"uint8": 1, "int32": 4, "": 0}[plan_of(call).kept_dtype]
        return size * prod(call.geometry.output_shape)

    def indices(self, kept: Any, call: Call) -> Array:
        kept = _kept(kept, call)
        flat = call.framework.empty(call.geometry.output_shape, "int64", call.layout, kept)
        _run(plan_of(call), "indices", (kept, flat), call)
        return flat

    def winners(self, kept: Array, call: Call) -> Array:
        """`indices` in the framework's own operations, so that it can transform them."""
        xp, geometry = call.framework.xp, call.geometry
        offset = call.framework.cast(kept, "int64")
        nobody = offset == (255 if plan_of(call).kept_dtype == "uint8" else -1)
        flat, scale = offset * 0, 1
        for axis, table in reversed(tuple(zip(geometry.axes, geometry.tables, strict=True))):
            assert isinstance(table, Regular)
            shape = [1] * len(geometry.shape)
            shape[axis] = table.output
            origin = table.start + np.arange(table.output, dtype=np.int64) * table.step
            origin = call.framework.constant(origin.reshape(shape), kept)
            flat = flat + (origin + offset % table.taps * table.dilation) * scale
            offset, scale = offset // table.taps, scale * table.size
        return xp.where(nobody, -1, flat)


def _kept(kept: Any, call: Call) -> Any:
    dtype = plan_of(call).kept_dtype
    return _output_like("kept", kept, dtype, call) if dtype and kept is not None else kept


def _output_like(name: str, array: Array, dtype: str, call: Call) -> Array:
    """The array in the call's layout; an address says nothing of sizes, and hooks may have changed what was kept."""
    shape = call.geometry.output_shape
    if tuple(array.shape) != shape:
        raise InvalidValue(f"{name} must have the output's shape {shape}, got {tuple(array.shape)}")
    if str(array.dtype).rpartition(".")[2] != dtype:
        raise InvalidType(f"{name} must be {dtype}, got {array.dtype}")
    return call.framework.dense(array, call.layout)


def _run(plan: _native.Plan, method: str, arrays: tuple[Array | None, ...], call: Call) -> None:
    memory = [None if array is None else call.framework.memory(array, call.layout) for array in arrays]
    if isinstance(memory[0], int):
        getattr(plan, f"{method}_at")(*(address or 0 for address in memory), threads=call.framework.threads)
    else:
        getattr(plan, method)(*memory)


@lru_cache(maxsize=4096)
def plan_of(call: Call) -> _native.Plan:
    """The call's geometry as the module wants it: outer × up to three pooled axes × inner, in memory order."""
    shape = [call.geometry.shape[axis] for axis in call.layout]
    tables = {
        call.layout.index(axis): table for axis, table in zip(call.geometry.axes, call.geometry.tables, strict=True)
    }
    begin, end = min(tables), max(tables) + 1
    axes = [_numbers(tables.get(place) or _untouched(shape[place])) for place in range(begin, end)]
    return _native.Plan(
        call.op.name,
        call.dtype,
        outer=prod(shape[:begin]),
        axes=axes,
        inner=prod(shape[end:]),
        count_include_pad=getattr(call.op, "count_include_pad", False),
        divisor=float(getattr(call.op, "divisor", None) or 0.0),
    )


def kept_dtype(call: Call) -> str:
    """The dtype of what the kernel keeps, "" for nothing."""
    return plan_of(call).kept_dtype


def _numbers(table: Axis) -> tuple[int, ...]:
    assert isinstance(table, Regular)
    return table.size, table.output, table.start, table.step, table.dilation, table.taps, table.low, table.high


def _untouched(size: int) -> Regular:
    """An axis between pooled ones: windows of one element."""
    return Regular(size, size, 0, 1, 1, 1, 0, 0)


@lru_cache(maxsize=4096)
def _refusal(call: Call) -> str | None:
    if call.device != "cpu":
        return f"it runs on the CPU, and x is on {call.device}"
    if call.op.name not in BODIES:
        return f"it has no body for {call.op.name}"
    if call.dtype not in FLOATS:
        return f"it computes in {' and '.join(FLOATS)}, and x is {call.dtype}"
    if call.masked:
        return "it takes no mask"
    if not call.geometry.regular:
        return "its windows must be regular and padding absent; these are uneven bins or read elements in the padding"
    return _order_refusal(call)


def _order_refusal(call: Call) -> str | None:
    places = [call.layout.index(axis) for axis in call.geometry.axes]
    if max(places) - min(places) >= MOST_AXES:
        return f"it walks at most {MOST_AXES} neighbouring axes, and these are {call.geometry.axes}"
    if 0 in (call.geometry.shape[axis] for axis in call.layout[min(places) : max(places)]):
        return "an axis between the pooled ones is empty"
    indexed = call.keep and isinstance(call.op, Selection)
    if indexed and places != list(range(places[0], places[0] + len(places))):
        return "indices count over the pooled axes in their order, and memory holds them otherwise"
    if indexed and not plan_of(call).kept_dtype:
        return "a position inside so large a window does not fit the four bytes that it keeps"
    return None
