"""Max unpooling of tensors: the compiled module in eager mode on the CPU, PyTorch's own operations everywhere else."""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from math import prod
from typing import Any

import torch

from poolwise import unpool
from poolwise.errors import InvalidType, InvalidValue
from poolwise.torch._bridge import batched_by_autograd
from poolwise.torch._framework import dtype_name

Sizes = tuple[int, ...]
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def unpooled(y: torch.Tensor, indices: Any, axes: Sizes, shape: Sizes) -> torch.Tensor:
    """y's elements at their indices, zeros elsewhere; where indices repeat, the last wins."""
    if not isinstance(indices, torch.Tensor):
        raise InvalidType(f"indices must be a tensor, as y is, got {type(indices).__name__}")
    if indices.device != y.device:
        raise InvalidValue(f"indices must be on y's device {y.device}, got {indices.device}")
    unpool.check_indices(dtype_name(indices), tuple(indices.shape), tuple(y.shape))
    places = indices.to(torch.int64)
    if y.device.type == "cpu" and _eager(y) and _eager(indices):
        return _Unpool.apply(y, places, axes, shape)
    return _composed(y, places, axes, shape)


def _eager(x: torch.Tensor) -> bool:
    """Whether the tensor has memory to read, which a traced, fake or transformed one has not."""
    return type(x) in (torch.Tensor, torch.nn.Parameter) and not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


class _Unpool(torch.autograd.Function):
    """Linear in y; derivatives of any further order are those of `_composed`."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, indices: torch.Tensor, axes: Sizes, shape: Sizes) -> torch.Tensor:
        ctx.axes, ctx.shape = axes, shape
        ctx.save_for_backward(indices)
        ctx.save_for_forward(indices)
        x = unpool.scattered(_memory(y), indices.numpy(), axes, shape)
        return torch.from_numpy(x).view(y.dtype)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (indices,) = ctx.saved_tensors
        if torch.is_grad_enabled() or batched_by_autograd(g) or not _eager(g):
            return _picked(g, indices, ctx.axes), None, None, None
        gy = unpool.picked(_memory(g), indices.numpy(), ctx.axes)
        return torch.from_numpy(gy).view(g.dtype), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> torch.Tensor:
        return _composed(tangent, ctx.saved_tensors[0], ctx.axes, ctx.shape)


def _memory(x: torch.Tensor) -> Any:
    return x.detach().resolve_neg().view(BITS[x.element_size()]).numpy()


def _composed(y: torch.Tensor, indices: torch.Tensor, axes: Sizes, shape: Sizes) -> torch.Tensor:
    """Each position takes the last element that names it: deterministic on every device, and differentiable."""
    values, places = _planes(y, axes), _planes(indices, axes)
    sizes = [shape[axis] for axis in axes]
    winner = _winner(places, prod(sizes))
    x = torch.where(winner < 0, 0, values.gather(-1, winner.clamp(min=0)))
    last = tuple(range(x.ndim - 1, x.ndim - 1 + len(axes)))
    return x.unflatten(-1, sizes).movedim(last, axes)


def _picked(g: torch.Tensor, indices: torch.Tensor, axes: Sizes) -> torch.Tensor:
    """The transpose of `_composed`."""
    flowing, places = _planes(g, axes), _planes(indices, axes)
    winner = _winner(places, flowing.shape[-1])
    itself = torch.arange(places.shape[-1], device=places.device)
    gy = torch.where(winner.gather(-1, places) == itself, flowing.gather(-1, places), 0)
    last = tuple(range(gy.ndim - 1, gy.ndim - 1 + len(axes)))
    return gy.reshape(*gy.shape[:-1], *(indices.shape[axis] for axis in axes)).movedim(last, axes)


def _winner(places: torch.Tensor, positions: int) -> torch.Tensor:
    """The number of the last element that names each position, −1 where none does."""
    nobody = places.new_full((*places.shape[:-1], positions), -1)
    numbers = torch.arange(places.shape[-1], device=places.device).expand(places.shape)
    return nobody.scatter_reduce(-1, places, numbers, "amax")


def _planes(x: torch.Tensor, axes: Sizes) -> torch.Tensor:
    """Batch axes first, then the pooled ones as one."""
    moved = x.movedim(axes, tuple(range(-len(axes), 0)))
    batch, pooled = moved.shape[: -len(axes)], moved.shape[-len(axes) :]
    return moved.reshape(*batch, prod(pooled))  # gradients that autograd batches cannot be flattened
