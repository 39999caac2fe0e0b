"""The C++ module: every dtype, geometry, mask and layout on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from poolwise import _native
from poolwise.call import WHERE, Call, ShowsMemory
from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Axis, Geometry, Regular, folded
from poolwise.op import FLOATS, Array, Selection

BODIES = frozenset(_native.bodies())
WHOLE = frozenset(_native.whole_bodies())  # those that need all of a window's elements at once
ROOTS = frozenset({"norm", "lp", "gem"})  # of sums of powers
DIFFERENTIABLE = BODIES - WHOLE - ROOTS  # whose gradients it computes for every window, from what it kept alone
PARAMETERS = {
    "lp": "p",
    "gem": "p",
    "quantile": "q",
    "topkmean": "k",
    "soft": "temperature",
    "logsumexp": "temperature",
}
# Taps of all windows, and taps for each element, beyond which a root's gradient comes sooner from sums.
MANY_TAPS, TAPS_OF_ELEMENT = 1 << 17, 12
MOST_SQUARES = 1024  # of float64, which are added one after the other: they err by a unit in the last place or two
MOST_WHOLE = 49  # taps; of more the plan refuses them
KEPT_BYTES = {"": 0, "uint8": 1, "int32": 4, "int64": 8}


class Native:
    """Compiled for each instruction set, chosen at run time.

    It keeps one byte per output of a max, nothing of a mean or a blur, the operands of what depends on all of a window.
    """

    name: ClassVar[str] = "native"
    traced: ClassVar[bool] = False

    def refusal(self, call: Call) -> str | None:
        return _refusal(call)

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        framework, layout, plan = _memory(call), call.layout, plan_of(call)
        x = (
            framework.dense(operands[0], layout)
            if call.op.name in WHOLE or (call.keep and plan.keeps_input)
            else operands[0]
        )
        y = framework.empty(call.geometry.output_shape, call.result_dtype, layout, x)
        kept = None
        if call.keep and plan.kept_dtype:
            kept = framework.empty(call.geometry.output_shape, plan.kept_dtype, layout, x)
        mask = _mask(operands, call)
        framework.native_forward(plan, (x, y, kept, mask, _beside(operands, call)))
        if not call.keep:
            return y, None
        if plan.keeps_input or call.op.name in ROOTS:
            return y, (x, *operands[1:])
        return y, mask if kept is None else kept

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        if _serves_padded(call):
            _check("g", g, call.dtype, call.geometry.output_shape)
            padded = _padded(call)
            wide = self.backward(call.framework.cast(g, padded.dtype), kept, padded)[0]
            return _folded_back(cast("Array", wide), call), *(None,) * (len(call.operands) - 1)
        if _sums_powers(call):
            return self._backward_of_powers(g, kept, call), *(None,) * (len(call.operands) - 1)
        framework, plan = _memory(call), plan_of(call)
        g = _dense("g", g, call.dtype, call)
        gx = framework.empty(call.geometry.shape, call.dtype, call.layout, g)
        if plan.kept_dtype:
            framework.native_backward(plan, (g, gx, _dense("kept", kept, plan.kept_dtype, call), None))
        elif plan.keeps_input:
            x, *others = kept or (None,)
            _check("kept", x, call.dtype, call.geometry.shape)
            mask, beside = _mask(kept, call), _beside(kept, call)
            to_beside = None if beside is None else framework.empty(call.geometry.shape, "float32", call.layout, g)
            framework.native_backward(plan, (g, gx, framework.dense(x, call.layout), mask, beside, to_beside))
            if to_beside is not None:
                return gx, _summed(to_beside, others[0], call)
        elif call.masked:
            _check("kept", kept, "bool", call.geometry.shape)
            framework.native_backward(plan, (g, gx, None, kept))
        else:
            framework.native_backward(plan, (g, gx, None, None))
        return gx, *(None,) * (len(call.operands) - 1)

    def _backward_of_powers(self, g: Array, kept: Any, call: Call) -> Array:
        """The gradient of a root through the sum, or the mean, of the powers, in float64, which holds them all.

        With the total t of a window that is x's power times the sum of g / t^(1 − 1/p) over the windows that read x.
        """
        framework, xp, op = _memory(call), call.framework.xp, cast("Any", call.op)
        totals, (x, *_) = _totals(call), kept or (None,)
        _check("g", g, call.dtype, call.geometry.output_shape)
        _check("kept", x, call.dtype, call.geometry.shape)
        mask, p, least = _mask(kept, call), op.p, getattr(op, "eps", None)
        x, shares = _in_float64(x, call), _in_float64(g, call)
        nothing = [] if mask is None else [~mask]
        with np.errstate(all="ignore"):
            if least is not None:
                nothing.append(x < least)
                x[nothing[-1]] = least
            total, _ = self.forward((_raised(x, p, call), *kept[1:]), totals)
            zero = total == 0
            total **= 1 - 1 / p
            shares /= total
            shares[zero] = 0
            gx, *_ = self.backward(shares, mask, totals)
            gx *= _raised(x, p - 1, call)
            if least is None:
                gx *= xp.sign(x)
        for places in nothing:
            gx[places] = 0
        for axis, places in _never_read(call):
            gx[(slice(None),) * axis + (framework.constant(places, gx),)] = 0
        return framework.dense(framework.cast(gx, call.dtype), call.layout)

    def kept_bytes(self, call: Call) -> int:
        if call.op.name in ROOTS:
            return call.input_bytes
        if plan_of(call).keeps_input:
            itemsize = (2 if call.dtypes[-1].endswith("16") else 4) if plan_of(call).paired else 0
            return call.input_bytes + itemsize * prod(call.geometry.shape)
        return KEPT_BYTES[plan_of(call).kept_dtype] * prod(call.geometry.output_shape)

    def indices(self, kept: Any, call: Call) -> Array:
        plan = plan_of(call)
        kept = _dense("kept", kept, plan.kept_dtype, call)
        flat = call.framework.empty(call.geometry.output_shape, "int64", call.layout, kept)
        _memory(call).native_indices(plan, kept, flat)
        return flat

    def winners(self, kept: Array, call: Call) -> Array:
        """`indices` in the framework's own operations, so that it can transform them."""
        xp, geometry = call.framework.xp, call.geometry
        offset = call.framework.cast(kept, "int64")
        nobody = offset == (255 if plan_of(call).kept_dtype == "uint8" else -1)
        flat, scale = xp.where(nobody, 0, offset) * 0, 1
        for axis, table in reversed(tuple(zip(geometry.axes, geometry.tables, strict=True))):
            shape = [1] * len(geometry.shape)
            shape[axis] = table.output
            rows = table.table()
            lookup = call.framework.constant((rows.index * scale).reshape(-1), kept)
            base = np.arange(table.output, dtype=np.int64) * rows.index.shape[1] - rows.first
            place = offset % table.taps + call.framework.constant(base.reshape(shape), kept)
            place = xp.where(nobody, 0, place)
            flat = flat + xp.reshape(xp.take(lookup, xp.reshape(place, (-1,)), axis=0), place.shape)
            offset, scale = offset // table.taps, scale * table.size
        return xp.where(nobody, -1, flat)


def _memory(call: Call) -> ShowsMemory:
    return cast("ShowsMemory", call.framework)


def _mask(operands: Sequence[Array], call: Call) -> Array | None:
    """Which elements are there, over the input."""
    return call.framework.spread(call.part(operands, WHERE), call.geometry.shape) if call.masked else None


def _beside(operands: Sequence[Array], call: Call) -> Array | None:
    """The operand that lies over the input, as the module reads it."""
    if not plan_of(call).paired:
        return None
    framework = _memory(call)
    operand = framework.cast(call.part(operands, *call.op.operands), "float32")
    return framework.dense(framework.spread(operand, call.geometry.shape), call.layout)


def _summed(grad: Array, operand: Array, call: Call) -> Array:
    """An operand's gradient from that of the same spread over the input."""
    xp, short = call.framework.xp, grad.ndim - operand.ndim
    sizes = (*(1,) * short, *operand.shape)
    spread = tuple(axis for axis, size in enumerate(sizes) if size != grad.shape[axis])
    for axis in reversed(spread):  # one after the other: of several at once the order depends on the threads
        grad = xp.sum(grad, axis=(axis,), keepdims=True)
    return call.framework.cast(xp.reshape(grad, tuple(operand.shape)), call.dtypes[-1])


def _dense(name: str, array: Array | None, dtype: str, call: Call) -> Array:
    """The array in the call's layout."""
    _check(name, array, dtype, call.geometry.output_shape)
    return call.framework.dense(array, call.layout)


def _check(name: str, array: Array | None, dtype: str, shape: tuple[int, ...]) -> None:
    """An address says nothing of sizes, and hooks may have changed what was kept."""
    if array is None:
        raise InvalidValue(f"{name} must be what forward kept, got none")
    if tuple(array.shape) != shape:
        raise InvalidValue(f"{name} must have the shape {shape}, got {tuple(array.shape)}")
    if str(array.dtype).rpartition(".")[2] != dtype:
        raise InvalidType(f"{name} must be {dtype}, got {array.dtype}")


def _body(call: Call) -> str:
    """What the module calls the operation; the Euclidean norm is a shorter Lp."""
    return "norm" if call.op.name == "lp" and getattr(call.op, "p", None) == 2 else call.op.name


@lru_cache(maxsize=4096)
def plan_of(call: Call) -> _native.Plan:
    """The call as the module wants it."""
    geometry = call.geometry
    return _native.Plan(
        _body(call),
        call.dtype,
        geometry.shape,
        geometry.axes,
        [_table(table) for table in geometry.tables],
        call.layout,
        count_include_pad=getattr(call.op, "count_include_pad", False),
        divisor=float(getattr(call.op, "divisor", None) or 0.0),
        truncate=getattr(call.op, "rounding", "nearest") == "truncate",
        parameter=float(getattr(call.op, PARAMETERS.get(call.op.name, ""), 1.0)),
        least=float(getattr(call.op, "eps", 0.0)),
        weights=_weights(call),
    )


def _weights(call: Call) -> list[list[float]]:
    """Of the taps of each axis, where they have weights."""
    if call.op.name not in WHOLE or prod(call.geometry.window) > MOST_WHOLE:
        return []
    found = [call.op.weights(taps) for taps in call.geometry.window]
    return [np.asarray(each).tolist() for each in found if each is not None]


def kept_dtype(call: Call) -> str:
    """The dtype of what the kernel keeps, "" for nothing."""
    return plan_of(call).kept_dtype


def _table(table: Axis) -> tuple[Any, ...]:
    if isinstance(table, Regular):
        numbers = (table.output, table.start, table.step, table.dilation, table.taps, table.low, table.high)
        return *numbers, table.mode
    first, end = table.bounds(np.arange(table.output, dtype=np.int64))
    return table.taps, np.stack([first, end - first], axis=-1)[None]


@lru_cache(maxsize=4096)
def _refusal(call: Call) -> str | None:
    if call.device != "cpu":
        return f"it runs on the CPU, and x is on {call.device}"
    body = _body(call)
    if body not in BODIES:
        return f"it has no body for {call.op.name}"
    if body in ROOTS and (reason := _root_refusal(call, body)):
        return reason
    if body in WHOLE:
        return _whole_refusal(call)
    divisor = getattr(call.op, "divisor", None)
    if divisor is not None and call.dtype not in FLOATS and divisor != int(divisor):
        return f"it divides integers by whole numbers, and the divisor is {divisor}"
    if not hasattr(call.framework, "native_forward"):
        return f"{call.framework.name}'s tensors do not show their memory"
    if isinstance(call.op, Selection) and call.keep and not plan_of(call).kept_dtype:
        return "a position inside so large a window does not fit 64 bits"
    return None


def _root_refusal(call: Call, body: str) -> str | None:
    """Why the root of a sum of powers, which are not scaled, is not served."""
    if call.op.operands:
        return f"{call.op.operands[0]} is an array: it has bodies for one number"
    if body == "norm" and call.dtype == "float64" and prod(call.geometry.window) > MOST_SQUARES:
        return f"squares of more than {MOST_SQUARES} float64 would lose too much: it does not keep what additions lose"
    try:
        plan_of(call)
    except ValueError as cause:
        return str(cause).removeprefix("Plan: ")
    return _refusal(_totals(call)) if call.keep and body != "norm" else None


@lru_cache(maxsize=4096)
def _sums_powers(call: Call) -> bool:
    """Whether a root's gradient comes from sums: the module's has no masks, folds, bins, large windows or long rows."""
    if call.op.name not in ROOTS or _body(call) == "norm":
        return False
    taps = prod(call.geometry.window) * prod(call.geometry.output_shape)
    many = taps > max(MANY_TAPS, TAPS_OF_ELEMENT * prod(call.geometry.shape))
    return many or call.masked or not plan_of(call).has_gradient


@lru_cache(maxsize=1024)
def _totals(call: Call) -> Call:
    """The sum, or the mean, of the powers whose root the call takes."""
    assert call.op.root_of is not None
    return replace(call, op=call.op.root_of, dtypes=("float64", *call.dtypes[1:]))


@lru_cache(maxsize=1024)
def _never_read(call: Call) -> list[tuple[int, NDArray[np.int64]]]:
    """The axes on which there are elements that no window reads, and where."""
    unread = [np.flatnonzero(_readers(table) == 0) for table in call.geometry.tables]
    return [(axis, places) for axis, places in zip(call.geometry.axes, unread, strict=True) if len(places)]


def _readers(table: Axis) -> NDArray[np.float64]:
    """How many windows read each element of an axis: the gradient of the sum of all of their sums."""
    plan = _native.Plan("sum", "float64", (table.size,), (0,), [_table(table)], (0,))
    readers = np.empty(table.size)
    plan.backward(np.ones(table.output), readers)
    return readers


def _in_float64(array: Array, call: Call) -> Array:
    """A copy."""
    wide = call.framework.empty(tuple(array.shape), "float64", call.layout, array)
    wide[...] = array
    return wide


def _raised(x: Array, p: float, call: Call) -> Array:
    """|x|^p."""
    raised = _in_float64(x, call)
    call.framework.xp.abs(raised, out=raised)
    raised **= p
    return raised


def _whole_refusal(call: Call) -> str | None:
    """Why an operation on whole windows is not served; most of it the plan knows."""
    if call.masked:
        return "it has no masks for whole windows"
    if "float64" in call.dtypes[1:]:
        return f"its exponentials are float32's, and {call.operands[-1]} are float64"
    if not hasattr(call.framework, "native_forward"):
        return f"{call.framework.name}'s tensors do not show their memory"
    try:
        plan = plan_of(call)
        if not call.keep or plan.has_gradient or _serves_padded(call):
            return None
    except ValueError as cause:
        return str(cause).removeprefix("Plan: ")
    return f"it has no gradient of {call.op.name} on such windows"


def _serves_padded(call: Call) -> bool:
    """Whether an array that has the padding's elements is not much larger, and its gradient is served."""
    tables = call.geometry.tables
    if len(call.operands) > 1 or not any(isinstance(table, Regular) and table.mode != "absent" for table in tables):
        return False
    if not all(isinstance(table, Regular) and table.low + table.high <= max(table.size, 64) for table in tables):
        return False
    plan = plan_of(_padded(call))
    return plan.has_gradient and not plan.keeps_input


@lru_cache(maxsize=1024)
def _padded(call: Call) -> Call:
    """The same windows over an array that has the padding's elements, at least in float32."""
    shape = list(call.geometry.shape)
    tables: list[Regular] = []
    for axis, table in zip(call.geometry.axes, cast("tuple[Regular, ...]", call.geometry.tables), strict=True):
        shape[axis] += table.low + table.high
        start = table.start + table.low
        tables.append(replace(table, size=shape[axis], start=start, low=0, high=0, mode="absent"))
    wide = call.op.working_dtype(call.dtype)
    return replace(call, geometry=Geometry(tuple(shape), call.geometry.axes, tuple(tables)), dtypes=(wide,))


def _folded_back(g: Array, call: Call) -> Array:
    """What the padding's elements received goes to the elements that they are."""
    for axis, table in zip(call.geometry.axes, cast("tuple[Regular, ...]", call.geometry.tables), strict=True):
        before = (slice(None),) * axis
        own = g[(*before, slice(table.low, table.low + table.size))]
        for place in (*range(-table.low, 0), *range(table.size, table.size + table.high)):
            own[(*before, int(folded(place, table.size, table.mode)))] += g[(*before, table.low + place)]
        g = own
    return _memory(call).dense(call.framework.cast(g, call.dtype), call.layout)
