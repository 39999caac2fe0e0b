"""The PyTorch door, and the bridge between the kernels and PyTorch's autograd in eager mode."""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch.autograd import forward_ad

from poolwise.call import Call, Kernel
from poolwise.doors import NUMPY, Build, Facts, check_mask_shape, checked_seed
from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Geometry
from poolwise.kernels.gathered import Gathered
from poolwise.op import DTYPES, Array, Operation, Selection
from poolwise.torch._framework import FORMS, TORCH, dtype_name, layout_of
from poolwise.torch._operator import traced

GATHERED = Gathered()
batched_by_autograd = cast("Any", torch._C)._functorch.is_legacy_batchedtensor  # is_grads_batched, vectorized Jacobians
watched = cast("Any", torch._C)._len_torch_dispatch_stack  # by modes that record operations, or have no numbers
_transforms_active = torch._C._are_functorch_transforms_active
_profiled = cast("Any", torch._C)._autograd._profiler_enabled


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
        device = x.device.type
        if type(x) not in FORMS or (
            not torch.compiler.is_compiling() and watched()
        ):  # such tensors may have no memory of their own
            device += f" ({'recorded' if type(x) in FORMS else type(x).__name__})"
        return Facts(tuple(x.shape), name, layout_of(x), device)

    def mask(self, where: Any, x: torch.Tensor) -> torch.Tensor:
        mask = _as_mask(where, x)
        if mask.dtype is not torch.bool:
            raise InvalidType(f"where must be boolean, got {mask.dtype}")
        check_mask_shape(mask.shape, x.shape)
        return mask

    def operand(self, name: str, value: Any, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            value = torch.as_tensor(NUMPY.operand(name, value, value), device=x.device)
        if value.layout is not torch.strided or value.is_nested or not value.is_floating_point():
            raise InvalidType(f"{name} must be a dense tensor of floats, got {value.dtype}, layout {value.layout}")
        if value.device != x.device:
            raise InvalidValue(f"{name} must be on {x.device}, as x is, got a tensor on {value.device}")
        return value

    def number(self, array: torch.Tensor) -> float | None:
        known = array.numel() == 1 and self.facts(array).device == "cpu"
        return float(array) if known and not self.keeps(array) else None

    def drawn(self, shape: tuple[int, ...], seed: Any, x: torch.Tensor) -> torch.Tensor:
        if seed is not None and self.tracing():
            raise InvalidValue(f"seed must be None where PyTorch records operations, got {seed!r}")
        if not isinstance(seed, torch.Generator) and (number := checked_seed(seed)) is not None:
            seed = torch.Generator(x.device).manual_seed(number)
        return torch.rand(shape, generator=seed, device=x.device if seed is None else seed.device).to(x.device)

    def keeps(self, x: torch.Tensor) -> bool:
        return (x.requires_grad and torch.is_grad_enabled()) or _transforms_active() or forward_ad._current_level >= 0

    def run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        if _profiled():
            with torch.profiler.record_function(f"poolwise::{call.op.name}_pool ({kernel.name})"):
                return self._run(kernel, operands, call)
        return self._run(kernel, operands, call)

    def _run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        if not call.keep or kernel.traced:
            return kernel.forward(operands, call)
        if not call.op.linear_gradient:
            return _run_of_input(kernel, operands, call)
        bridge = _Forward if _transforms_active() else _Eager
        return bridge.apply(call, kernel, *(TORCH.spread(operand, call.geometry.shape) for operand in operands))

    def indices(self, kernel: Any, kept: Any, call: Call) -> Array:
        if kernel.traced or not _transforms_active():
            return kernel.indices(kept, call)
        return kernel.winners(kept, call)

    def tracing(self) -> bool:
        return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None

    def trace(
        self,
        operands: Sequence[Array],
        names: tuple[str, ...],
        op: Operation,
        build: Build,
        arguments: tuple[Any, ...],
        kernel: str | None,
        return_indices: bool,
    ) -> Any:
        return traced(operands, names, op, build, arguments, kernel, return_indices, keep=self.keeps(operands[0]))


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
        gx = backward_of(g, _kept(ctx), ctx.call, ctx.kernel)
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


def _run_of_input(kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
    """Of a gradient that depends on the input more than `kept` could say, transforms see PyTorch's own operations."""
    if _transforms_active() or forward_ad._current_level >= 0 or any(each.is_inference() for each in operands):
        return GATHERED.forward(operands, call)
    return cast("torch.Tensor", _OfInput.apply(call, kernel, *operands)), None


class _OfInput(torch.autograd.Function):
    """A kernel that keeps its operands; where its gradient is differentiated, that is of PyTorch's own operations."""

    @staticmethod
    def forward(ctx: Any, call: Call, kernel: Kernel, *operands: torch.Tensor) -> torch.Tensor:
        ctx.call, ctx.kernel = call, kernel
        ctx.save_for_backward(*operands)
        return kernel.forward(operands, call)[0]

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        operands = ctx.saved_tensors
        if not torch.is_grad_enabled() and not _transforms_active() and not batched_by_autograd(g):
            return None, None, *ctx.kernel.backward(g, operands, ctx.call)
        with torch.enable_grad():
            operands = [x.view_as(x) for x in operands]  # one tensor may be several of them
            y, _ = GATHERED.forward(operands, ctx.call)
        wanted = [x for x, needed in zip(operands, ctx.needs_input_grad[2:], strict=True) if needed]
        found = iter(torch.autograd.grad(y, wanted, g, create_graph=torch.is_grad_enabled()))
        return None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:])


def backward_of(g: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Kernel) -> torch.Tensor | None:
    """The gradient; where it may be differentiated again, in a form that can be."""
    if batched_by_autograd(g):
        return _transposed(g, kept, call, kernel)
    if torch.is_grad_enabled() or _transforms_active():
        return cast("torch.Tensor", _Backward.apply(g, kept, call, kernel))
    return kernel.backward(g, kept, call)[0]


def _transposed(g: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Any) -> torch.Tensor:
    """The gradient by PyTorch's own operations, for one that has no memory of its own."""
    with torch.enable_grad():
        x = torch.zeros(call.geometry.shape, dtype=g.dtype, device=g.device, requires_grad=True)
        if isinstance(call.op, Selection):
            y = _picked(x, kernel.winners(kept, call), call)
        else:
            y, _ = GATHERED.forward((x,) if kept is None else (x, kept), call)
    return torch.autograd.grad(y, x, g, create_graph=torch.is_grad_enabled())[0]


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
        return cast("torch.Tensor", backward_of(tangent, _kept(ctx), ctx.call, ctx.kernel))

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
    saved = ctx.saved_tensors  # asked for once: checkpointing computes it again at every asking
    return saved[0] if saved else None


def _pushed(tangent: torch.Tensor, kept: torch.Tensor | None, call: Call, kernel: Any) -> torch.Tensor:
    """The derivative of forward along a tangent; linear, and the transpose of backward."""
    if isinstance(call.op, Selection):
        return _picked(tangent, kernel.winners(kept, call), call)
    if batched_by_autograd(tangent):
        g = torch.zeros(call.geometry.output_shape, dtype=tangent.dtype, device=tangent.device, requires_grad=True)
        with torch.enable_grad():
            gx = _transposed(g, kept, call, kernel)
        return torch.autograd.grad(gx, g, tangent, create_graph=torch.is_grad_enabled())[0]
    return _Forward.apply(call, kernel, tangent, *(() if kept is None else (kept,)))[0]  # a sum keeps its mask alone


def _picked(x: torch.Tensor, index: torch.Tensor, call: Call) -> torch.Tensor:
    """x at flat positions over the pooled axes, 0 where the position is −1."""
    axes, rank = call.geometry.axes, len(call.geometry.axes)
    last = tuple(range(-rank, 0))
    flat, values = (array.movedim(axes, last) for array in (index, x))
    places, sizes = flat.shape, [*values.shape[:-rank], math.prod(values.shape[-rank:])]
    flat = flat.flatten(-rank)
    picked = values.reshape(sizes).gather(-1, flat.clamp(min=0))  # `flatten` has no rule for autograd's own batches
    return torch.where(flat < 0, 0, picked).reshape(places).movedim(last, axes)


@lru_cache(maxsize=1024)
def _batched(call: Call, size: int) -> Call:
    """The same call with a batch axis in front."""
    geometry = Geometry(
        (size, *call.geometry.shape), tuple(axis + 1 for axis in call.geometry.axes), call.geometry.tables
    )
    return replace(call, geometry=geometry, layout=(0, *(axis + 1 for axis in call.layout)))


def _at_front(x: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
