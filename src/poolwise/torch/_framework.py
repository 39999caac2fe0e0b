"""PyTorch's tensors, as the kernels see them, and PyTorch's own pooling operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as own

from poolwise.call import Call, memory_order
from poolwise.geometry import Bins, Geometry, Regular, output_size
from poolwise.memory import LARGE, lent
from poolwise.op import DTYPES, Array, Selection
from poolwise.ops.max import Max
from poolwise.ops.mean import Mean
from poolwise.torch import _names

ONNX = "onnx"  # the device of a tensor that the ONNX exporter traces
FORMS = (torch.Tensor, torch.nn.Parameter)
DTYPE = {name: getattr(torch, name) for name in DTYPES}
ITEMSIZE = {name: dtype.itemsize for name, dtype in DTYPE.items()}
DTYPE_NAME = {dtype: name for name, dtype in DTYPE.items()}
PLAIN = [tuple(range(ndim)) for ndim in range(65)]  # PyTorch's tensors have at most 64 axes
LAYOUTS = {torch.channels_last: (0, 2, 3, 1), torch.channels_last_3d: (0, 2, 3, 4, 1)}
OWN_DTYPES = ("float16", "bfloat16", "float32", "float64")
LONGEST_OWN_MEAN = 64  # taps beyond which PyTorch's sequential float32 sum exceeds the promised 4 ulp

MAX = {1: own.max_pool1d, 2: own.max_pool2d, 3: own.max_pool3d}
MAX_ALONE = {2: torch.max_pool2d, 3: torch.max_pool3d}
AVG = {1: own.avg_pool1d, 2: own.avg_pool2d, 3: own.avg_pool3d}
ADAPTIVE_MAX = {1: own.adaptive_max_pool1d, 2: own.adaptive_max_pool2d, 3: own.adaptive_max_pool3d}
ADAPTIVE_AVG = {1: own.adaptive_avg_pool1d, 2: own.adaptive_avg_pool2d, 3: own.adaptive_avg_pool3d}


class TorchFramework:
    """PyTorch's tensors."""

    name = "torch"
    xp = _names

    def empty(self, shape: tuple[int, ...], dtype: str, layout: tuple[int, ...], like: Array) -> Array:
        size = prod(shape) * ITEMSIZE[dtype]
        if size > LARGE and like.is_cpu and like.__class__ in FORMS:
            return _of_lent(size, DTYPE[dtype], shape, dense_strides(shape, layout))
        if layout == PLAIN[len(shape)]:
            return torch.empty(shape, dtype=DTYPE[dtype], device=like.device)
        return torch.empty_permuted(shape, layout, dtype=DTYPE[dtype], device=like.device)

    def constant(self, array: Any, like: Array) -> Array:
        return torch.as_tensor(array, device=like.device)

    def cast(self, array: Array, dtype: str) -> Array:
        return array.to(DTYPE[dtype])

    def dense(self, array: Array, layout: tuple[int, ...]) -> Array:
        array = array.resolve_neg()  # an address does not know of a view that negates
        if layout == PLAIN[len(layout)]:
            return array.contiguous()
        return array.permute(layout).contiguous().permute(_inverse(layout))

    def spread(self, array: Array, shape: tuple[int, ...]) -> Array:
        return array.expand(shape)

    def native_forward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        x, y, kept, mask, *beside = arrays
        if x.is_neg():  # an address does not know of a view that negates
            x = x.resolve_neg()
        addresses = (x.data_ptr(), y.data_ptr(), _address(kept), _address(mask))
        plan.forward_at(*addresses, _strides(x), _strides(mask), torch.get_num_threads(), *map(_address, beside))

    def native_backward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        g, gx, kept, mask, *beside = arrays
        addresses = (g.data_ptr(), gx.data_ptr(), _address(kept), _address(mask))
        plan.backward_at(*addresses, _strides(mask), torch.get_num_threads(), *map(_address, beside))

    def native_indices(self, plan: Any, kept: Array, flat: Array) -> None:
        plan.indices_at(kept.data_ptr(), flat.data_ptr(), torch.get_num_threads())

    def own_refusal(self, call: Call) -> str | None:
        return _own_refusal(call)

    def own(self, operands: Sequence[Array], call: Call) -> tuple[Array, Array | None]:
        x, rank = operands[0], len(call.geometry.axes)
        batched = x if x.ndim == rank + 2 else x.reshape(1, -1, *x.shape[x.ndim - rank :])
        y = _own(batched, call)
        y, indices = y if isinstance(y, tuple) else (y, None)
        if x.ndim != rank + 2:
            shape = (*x.shape[: x.ndim - rank], *call.geometry.outputs)
            y = y.reshape(shape)
            indices = None if indices is None else indices.reshape(shape)
        return y, indices


TORCH = TorchFramework()


def dtype_name(x: torch.Tensor) -> str:
    """The dtype's name, without its package's."""
    return DTYPE_NAME.get(x.dtype) or str(x.dtype)


def layout_of(x: torch.Tensor) -> tuple[int, ...]:
    """The axes in the order in which memory holds them."""
    if x.is_contiguous():
        return PLAIN[x.ndim]
    symbolic = torch.compiler.is_compiling()  # and symbols have no order
    return format_of(x) if symbolic else memory_order(tuple(x.shape), x.stride())


def format_of(x: torch.Tensor) -> tuple[int, ...]:
    """The same where it is one of PyTorch's memory formats; else the axes as they come."""
    if not x.is_contiguous():
        for form, layout in LAYOUTS.items():
            if x.ndim == len(layout) and x.is_contiguous(memory_format=form):
                return layout
    return PLAIN[x.ndim]


def _address(x: torch.Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _strides(x: torch.Tensor | None) -> tuple[int, ...] | None:
    """In bytes."""
    if x is None:
        return None
    size = x.element_size()
    return tuple([stride * size for stride in x.stride()])


def maker(shape: tuple[int, ...], dtype: str, layout: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    """Makes one tensor like the other, dense in this order of its axes, on the CPU; with as little work as can be."""
    size, strides = prod(shape) * ITEMSIZE[dtype], dense_strides(shape, layout)
    if size > LARGE:
        return partial(_of_lent, size, DTYPE[dtype], shape, strides)
    pattern = torch.empty_strided(shape, strides, dtype=DTYPE[dtype], device="cpu")
    pattern.untyped_storage().resize_(0)  # what is made like it has memory of its own
    return partial(torch.empty_like, pattern)


def _of_lent(size: int, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    return torch.as_strided(torch.frombuffer(lent(size), dtype=dtype), shape, strides)


@lru_cache(maxsize=1024)
def dense_strides(shape: tuple[int, ...], layout: tuple[int, ...]) -> tuple[int, ...]:
    """Of a dense tensor whose axes memory has in this order, slowest first."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(layout):
        strides[axis], step = step, step * max(shape[axis], 1)
    return tuple(strides)


def _inverse(layout: tuple[int, ...]) -> list[int]:
    return sorted(range(len(layout)), key=layout.__getitem__)


def _own(x: torch.Tensor, call: Call) -> Any:
    """PyTorch's own operation; `_own_refusal` has found that its arguments can say what the call says."""
    geometry, op = call.geometry, call.op
    rank, outputs = len(geometry.axes), geometry.outputs
    keep = call.keep and isinstance(op, Selection)
    if _is_adaptive(geometry):
        return ADAPTIVE_MAX[rank](x, outputs, keep) if isinstance(op, Max) else ADAPTIVE_AVG[rank](x, list(outputs))
    window, stride, padding, dilation = _numbers(geometry)
    if isinstance(op, Max):
        return MAX[rank](x, window, stride, padding, dilation, _ceil(geometry), keep)
    assert isinstance(op, Mean)
    divisor = () if rank == 1 else (None if op.divisor is None else int(op.divisor),)
    return AVG[rank](x, window, stride, padding, _ceil(geometry), op.count_include_pad, *divisor)


def _numbers(geometry: Geometry) -> tuple[list[int], ...]:
    tables = [table for table in geometry.tables if isinstance(table, Regular)]
    return (
        [table.taps for table in tables],
        [table.step for table in tables],
        [table.low for table in tables],
        [table.dilation for table in tables],
    )


def own_maximum(call: Call) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """PyTorch's own maximum with its arguments prepared, where it gives the same bits, its gradient too; else None.

    Among windows that do not meet nothing is added up, so no bit depends on who finds the maxima (of halves ours makes
    0 of −0). It keeps its input, as ours do not, and has no gradient once that was changed in place. Not along one
    axis, where PyTorch's result is a view, nor in an order of the axes that PyTorch's result would not have.
    """
    tables, rank = call.geometry.tables, len(call.geometry.axes)
    apart = all(isinstance(table, Regular) and table.step > (table.taps - 1) * table.dilation for table in tables)
    if type(call.op) is not Max or call.dtype not in ("float32", "float64") or not apart:
        return None
    if rank == 1 or len(call.geometry.shape) != rank + 2 or _own_refusal(call) is not None:
        return None
    if call.layout != PLAIN[rank + 2] and (rank, call.layout) != (2, (0, 2, 3, 1)):
        return None
    window, stride, padding, dilation = map(_short, _numbers(call.geometry))
    function, ceil = MAX_ALONE[rank], _ceil(call.geometry)
    return lambda x: function(x, window, stride, padding, dilation, ceil)


def _short(numbers: list[int]) -> int | list[int]:
    """One number for several equal ones: PyTorch reads it sooner."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _is_adaptive(geometry: Geometry) -> bool:
    return any(isinstance(table, Bins) for table in geometry.tables)


def _ceil(geometry: Geometry) -> bool:
    return any(_output(table, False) != table.output for table in geometry.tables)


def _output(table: Any, ceil_mode: bool) -> int:
    span = (table.taps - 1) * table.dilation + 1
    return output_size(table.size, table.low, table.high, span, table.step, ceil_mode)


@lru_cache(maxsize=4096)
def _own_refusal(call: Call) -> str | None:
    geometry, op = call.geometry, call.op
    rank, ndim = len(geometry.axes), len(geometry.shape)
    if type(op) not in (Max, Mean):
        return f"PyTorch has no {op.name} pooling"
    if call.masked:
        return "PyTorch's pooling takes no mask"
    if call.dtype not in OWN_DTYPES:
        return f"PyTorch pools {', '.join(OWN_DTYPES)}, and x is {call.dtype}"
    if rank > max(MAX) or geometry.axes != tuple(range(ndim - rank, ndim)):
        return f"PyTorch pools the last 1 to {max(MAX)} axes, and these are {geometry.axes} of {ndim}"
    if call.device.startswith("cpu") and rank == max(AVG) and isinstance(op, Mean) and call.dtype.endswith("float16"):
        return f"PyTorch has no mean of {call.dtype} over three axes on the CPU"
    if isinstance(op, Max) and rank == max(MAX) and call.keep and call.layout != PLAIN[ndim]:
        return "PyTorch loses the index of a −inf that wins in a channels-last volume"
    if 0 in geometry.shape:
        return "PyTorch refuses some empty batches"
    if isinstance(op, Mean) and call.dtype in ("float32", "float64") and prod(geometry.window) > LONGEST_OWN_MEAN:
        return f"PyTorch's mean over {prod(geometry.window)} taps is not as exact as promised"
    return _bins_refusal(call) if _is_adaptive(geometry) else _sliding_refusal(call)


def _bins_refusal(call: Call) -> str | None:
    if call.device == ONNX:
        return "ONNX has no operator for bins of different sizes"
    if isinstance(call.op, Mean) and call.op.divisor is not None:
        return "PyTorch's adaptive mean takes no divisor"
    for table in call.geometry.tables:
        if isinstance(table, Bins):
            if table.rule != "overlapping":
                return f"PyTorch's adaptive bins overlap, and these are {table.rule}"
        elif (
            table.mode != "absent" or table.start or table.taps != table.step or table.taps * table.output != table.size
        ):
            return "PyTorch does not mix adaptive and sliding axes"
    return None


def _sliding_refusal(call: Call) -> str | None:
    geometry, op = call.geometry, call.op
    for table in geometry.tables:
        assert isinstance(table, Regular)
        if table.mode != "absent":
            return f"PyTorch pads with absence, and padding_mode is {table.mode}"
        if table.offset:
            return f"PyTorch's windows start with the padding, and these {table.offset:+d} from there"
        if table.low != table.high or 2 * table.low > table.taps:
            return f"PyTorch pads both sides alike by at most half the window, and this is {table.low}+{table.high}"
        if table.output != _output(table, _ceil(geometry)):
            return "PyTorch rounds every axis up or none"
        if isinstance(op, Mean) and table.dilation != 1:
            return f"PyTorch's mean has no dilation, and this is {table.dilation}"
    if isinstance(op, Mean) and op.divisor is not None and (op.divisor != int(op.divisor) or len(geometry.axes) == 1):
        return f"PyTorch's mean does not divide by {op.divisor} on these axes"
    if geometry.has_empty_windows:
        return "PyTorch aborts in the backward pass of an empty window"
    return None
