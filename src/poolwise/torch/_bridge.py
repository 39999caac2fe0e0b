"""The one bridge between the kernels and PyTorch's autograd, compiler and exporters.

Three ways in, because no single one passes: an `autograd.Function` in eager mode, a registered operator under the
compiler, PyTorch's own operations under the ONNX exporter.
"""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from ast import literal_eval
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch.autograd import forward_ad

from poolwise.api import planned, sliding
from poolwise.call import INPUT, WHERE, Call, Kernel
from poolwise.doors import Build, Facts, check_mask_shape
from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Geometry
from poolwise.kernels.native import BODIES, kept_dtype
from poolwise.op import DTYPES, FLOATS, Array, Operation, Selection
from poolwise.ops import OPERATIONS
from poolwise.torch._framework import FORMS, ONNX, TORCH, dtype_name, layout_of

_transforms_active = torch._C._are_functorch_transforms_active
OPERATORS = {kind.name: kind for kind in OPERATIONS}


class TorchDoor:
    """PyTorch's tensors enter and leave here."""

    framework = TORCH

    def facts(self, x: torch.Tensor) -> Facts:
        if x.layout is not torch.strided or x.is_nested:
            raise InvalidType(f"x must be a dense tensor, got layout {x.layout}")
        if x.is_quantized or (name := dtype_name(x)) not in DTYPES:
            raise InvalidType(f"x must have one of the dtypes {', '.join(DTYPES)}, got {x.dtype}")
        if name == "uint64":
            raise InvalidType("x must not be uint64, with which PyTorch cannot compute, got torch.uint64")
        device = x.device.type if type(x) in FORMS else f"{x.device.type} ({type(x).__name__})"
        return Facts(tuple(x.shape), name, layout_of(x), device)

    def mask(self, where: Any, x: torch.Tensor) -> torch.Tensor:
        mask = _as_mask(where, x)
        if mask.dtype is not torch.bool:
            raise InvalidType(f"where must be boolean, got {mask.dtype}")
        check_mask_shape(mask.shape, x.shape)
        return mask

    def keeps(self, x: torch.Tensor) -> bool:
        return (x.requires_grad and torch.is_grad_enabled()) or _transforms_active() or forward_ad._current_level >= 0

    def run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        if not call.keep or kernel.traced:
            return kernel.forward(operands, call)
        bridge = _Forward if _transforms_active() else _Eager
        return bridge.apply(call, kernel, *(TORCH.spread(operand, call.geometry.shape) for operand in operands))

    def tracing(self) -> bool:
        return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None

    def trace(
        self,
        operands: Sequence[Array],
        op: Operation,
        build: Build,
        arguments: tuple[Any, ...],
        kernel: str | None,
        return_indices: bool,
    ) -> Any:
        request = (operands, op, build, arguments, kernel, return_indices)
        if torch.onnx.is_in_onnx_export() or not torch.compiler.is_compiling():
            return _exported(*request)
        if _serves_compiled(operands, op, build, arguments, kernel):
            return _compiled(*request)
        return cast("Any", _uncompiled)(*request) if torch.compiler.is_dynamo_compiling() else _exported(*request)


def _as_mask(where: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(where, torch.Tensor) and (where.layout is not torch.strided or where.is_nested):
        raise InvalidType(f"where must be a dense tensor, got layout {where.layout}")
    if isinstance(where, torch.Tensor) and where.is_meta and not x.is_meta:
        raise InvalidValue(f"where must hold values, as x on {x.device} does, got a tensor on {where.device}")
    try:
        return torch.as_tensor(where, device=x.device)
    except (RuntimeError, TypeError, ValueError) as cause:
        raise InvalidType(f"where must be a boolean array, got {type(where).__name__} ({cause})") from None


class _Forward(torch.autograd.Function):
    """A kernel's forward; what it keeps is an output, so that every transform of torch.func can carry it."""

    @staticmethod
    def forward(call: Call, kernel: Kernel, *operands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return kernel.forward(operands, call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.call, ctx.kernel, *_ = inputs
        if output[1] is not None:
            ctx.mark_non_differentiable(output[1])
        _remember(ctx, output[1])

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled() or _transforms_active():
            gx = _Backward.apply(g, _kept(ctx), ctx.call, ctx.kernel)
        else:
            gx = ctx.kernel.backward(g, _kept(ctx), ctx.call)[0]
        return None, None, gx, *(None,) * (len(ctx.call.operands) - 1)

    @staticmethod
    def jvp(ctx: Any, _call: None, _kernel: None, tangent: torch.Tensor, *_: None) -> tuple[torch.Tensor, None]:
        return _pushed(tangent, _kept(ctx), ctx.call, ctx.kernel), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: Call, kernel: Kernel, *operands: torch.Tensor
    ) -> tuple[Any, Any]:
        size = info.batch_size
        stacked = (_at_front(x, dim, size) for x, dim in zip(operands, in_dims[2:], strict=True))
        y, kept = _Forward.apply(_batched(call, size), kernel, *stacked)
        return (y, kept), (0, None if kept is None else 0)


class _Eager(torch.autograd.Function):
    """The same outside torch.func's transforms, in the older form, whose call costs a quarter of `_Forward`'s."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, kernel: Kernel, *operands: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        ctx.call, ctx.kernel = call, kernel
        y, kept = kernel.forward(operands, call)
        if kept is not None:
            ctx.mark_non_differentiable(kept)
        _remember(ctx, kept)
        return y, kept

    backward = _Forward.backward  # pyright: ignore[reportAssignmentType]
    jvp = _Forward.jvp  # pyright: ignore[reportAssignmentType]


class _Backward(torch.autograd.Function):
    """A kernel's backward, linear in the gradient."""

    @staticmethod
    def forward(g: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Kernel) -> torch.Tensor:
        return cast("torch.Tensor", kernel.backward(g, kept, call)[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, kept, ctx.call, ctx.kernel = inputs
        _remember(ctx, kept)

    @staticmethod
    def backward(ctx: Any, gg: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _pushed(gg, _kept(ctx), ctx.call, ctx.kernel), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> torch.Tensor:
        return _Backward.apply(tangent, _kept(ctx), ctx.call, ctx.kernel)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], g: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Kernel
    ) -> tuple[torch.Tensor, int]:
        size = info.batch_size
        kept = None if kept is None else _at_front(kept, in_dims[1], size)
        return _Backward.apply(_at_front(g, in_dims[0], size), kept, _batched(call, size), kernel), 0


def _remember(ctx: Any, kept: torch.Tensor | None) -> None:
    if kept is not None:
        ctx.save_for_backward(kept)
        ctx.save_for_forward(kept)


def _kept(ctx: Any) -> torch.Tensor | None:
    return ctx.saved_tensors[0] if ctx.saved_tensors else None


def _pushed(tangent: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Any) -> torch.Tensor:
    """The derivative of forward along a tangent; linear, and the transpose of backward."""
    if isinstance(call.op, Selection):
        return _picked(tangent, kernel.winners(kept, call), call)
    return _Forward.apply(call, kernel, tangent, *(() if kept is None else (kept,)))[0]  # a sum keeps its mask alone


def _picked(x: torch.Tensor, index: torch.Tensor, call: Call) -> torch.Tensor:
    """x at flat positions over the pooled axes, 0 where the position is −1."""
    axes, rank = call.geometry.axes, len(call.geometry.axes)
    last = tuple(range(-rank, 0))
    flat = index.movedim(axes, last).flatten(-rank)
    picked = x.movedim(axes, last).flatten(-rank).gather(-1, flat.clamp(min=0))
    return torch.where(flat < 0, 0, picked).unflatten(-1, call.geometry.outputs).movedim(last, axes)


@lru_cache(maxsize=1024)
def _batched(call: Call, size: int) -> Call:
    """The same call with a batch axis in front."""
    geometry = Geometry(
        (size, *call.geometry.shape), tuple(axis + 1 for axis in call.geometry.axes), call.geometry.tables
    )
    return replace(call, geometry=geometry, layout=(0, *(axis + 1 for axis in call.layout)))


def _at_front(x: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


# Under the ONNX exporter, and where export records plain Python: PyTorch's own operations.


def _exported(
    operands: Sequence[Array],
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    kernel: str | None,
    return_indices: bool,
) -> Any:
    x = operands[0]
    facts = Facts(tuple(map(int, x.shape)), dtype_name(x), tuple(range(x.ndim)), ONNX)
    names = (INPUT, WHERE)[: len(operands)]
    call, choice = planned.__wrapped__(TORCH, facts, op, build, arguments, (), names, kernel, return_indices)
    y, kept = choice.kernel.forward(operands, call)
    return (y, choice.kernel.indices(kept, call)) if return_indices else y


@torch.compiler.disable
def _uncompiled(
    operands: Sequence[Array],
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    kernel: str | None,
    return_indices: bool,
) -> Any:
    """What no registered operator serves yet runs eagerly, between two compiled graphs."""
    door = TorchDoor()
    names = (INPUT, WHERE)[: len(operands)]
    keep = return_indices or door.keeps(operands[0])
    facts = door.facts(operands[0])
    call, choice = planned.__wrapped__(TORCH, facts, op, build, arguments, (), names, kernel, keep)
    y, kept = door.run(choice.kernel, operands, call)
    return (y, choice.kernel.indices(kept, call)) if return_indices else y


# Under the compiler: one registered operator, its backward, and what they make of shapes alone.


def _serves_compiled(
    operands: Sequence[Array], op: Operation, build: Build, arguments: tuple[Any, ...], kernel: str | None
) -> bool:
    x = operands[0]
    return (
        len(operands) == 1
        and kernel in (None, "native")
        and op.name in BODIES
        and x.device.type == "cpu"
        and dtype_name(x) in FLOATS
        and build.__name__ in BUILDERS
    )


def _compiled(
    operands: Sequence[Array],
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    kernel: str | None,
    return_indices: bool,
) -> Any:
    y, kept = torch.ops.poolwise.pool(operands[0], _encoded(op, build, arguments))
    if return_indices:
        return y, torch.ops.poolwise.indices(kept, _encoded(op, build, arguments), list(operands[0].shape))
    return y


BUILDERS: dict[str, Build] = {}


def builder(build: Build) -> Build:
    """Let compiled graphs name this builder of geometries."""
    BUILDERS[build.__name__] = build
    return build


builder(sliding)


def _encoded(op: Operation, build: Build, arguments: tuple[Any, ...]) -> str:
    """A pooling as a string, which a compiled graph can carry and another process can read."""
    parameters = [f"{name}={getattr(op, name)!r}" for name in vars(type(op))["__dataclass_fields__"]]
    return "|".join([op.name, ";".join(parameters), build.__name__, f"{arguments!r}"])


@lru_cache(maxsize=4096)
def _decoded(text: str) -> tuple[Operation, Build, tuple[Any, ...]]:
    try:
        name, parameters, build, arguments = text.split("|")
        pairs = [pair.split("=", 1) for pair in parameters.split(";") if pair]
        op = OPERATORS[name](**{key: literal_eval(value) for key, value in pairs})
        return op, BUILDERS[build], literal_eval(arguments)
    except (KeyError, SyntaxError, TypeError, ValueError):
        raise InvalidValue(f"text must say a pooling as poolwise encodes it, got {text!r}") from None


def _planned_for(dtype: str, text: str, shape: Sequence[int]) -> tuple[Call, Any]:
    op, build, arguments = _decoded(text)
    facts = Facts(tuple(map(int, shape)), dtype, tuple(range(len(shape))), "cpu")
    kinds = tuple(map(type, arguments))
    call, choice = planned(TORCH, facts, op, build, arguments, kinds, (INPUT,), "native", True)
    return call, choice.kernel


@torch.library.custom_op("poolwise::pool", mutates_args=(), device_types="cpu")
def _operator(x: torch.Tensor, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    call, kernel = _planned_for(dtype_name(x), text, x.shape)
    y, kept = kernel.forward((x,), call)
    return y, x.new_empty(0, dtype=torch.uint8) if kept is None else kept


@_operator.register_fake
def _(x: torch.Tensor, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    call, _ = _planned_for(dtype_name(x), text, x.shape)
    kept = kept_dtype(call)
    shape = call.geometry.output_shape
    y = x.new_empty(shape, dtype=getattr(torch, call.result_dtype))
    return y, x.new_empty(shape if kept else 0, dtype=getattr(torch, kept or "uint8"))


@torch.library.custom_op("poolwise::pool_backward", mutates_args=(), device_types="cpu")
def _operator_backward(g: torch.Tensor, kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    call, kernel = _planned_for(dtype_name(g), text, shape)
    return kernel.backward(g, kept if kept.numel() or not g.numel() else None, call)[0]


@_operator_backward.register_fake
def _(g: torch.Tensor, kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    return g.new_empty(shape)


@torch.library.custom_op("poolwise::indices", mutates_args=(), device_types="cpu")
def _operator_indices(kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    call, kernel = _planned_for("float32", text, shape)  # positions do not depend on the input's dtype
    return kernel.indices(kept, call)


@_operator_indices.register_fake
def _(kept: torch.Tensor, text: str, shape: list[int]) -> torch.Tensor:
    return kept.new_empty(kept.shape, dtype=torch.int64)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, ctx.text = inputs
    ctx.shape = list(x.shape)
    ctx.save_for_backward(output[1])


def _differentiate(ctx: Any, g: torch.Tensor, _: Any) -> tuple[torch.Tensor, None]:
    return torch.ops.poolwise.pool_backward(g, ctx.saved_tensors[0], ctx.text, ctx.shape), None


_operator.register_autograd(_differentiate, setup_context=_save)
