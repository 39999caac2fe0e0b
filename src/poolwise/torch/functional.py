"""Every pooling function of `torch.nn.functional`, and poolwise's further operations in the same style.

What differs from PyTorch, everywhere on purpose:

- Bad arguments are a ValueError or TypeError before any work.
- A window without elements has a gradient (none) instead of aborting.
- `lp_pool` is the norm (Σ|x|^p)^(1/p), p ≥ 1. PyTorch's sums signed powers, which is NaN for an odd p and a negative
  sum, and scales a window that reaches over the edge up.
- `max_unpool` refuses every index outside; where indices repeat, the last wins, and only it has a gradient.
- Results lie in the order of axes in which their input lies, of a transposed one too, where PyTorch's maximum is
  contiguous: what follows may need `reshape` for `view`. Of +0 and −0, which are equal, either may be the maximum.
- The input may be changed in place before a gradient is taken, which PyTorch's maximum refuses: ours keeps offsets, not
  the input. Do not count on it where the input has at most 256 elements: PyTorch's own operation records some of those.
- The dtype is kept under autocast, of 3-D poolings on the CPU too, whose results PyTorch makes float32 there.
- Large calls run on PyTorch's threads where they are there, NumPy's too. As after PyTorch's own, a process forked from
  one that made such a call must not use them (`torch.set_num_threads(1)`, as data loaders do), or be spawned.
- `fractional_max_pool` places windows in float32 at least, where PyTorch computes places in half precision.

>>> import torch
>>> x = torch.tensor([[[[1.0, 3.0], [2.0, 4.0]]]])
>>> max_pool2d(x, 2).item(), avg_pool2d(x, 2).item()
(4.0, 2.5)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from poolwise.api import apart, named, pooled
from poolwise.compose import COMPOSITIONS, Composition
from poolwise.compose.fractional import fractional_pool, output_sizes
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.geometry import Geometry, PaddingMode
from poolwise.op import Operation, checked_number
from poolwise.ops import OPERATIONS, Lp, Max, Mean
from poolwise.torch._operator import builder
from poolwise.torch._quick import Quick
from poolwise.torch._symbolic import Proxy, recordable, recorded
from poolwise.unpool import max_unpool

RANKS = (1, 2, 3)
WORDS = {"x": "input", "window": "kernel_size"}  # what PyTorch calls an argument
_MAX = Max()
_MEAN_OF_TAPS = Mean(count_include_pad=True, rounding="truncate")
_MEAN_OF_ELEMENTS = Mean(rounding="truncate")
Sizes = int | Sequence[int]


@builder
def torch_windows(
    shape: tuple[int, ...],
    rank: int,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    padding_mode: PaddingMode = "absent",
) -> Geometry:
    """Sliding windows by PyTorch's rules: the last `rank` axes of a batched or unbatched input."""
    axes = _last(shape, rank)
    window, step = _spread(kernel_size, rank), None if stride is None else _spread(stride, rank)
    step = None if isinstance(step, tuple) and not step else step
    try:
        geometry = Geometry.of(
            shape,
            axes,
            window=window,
            stride=step,
            padding=_both_sides(padding, rank),
            dilation=_spread(dilation, rank),
            ceil_mode=ceil_mode,
            padding_mode=padding_mode,
        )
    except Fault as fault:  # what PyTorch calls a window
        raise type(fault)(re.sub("^window ", "kernel_size ", fault.fact), fault.function) from None
    for table in geometry.tables:
        if 2 * table.low > table.taps:
            raise InvalidValue(f"padding must be at most half of kernel_size {kernel_size}, got {padding}")
    return geometry


@builder
def torch_bins(shape: tuple[int, ...], rank: int, output_size: int | Sequence[int | None] | None) -> Geometry:
    """Adaptive bins by PyTorch's rules; None keeps an axis's size."""
    axes = _last(shape, rank)
    sizes = _spread(output_size, rank)
    wanted = sizes if isinstance(sizes, Sequence) else (sizes,) * rank
    if len(wanted) != rank:
        raise InvalidValue(f"output_size must be an int or {rank} entries, got {output_size!r}")
    kept = tuple(shape[axis] if size is None else size for axis, size in zip(axes, wanted, strict=True))
    return Geometry.adaptive(shape, axes, output_size=kept)


def _shape(input: Any) -> tuple[int, ...]:
    if not isinstance(input, torch.Tensor):
        raise InvalidType(f"input must be a tensor, got {type(input).__name__}")
    return tuple(input.shape)


def _last(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    ndim = len(shape)
    if ndim not in (rank + 1, rank + 2):
        raise InvalidValue(f"input must have {rank + 1} or {rank + 2} axes, got shape {shape}")
    if 0 in shape[ndim - rank - 1 :]:
        raise InvalidValue(f"input must have at least 1 element on every axis but the batch, got shape {shape}")
    return tuple(range(ndim - rank, ndim))


def _spread(value: Any, rank: int) -> Any:
    """PyTorch lets one entry stand for all axes."""
    return tuple(value) * rank if isinstance(value, Sequence) and len(value) == 1 else value


def _both_sides(padding: Any, rank: int) -> Any:
    """PyTorch pads both sides of an axis alike, by numbers only."""
    given = _spread(padding, rank)
    if isinstance(given, str) or (isinstance(given, Sequence) and any(isinstance(each, Sequence) for each in given)):
        raise InvalidType(f"padding must be an int or {rank} ints, got {padding!r}")
    return given


def _frozen(value: Any) -> Any:
    return tuple(value) if type(value) in (list, torch.Size) else value


def _mean(count_include_pad: bool, divisor_override: int | None) -> Mean:
    if not isinstance(count_include_pad, bool):
        raise InvalidType(f"count_include_pad must be True or False, got {count_include_pad!r}")
    if divisor_override is None:
        return _MEAN_OF_TAPS if count_include_pad else _MEAN_OF_ELEMENTS
    if not isinstance(divisor_override, int):
        raise InvalidType(f"divisor_override must be an int, got {divisor_override!r}")
    checked_number("divisor_override", divisor_override, least=1)
    return Mean(count_include_pad=count_include_pad, divisor=divisor_override, rounding="truncate")


def _served(
    quick: Quick,
    name: str,
    input: Any,
    given: tuple[Any, ...],
    op: Operation,
    build: Callable[..., Geometry],
    arguments: tuple[Any, ...],
    return_indices: bool = False,
) -> Any:
    """A call that was not known, by the long way; known from now on."""
    if isinstance(input, Proxy):
        return recorded(quick.function, input, *given)
    y = pooled(name, input, op, build, arguments, None, None, return_indices=return_indices)
    quick.learn(input, given, op, build, arguments, return_indices)
    return y


def _max_pool(rank: int) -> Callable[..., Any]:
    name, quick = f"max_pool{rank}d", Quick()
    find = quick.find

    def function(
        input: Any,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        y = find(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        if y is not None:
            return y
        given = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        arguments = (rank, _frozen(kernel_size), _frozen(stride), _frozen(padding), _frozen(dilation), ceil_mode)
        return _served(quick, name, input, given, _MAX, torch_windows, arguments, return_indices)

    return _dressed(function, name, f"Max over sliding windows, as `torch.nn.functional.{name}`.", quick)


def _avg_pool(rank: int) -> Callable[..., Any]:
    name, quick = f"avg_pool{rank}d", Quick()
    find = quick.find

    def function(
        input: Any,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        y = find(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        if y is not None:
            return y
        given = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        arguments = (rank, _frozen(kernel_size), _frozen(stride), _frozen(padding), 1, ceil_mode)
        try:
            op = _mean(count_include_pad, divisor_override)
        except Fault as fault:
            raise fault.within(name) from None
        return _served(quick, name, input, given, op, torch_windows, arguments)

    return _dressed(function, name, f"Mean over sliding windows, as `torch.nn.functional.{name}`.", quick)


def _adaptive_max_pool(rank: int) -> Callable[..., Any]:
    name, quick = f"adaptive_max_pool{rank}d", Quick()

    def function(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        given = (output_size, return_indices)
        y = quick.find(input, *given)
        if y is not None:
            return y
        return _served(quick, name, input, given, _MAX, torch_bins, (rank, _frozen(output_size)), return_indices)

    return _dressed(function, name, f"Max over adaptive bins, as `torch.nn.functional.{name}`.", quick)


def _adaptive_avg_pool(rank: int) -> Callable[..., Any]:
    name, quick = f"adaptive_avg_pool{rank}d", Quick()

    def function(input: Any, output_size: Any) -> Any:
        y = quick.find(input, output_size)
        if y is not None:
            return y
        return _served(quick, name, input, (output_size,), _MEAN_OF_ELEMENTS, torch_bins, (rank, _frozen(output_size)))

    return _dressed(function, name, f"Mean over adaptive bins, as `torch.nn.functional.{name}`.", quick)


def _lp_pool(rank: int) -> Callable[..., Any]:
    name = f"lp_pool{rank}d"

    def function(
        input: Any, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> Any:
        arguments = (rank, _frozen(kernel_size), _frozen(stride), 0, 1, ceil_mode)
        op = named(name, Lp, {"p": norm_type})
        return pooled(name, input, op, torch_windows, arguments, None, None)

    return _dressed(function, name, f"The p-norm of sliding windows, in place of `torch.nn.functional.{name}`.")


def _fractional_max_pool(rank: int) -> Callable[..., Any]:
    name, each = f"fractional_max_pool{rank}d", (None,) * rank  # the compiler would make a bare number symbolic

    def function(
        input: Any,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: torch.Tensor | None = None,
    ) -> Any:
        rank = len(each)
        try:
            axes = _last(_shape(input), rank)
            sizes = _fractional_sizes([input.shape[axis] for axis in axes], output_size, output_ratio)
            draws = _samples(input, rank, _random_samples)
            return fractional_pool(
                input, _MAX, _spread(kernel_size, rank), sizes, draws=draws, axes=axes, return_indices=return_indices
            )
        except Fault as fault:
            raise fault.said_by(name) from None

    return _dressed(function, name, f"Max over windows at random places, as `torch.nn.functional.{name}`.")


def _fractional_sizes(sizes: Sequence[int], output_size: Any, output_ratio: Any) -> Any:
    return output_sizes(sizes, _spread(output_size, len(sizes)), _spread(output_ratio, len(sizes)))


def _samples(input: torch.Tensor, rank: int, samples: torch.Tensor | None) -> torch.Tensor:
    """PyTorch's draws, (batch, channels, axes): of two axes the last comes first."""
    planes = tuple(input.shape[: input.ndim - rank])
    expected = planes if len(planes) > 1 else (1, *planes)
    if samples is None:
        samples = torch.rand(*expected, rank, dtype=input.dtype, device=input.device)
    elif not isinstance(samples, torch.Tensor):
        raise InvalidType(f"_random_samples must be a tensor, got {type(samples).__name__}")
    elif tuple(samples.shape) != (*expected, rank):
        raise InvalidValue(f"_random_samples must have the shape {(*expected, rank)}, got {tuple(samples.shape)}")
    elif samples.dtype != input.dtype:
        raise InvalidType(f"_random_samples must be {input.dtype}, as input is, got {samples.dtype}")
    return (samples.flip(-1) if rank == 2 else samples).reshape(*planes, rank)


def _max_unpool(rank: int) -> Callable[..., Any]:
    name, each = f"max_unpool{rank}d", (None,) * rank

    def function(
        input: Any,
        indices: Any,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        output_size: Sequence[int] | None = None,
    ) -> Any:
        rank = len(each)
        try:
            axes = _last(_shape(input), rank)
            step = None if stride is None else _spread(stride, rank)
            size = output_size if output_size is None or len(output_size) == rank else output_size[-rank:]
            if isinstance(indices, torch.Tensor) and indices.dtype != torch.int64:
                raise InvalidType(f"indices must be torch.int64, got {indices.dtype}")
            pads = _both_sides(padding, rank)
            window = _spread(kernel_size, rank)
            return max_unpool(input, indices, window, stride=step, padding=pads, axes=axes, output_size=size)
        except Fault as fault:
            raise fault.said_by(name) from None

    return _dressed(function, name, f"Each maximum back to where it stood, as `torch.nn.functional.{name}`.")


def _with_indices(function: Callable[..., Any]) -> Callable[..., Any]:
    """`max_pool2d_with_indices` and its like: the indices always come along."""
    name, signature = f"{function.__name__}_with_indices", inspect.signature(function)
    before = list(signature.parameters).index("return_indices")

    def both(*arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > before:
            arguments, keywords = (), signature.bind(*arguments, **keywords).arguments
        return function(*arguments, **{**keywords, "return_indices": True})

    cast("Any", both).__signature__ = signature
    return _dressed(both, name, f"`{function.__name__}` that always returns the indices too.")


def operation_pool(kind: type[Operation], rank: int) -> Callable[..., Any]:
    """The function of an operation that PyTorch lacks, in the style of those that it has."""
    name, quick, plain = f"{kind.stems[0]}_pool{rank}d", Quick(), not kind.arrays

    def function(
        input: Any,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        padding_mode: PaddingMode = "absent",
        **parameters: Any,
    ) -> Any:
        given = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        usual = plain and not parameters and padding_mode == "absent"
        y = quick.find(input, *given) if usual else None
        if y is not None:
            return y
        if any(isinstance(value, Proxy) for value in (input, *parameters.values())):
            return recorded(quick.function, input, *given, padding_mode=padding_mode, **parameters)
        arguments = (rank, *map(_frozen, (kernel_size, stride, padding, dilation)), ceil_mode, padding_mode)
        op, operands = apart(name, kind, parameters)
        if not usual:
            return pooled(
                name, input, op, torch_windows, arguments, None, None, operands, return_indices=return_indices
            )
        return _served(quick, name, input, given, op, torch_windows, arguments, return_indices)

    others = f"The other arguments are `max_pool{rank}d`'s; padding_mode is `poolwise.pool`'s."
    return _dressed(function, name, f"{(kind.__doc__ or '').strip()}\n\n{others}", quick)


def name_of(composition: Composition, rank: int | None) -> str:
    """The name of a composition's function."""
    return f"{composition.function.__name__}{'' if rank is None else f'{rank}d'}"


def composed_pool(composition: Composition, rank: int | None) -> Callable[..., Any]:
    """The function of a composition over the last `rank` axes, or over all but batch and channels."""
    name, arrays = name_of(composition, rank), composition.inputs

    def function(*arguments: Any, **keywords: Any) -> Any:
        given = composition.given(name, WORDS, arguments[arrays:], keywords)
        return composed(composition, name, rank, arguments[:arrays], given)

    cast("Any", function).__signature__ = inspect.Signature(
        [
            *list(inspect.signature(composition.function).parameters.values())[:arrays],
            *(each.replace(name=WORDS.get(each.name, each.name)) for each in composition.arguments),
        ]
    )
    return _dressed(function, name, f"{(composition.function.__doc__ or '').strip()}")


def composed(
    composition: Composition, name: str, rank: int | None, arrays: Sequence[Any], arguments: dict[str, Any]
) -> Any:
    """A composition's result, by PyTorch's order of axes; its faults in PyTorch's words."""
    if len(arrays) < composition.inputs or not all(isinstance(array, torch.Tensor) for array in arrays):
        raise InvalidType(f"input must be {composition.inputs} tensors, got {tuple(map(type, arrays))}", name)
    shape = tuple(arrays[0].shape)
    try:
        axes = _last(shape, rank) if rank is not None else _behind_channels(shape)
    except Fault as fault:
        raise fault.within(name) from None
    spread = {key: _spread(value, len(axes)) if key == "window" else value for key, value in arguments.items()}
    channels = {"channel_axis": axes[0] - 1} if composition.over_channels else {}
    return composition.run(name, WORDS, arrays, {**spread, "axes": axes, **channels})


def _behind_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3:
        raise InvalidValue(f"input must have at least 3 axes, got shape {shape}")
    return tuple(range(2, len(shape)))


def _dressed(function: Callable[..., Any], name: str, doc: str, quick: Quick | None = None) -> Callable[..., Any]:
    """The function under its name; one that knows calls records them itself."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    if quick is None:
        return recordable(function)
    quick.function = function
    return function


max_pool1d, max_pool2d, max_pool3d = map(_max_pool, RANKS)
avg_pool1d, avg_pool2d, avg_pool3d = map(_avg_pool, RANKS)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = map(_adaptive_max_pool, RANKS)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = map(_adaptive_avg_pool, RANKS)

lp_pool1d, lp_pool2d, lp_pool3d = map(_lp_pool, RANKS)
max_unpool1d, max_unpool2d, max_unpool3d = map(_max_unpool, RANKS)
fractional_max_pool2d, fractional_max_pool3d = map(_fractional_max_pool, RANKS[1:])

_stock = {name for name in globals() if re.fullmatch(r"[a-z]\w*pool[123]d", name)}
_indexed = {f"{name}_with_indices": _with_indices(globals()[name]) for name in _stock if re.search("max_pool", name)}
globals().update(_indexed)
_new = {
    f"{kind.stems[0]}_pool{rank}d": operation_pool(kind, rank)
    for kind in OPERATIONS
    for rank in RANKS
    if f"{kind.stems[0]}_pool{rank}d" not in _stock
}
globals().update(_new)
_composed = {
    name_of(each, rank): composed_pool(each, rank)
    for each in COMPOSITIONS
    for rank in (RANKS if each.ranked else (None,))
    if each.torch is not None
}
globals().update(_composed)

__all__ = sorted(_stock | set(_new) | set(_indexed) | set(_composed))  # pyright: ignore[reportUnsupportedDunderAll]
