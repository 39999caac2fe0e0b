"""The array API's names for PyTorch's functions, and what operations ask for beside them."""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from typing import Any

import array_api_compat.torch as names
import numpy as np
import torch

globals().update({name: getattr(names, name) for name in names.__all__ if name != "classes"})


def concat(arrays: list[torch.Tensor], *, axis: int = 0) -> torch.Tensor:
    """As in the array API, in the arrays' dtype under autocast too, which refuses a half that is not its own."""
    device = arrays[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return torch.cat(arrays, axis)
    with torch.autocast(device, enabled=False):
        return torch.cat(arrays, axis)


def sort(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """As in the array API, ascending, equal ones in their order; the exporter to ONNX knows no sort that says so."""
    return (torch.sort(x, axis) if torch.onnx.is_in_onnx_export() else torch.sort(x, dim=axis, stable=True)).values


def take_along_axis(x: torch.Tensor, indices: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """As in the array API, for indices that broadcast against x; PyTorch's own would fix symbolic sizes."""
    sizes = list(x.shape)
    sizes[axis] = indices.shape[axis]
    return x.gather(axis, indices.expand(sizes))


def unstack(x: torch.Tensor, *, axis: int = 0) -> tuple[torch.Tensor, ...]:
    """As in the array API, by an operation that transforms know."""
    return x.unbind(axis)


def stop_gradient(x: torch.Tensor) -> torch.Tensor:
    """The values, of which no gradient is taken."""
    return x.detach()


def at_least(x: torch.Tensor, least: float) -> torch.Tensor:
    """What is below raised to `least`, by an operation whose gradient has no branch either."""
    kind = np.float64 if x.dtype is torch.float64 else np.float32
    return torch.nn.functional.threshold(x, np.nextafter(kind(least), kind(0)).item(), least)


def first_true(mask: torch.Tensor) -> torch.Tensor:
    """Position of the first True on the last axis, −1 where there is none: by the largest rank, without a branch."""
    best = (mask * _ranks(mask)).amax(-1).to(torch.int64)
    return torch.where(best > 0, mask.shape[-1] - best, -1)


def _ranks(mask: torch.Tensor) -> torch.Tensor:
    """As many as there are taps, and one less from each to the next."""
    taps = mask.shape[-1]
    return torch.arange(taps, 0, -1, device=mask.device, dtype=torch.int8 if taps < 128 else torch.int32)


def largest(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The largest on the last axis; its gradient goes to the first of equal ones, of NaN to the last."""
    return _Largest.apply(values, present)


class _Largest(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return values.amax(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _won(*ctx.saved_tensors) * g.unsqueeze(-1), None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: None) -> torch.Tensor:
        return (_won(*ctx.saved_tensors) * tangent).sum(-1)


def _won(values: torch.Tensor, present: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """1 for the winner of each window, else 0: by the largest rank, without a branch or an index."""
    top, ranks = top.unsqueeze(-1), _ranks(values)
    ranks = torch.where(top.isnan(), ranks.flip(0), ranks)
    rank = (((values == top) | values.isnan()) & present) * ranks
    best = rank.amax(-1, keepdim=True)
    return (rank == best.clamp(min=1)).to(values.dtype)
