"""Pooling inside PyTorch's compiler and exporters.

What the compiled module serves is one registered operator, whose output sizes stay symbolic. Everything else, and
everything under the ONNX exporter, is PyTorch's own operations, which those tools look into.
"""

from __future__ import annotations

import operator
from ast import literal_eval
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from math import inf, prod
from typing import Any, cast

import numpy as np
import torch

from poolwise.api import adaptive, planned, sliding, whole
from poolwise.call import INPUT, WHERE, Call, Kernel
from poolwise.doors import Build, Facts, check_operand_shape
from poolwise.errors import InvalidValue
from poolwise.geometry import Geometry, Regular, output_size
from poolwise.kernels.native import BODIES, DIFFERENTIABLE, kept_dtype
from poolwise.op import FLOATS, WEIGHTS, Array, Operation, Selection, tap_weights
from poolwise.ops import OPERATIONS
from poolwise.torch._framework import FORMS, ONNX, PLAIN, TORCH, dtype_name, format_of

_transforms_active = torch._C._are_functorch_transforms_active
_exporting = getattr(torch.compiler, "is_exporting", bool)  # since PyTorch 2.7
OPERATORS = {kind.name: kind for kind in OPERATIONS}
BUILDERS: dict[str, Build] = {}


_as_one: ContextVar[bool] = ContextVar("as_one", default=False)


@contextmanager
def as_one_call() -> Iterator[None]:
    """Within it a graph holds each pooling as one call of the registered operator, of which `decoded` tells what it is.

    For those who read graphs: one made so does not run where the compiled module has no kernel with a gradient.
    """
    token = _as_one.set(True)
    try:
        yield
    finally:
        _as_one.reset(token)


def builder(build: Build) -> Build:
    """Let compiled graphs name this builder of geometries."""
    BUILDERS[build.__name__] = build
    return build


for _build in (sliding, adaptive, whole):
    builder(_build)


def traced(
    operands: Sequence[Array],
    names: tuple[str, ...],
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    kernel: str | None,
    return_indices: bool,
    *,
    keep: bool,
) -> Any:
    """The pooling in operations that PyTorch can record."""
    if torch.onnx.is_in_onnx_export() or not torch.compiler.is_compiling():
        return _composed(operands, names, op, build, arguments, kernel, return_indices, ONNX)
    x, where = operands[0], operands[1] if WHERE in names else None
    text = _encoded(op, build, arguments, kernel)
    if not _is_served(x, op, kernel):
        return _inside(text, " ".join(names), return_indices, keep, *operands)
    y, kept = torch.ops.poolwise.pool(x, where, text, keep or return_indices)
    return (y, torch.ops.poolwise.indices(kept, text, list(x.shape))) if return_indices else y


def _is_served(x: torch.Tensor, op: Operation, kernel: str | None) -> bool:
    if not torch.compiler.is_dynamo_compiling() and _as_one.get():  # which the compiler could not trace
        return True
    return (
        kernel in (None, "native") and op.name in DIFFERENTIABLE and x.device.type == "cpu" and dtype_name(x) in FLOATS
    )


def _is_compiled(x: torch.Tensor, names: Sequence[str], op: Operation, text: str, keep: bool) -> bool:
    """Whether a compiled graph has the registered operator; an exported program, of such, PyTorch's own operations."""
    if type(x) in FORMS:  # the graph runs as it was read, and of PyTorch's operations there are all derivatives
        return False
    if _exporting() or _transforms_active():
        return False
    _, build, arguments, kernel = decoded(text)
    if kernel not in (None, "native") or op.name not in BODIES or not set(names) <= {INPUT, WHERE}:
        return False
    if x.device.type != "cpu" or dtype_name(x) not in FLOATS:
        return False
    tables = build(tuple(_window_sizes(text, x.shape)), *arguments).tables
    folds = any(isinstance(table, Regular) and table.mode != "absent" for table in tables)
    if folds and not all(isinstance(size, int) for size in x.shape):  # it depends on the sizes who serves it
        return False
    try:
        _plan(text, dtype_name(x), _window_sizes(text, x.shape), format_of(x), WHERE in names, keep=keep)
    except InvalidValue:  # no kernel for it, or none with a gradient
        return False
    return True


def _composed(
    operands: Sequence[Array],
    names: tuple[str, ...],
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    kernel: str | None,
    return_indices: bool,
    device: str,
) -> Any:
    """By a kernel that is made of PyTorch's own operations."""
    x = operands[0]
    probe = _probe(x.shape)
    geometry = build(tuple(probe), *arguments)
    pooled = geometry.axes
    symbolic = not all(isinstance(x.shape[axis], int) for axis in pooled)
    if symbolic and _unfolds(build, arguments) and len(operands) == 1 and not return_indices:
        return _unfolded(x, op, geometry, build, arguments)
    shape = tuple([int(size) if axis in pooled else probe[axis] for axis, size in enumerate(x.shape)])
    facts = Facts(shape, dtype_name(x), PLAIN[x.ndim], device)
    own = names[len(names) - len(op.operands) :]
    extras = ("float32",) * len(own)
    call, choice = planned.__wrapped__(TORCH, facts, op, build, arguments, (), names, kernel, return_indices, extras)
    y, kept = choice.kernel.forward(_with_draws(operands, call), call)
    return (y, choice.kernel.indices(kept, call)) if return_indices else y


def _with_draws(operands: Sequence[Array], call: Call) -> list[Array]:
    """The operands, with random numbers where there is none; their sizes are checked here, where all are known."""
    x, found = operands[0], list(operands)
    for number, name in enumerate(call.operands):
        if name not in call.op.operands:
            continue
        wanted = [
            size if axis in call.geometry.axes else x.shape[axis] for axis, size in enumerate(call.shape_of(name))
        ]
        if found[number] is None:
            found[number] = torch.rand(wanted, device=x.device)
        else:
            check_operand_shape(name, found[number].shape, wanted)
    return found


def _unfolds(build: Build, arguments: tuple[Any, ...]) -> bool:
    """Whether the windows' places do not depend on the sizes."""
    starts = arguments[7:] if build is sliding else ()
    return _window_slides(build) and _padding(build, arguments) not in ("same", "same_lower") and not starts


def _unfolded(x: torch.Tensor, op: Operation, geometry: Geometry, build: Build, arguments: tuple[Any, ...]) -> Any:
    """`op.gathered` for sizes that stay symbolic: no table is written out."""
    if (reason := op.refusal(geometry)) is not None:
        raise InvalidValue(f"{op!r} means nothing here: {reason}")
    last = tuple(range(-len(geometry.axes), 0))
    sizes = [x.shape[axis] for axis in geometry.axes]
    values = _moved(TORCH.cast(x, op.working_dtype(dtype_name(x))), geometry.axes, last)
    tables = cast("tuple[Regular, ...]", geometry.tables)
    declared = [size + table.low + table.high for size, table in zip(sizes, tables, strict=True)]
    low = [table.low for table in tables]
    here = torch.ones(sizes, dtype=torch.bool, device=x.device)
    if not geometry.regular:  # the padding holds elements
        values, here = (_extended(array, tables) for array in (values, here))
        low = [0] * len(low)
    counting = torch.ones(declared, dtype=torch.bool, device=x.device)
    views = [
        _windows(array, geometry, build, arguments, sizes, before, fill)
        for array, before, fill in ((values, low, op.fill), (here, low, 0), (counting, [0] * len(low), 0))
    ]
    count = views[2].sum(-1).to(values.dtype)
    weights = tap_weights(op, geometry.window)
    extras = {} if weights is None else {WEIGHTS: torch.as_tensor(weights, dtype=values.dtype, device=x.device)}
    y = TORCH.cast(op.gathered(TORCH.xp, views[0], views[1], count, extras), op.result_dtype(dtype_name(x)))
    return _moved(y, last, geometry.axes)


def _moved(x: torch.Tensor, axes: tuple[int, ...], places: tuple[int, ...]) -> torch.Tensor:
    """`movedim`, but nothing where nothing moves: PyTorch 2.13 cannot compile a result that is a view of n − 2 rows."""
    stays = all((axis - place) % x.ndim == 0 for axis, place in zip(axes, places, strict=True))
    return x if stays else x.movedim(axes, places)


def _extended(array: torch.Tensor, tables: Sequence[Regular]) -> torch.Tensor:
    """The array with its padding's elements on the last axes."""
    for axis, table in zip(range(-len(tables), 0), tables, strict=True):
        size = array.shape[axis]
        place = torch.arange(-table.low, size + table.high, device=array.device)
        if table.mode == "circular":
            place = place % size
        elif table.mode == "replicate":
            place = place.clamp(0, size - 1)
        else:
            period = torch.sym_max(2 * (size - 1), 1)
            place = torch.minimum(place % period, period - place % period)
        array = array.index_select(array.ndim + axis, place)
    return array


def _windows(
    array: torch.Tensor,
    geometry: Geometry,
    build: Build,
    arguments: tuple[Any, ...],
    sizes: Sequence[Any],
    before: Sequence[int],
    fill: float,
) -> torch.Tensor:
    """(…, *outputs, taps): padded before by so much, behind as far as the last window reaches.

    A copy of it is what can be compiled for symbolic sizes: of views PyTorch 2.13 takes one's strides for all.
    """
    pads: list[Any] = []
    places: list[torch.Tensor] = []
    rank, taps = len(sizes), torch.arange(prod(geometry.window), device=array.device)
    inner = len(taps)
    for number, table in enumerate(cast("tuple[Regular, ...]", geometry.tables)):
        output, span = _output(geometry, number, sizes[number], build, arguments), (table.taps - 1) * table.dilation + 1
        end = (output - 1) * table.step + span
        pads = [before[number], end - before[number] - array.shape[number - rank], *pads]
        inner //= table.taps
        starts = torch.arange(output, device=array.device) * table.step
        starts = starts.reshape([-1 if other == number else 1 for other in range(rank)] + [1])
        places.append(starts + taps // inner % table.taps * table.dilation)
    return torch.nn.functional.pad(array, pads, value=fill)[(..., *places)]


def _window_slides(build: Build) -> bool:
    return build.__name__ in ("sliding", "torch_windows")


@torch.compiler.allow_in_graph
def _inside(text: str, words: str, return_indices: bool, keep: bool, *operands: torch.Tensor | None) -> Any:
    """The same where the compiler must not read this library's own code, only what comes out of it."""
    op, build, arguments, kernel = decoded(text)
    x, names = cast("torch.Tensor", operands[0]), tuple(words.split())
    if not return_indices and _is_compiled(x, names, op, text, keep):
        return torch.ops.poolwise.pool(x, operands[1] if WHERE in names else None, text, keep)[0]
    device = f"{x.device.type} (traced)"
    return _composed(operands, names, op, build, arguments, kernel, return_indices, device)


# A pooling as text, which a graph can carry and another process can read.


def _encoded(op: Operation, build: Build, arguments: tuple[Any, ...], kernel: str | None) -> str:
    parameters = [f"{name}={_plain(getattr(op, name))!r}" for name in vars(type(op))["__dataclass_fields__"]]
    return "|".join([op.name, ";".join(parameters), build.__name__, _literal(arguments), f"{kernel!r}"])


def _plain(value: Any) -> Any:
    """A number of NumPy's, or a symbolic one, as Python's own, which is written so that it can be read."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float):
        return float(value)
    return operator.index(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _literal(value: Any) -> str:
    """The value as Python writes it; a symbolic size that stands for a window or an output becomes its number."""
    if isinstance(value, tuple | list):
        return "(" + "".join([f"{_literal(entry)}, " for entry in cast("Any", value)]) + ")"
    if value is None or isinstance(value, bool | float | str):
        return f"{value!r}"
    return f"{operator.index(value)}"


@lru_cache(maxsize=4096)
def decoded(text: str) -> tuple[Operation, Build, tuple[Any, ...], str | None]:
    """The operation, the builder of its geometry and that one's arguments, and the kernel that was asked for."""
    try:
        name, parameters, build, arguments, kernel = text.split("|")
        pairs = [pair.split("=", 1) for pair in parameters.split(";") if pair]
        op = OPERATORS[name](**{key: inf if value == "inf" else literal_eval(value) for key, value in pairs})
        return op, BUILDERS[build], literal_eval(arguments), literal_eval(kernel)
    except (KeyError, SyntaxError, TypeError, ValueError):
        raise InvalidValue(f"text must say a pooling as poolwise encodes it, got {text!r}") from None


# Sizes that may be symbolic.


def _plan(
    text: str, dtype: str, shape: Sequence[int], layout: tuple[int, ...], masked: bool, *, keep: bool = True
) -> tuple[Call, Kernel]:
    op, build, arguments, _ = decoded(text)
    facts = Facts(tuple(map(int, shape)), dtype, layout, "cpu")
    kinds = tuple(map(type, arguments))
    names = (INPUT, WHERE)[: 1 + masked]
    call, choice = planned(TORCH, facts, op, build, arguments, kinds, names, "native", keep)
    return call, choice.kernel


def _probe(shape: Sequence[int]) -> list[int]:
    """The shape with numbers for its symbolic sizes, where only the arguments matter: larger than windows are."""
    symbolic = sum(not isinstance(size, int) for size in shape)
    return [size if isinstance(size, int) else 2 ** min(12, 40 // symbolic) for size in shape]


def _output_shape(text: str, shape: Sequence[Any]) -> list[Any]:
    """The output's sizes by arithmetic that symbolic sizes can do."""
    _, build, arguments, _ = decoded(text)
    geometry = build(tuple(_probe(shape)), *arguments)
    outputs = list(shape)
    for number, axis in enumerate(geometry.axes):
        outputs[axis] = _output(geometry, number, shape[axis], build, arguments)
    return outputs


def _padding(build: Build, arguments: tuple[Any, ...]) -> Any:
    """As it was asked for, where windows slide."""
    return arguments[3] if build.__name__ == "torch_windows" else arguments[2]


def _output(geometry: Geometry, number: int, size: Any, build: Build, arguments: tuple[Any, ...]) -> Any:
    table = geometry.tables[number]
    if isinstance(size, int):
        return table.output
    if build.__name__ == "torch_bins":
        asked = arguments[1]
        whole_axis = asked is None or (isinstance(asked, tuple) and cast("Any", asked)[number % len(asked)] is None)
        return size if whole_axis else table.output
    if build is adaptive or build is whole:
        return table.output
    assert isinstance(table, Regular)
    ceil_mode = arguments[5] if build.__name__ == "torch_windows" else arguments[4]
    if _padding(build, arguments) in ("same", "same_lower"):
        return (size + table.step - 1) // table.step
    span = (table.taps - 1) * table.dilation + 1
    if ceil_mode:  # as `output_size`, without a branch on what is symbolic
        reaching = (size + table.low + table.high - span + table.step - 1) // table.step + 1
        return torch.sym_min(reaching, (size + table.low - 1) // table.step + 1)
    return output_size(size, table.low, table.high, span, table.step, False)


# The registered operators: forward, backward, indices.


@torch.library.custom_op("poolwise::pool", mutates_args=(), device_types="cpu")
def _pool(x: torch.Tensor, where: torch.Tensor | None, text: str, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
    call, kernel = _plan(text, dtype_name(x), x.shape, format_of(x), where is not None, keep=keep)
    y, kept = kernel.forward((x,) if where is None else (x, where), call)
    return y, kept if keep and kept_dtype(call) else x.new_empty(0, dtype=torch.uint8)


@_pool.register_fake
def _(x: torch.Tensor, where: torch.Tensor | None, text: str, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
    layout, op = format_of(x), decoded(text)[0]
    shape = _output_shape(text, x.shape)
    y = _empty(shape, layout, op.result_dtype(dtype_name(x)), x)
    if not keep or not isinstance(op, Selection):
        return y, x.new_empty(0, dtype=torch.uint8)
    call, _ = _plan(text, dtype_name(x), _window_sizes(text, x.shape), layout, where is not None)
    return y, _empty(shape, layout, kept_dtype(call), x)


def _window_sizes(text: str, shape: Sequence[Any]) -> Sequence[int]:
    """Sizes that give the same window: any, if windows slide; of bins and whole axes, the sizes themselves."""
    _, build, arguments, _ = decoded(text)
    sizes = _probe(shape)
    if not _window_slides(build):
        for axis in build(tuple(sizes), *arguments).axes:
            sizes[axis] = int(shape[axis])
    return sizes


def _empty(shape: list[Any], layout: tuple[int, ...], dtype: str, like: torch.Tensor) -> torch.Tensor:
    return torch.empty_permuted(shape, layout, dtype=getattr(torch, dtype), device=like.device)


@torch.library.custom_op("poolwise::pool_backward", mutates_args=(), device_types="cpu")
def _pool_backward(
    g: torch.Tensor,
    kept: torch.Tensor | None,
    where: torch.Tensor | None,
    text: str,
    shape: list[int],
    order: list[int],
) -> torch.Tensor:
    call, kernel = _plan(text, dtype_name(g), shape, tuple(order), where is not None)
    mask = None if where is None else where.expand(shape)
    if not call.op.linear_gradient:
        return cast("torch.Tensor", kernel.backward(g, (kept,) if mask is None else (kept, mask), call)[0])
    return cast("torch.Tensor", kernel.backward(g, kept if kept_dtype(call) else mask, call)[0])


@_pool_backward.register_fake
def _(
    g: torch.Tensor,
    kept: torch.Tensor | None,
    where: torch.Tensor | None,
    text: str,
    shape: list[int],
    order: list[int],
) -> torch.Tensor:
    return _empty(shape, tuple(order), dtype_name(g), g)


@torch.library.custom_op("poolwise::indices", mutates_args=(), device_types="cpu")
def _indices(kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    call, kernel = _plan(text, "float32", shape, format_of(kept), False)  # positions do not depend on dtype and mask
    return kernel.indices(kept, call)


@_indices.register_fake
def _(kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    return _empty(list(kept.shape), format_of(kept), "int64", kept)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, where, ctx.text, _ = inputs
    ctx.shape, ctx.order = list(x.shape), list(format_of(x))
    op = decoded(ctx.text)[0]
    selects = isinstance(op, Selection)
    ctx.save_for_backward(output[1] if selects else None if op.linear_gradient else x, None if selects else where)


def _differentiate(ctx: Any, g: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None, None]:
    kept, where = ctx.saved_tensors
    gx = torch.ops.poolwise.pool_backward(g, kept, where, ctx.text, ctx.shape, ctx.order)
    return gx, None, None, None


_pool.register_autograd(_differentiate, setup_context=_save)
