"""What `swap` knows by name: other downsampling in the place of a max pool, of the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from poolwise.errors import InvalidValue
from poolwise.ops import Mean
from poolwise.torch.layers import LAYERS, Pool

MAX_POOLS = tuple(getattr(torch.nn, f"MaxPool{rank}d") for rank in (1, 2, 3))  # ours are subclasses


class Subsample(torch.nn.Module):
    """One element of each window, the one before or in its middle, and nothing else: what a strided convolution reads.

    kernel_size, stride, padding, dilation, ceil_mode: of the max pool whose windows they are.
    Shape: (…, *sizes) → (…, *sizes of the max pool's output).
    Source: Springenberg, Dosovitskiy, Brox & Riedmiller, Striving for simplicity, 2015, section 2.

    >>> Subsample(1, 2)(torch.arange(6.0).reshape(1, 1, 6))
    tensor([[[0., 2., 4.]]])
    """

    called = "strided"  # to who watches a model's poolings

    def __init__(
        self,
        rank: int,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = (self.kernel_size, self.stride, self.padding, self.dilation)
        axes = range(x.ndim - self.rank, x.ndim)
        for axis, taps, step, pad, gap in zip(axes, *(_each(value, self.rank) for value in given), strict=True):
            size, span = x.shape[axis], (taps - 1) * gap + 1
            count = _outputs(size, span, step, pad, ceil=self.ceil_mode)
            places = torch.arange(count, device=x.device) * step - pad + (taps - 1) // 2 * gap
            x = x.index_select(axis, places.clamp(0, size - 1))
        return x

    def extra_repr(self) -> str:
        names = ("rank", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def mean(old: Any) -> torch.nn.Module:
    """The mean of the same windows; padding does not count."""
    rank = _rank(old)
    taps, step, pad, gap = (_each(value, rank) for value in _geometry(old))
    sides = tuple((side, side) for side in pad)
    return Pool(Mean(), taps, stride=step, padding=sides, dilation=gap, ceil_mode=old.ceil_mode)


def strided(old: Any) -> torch.nn.Module:
    """One element of each window."""
    return Subsample(_rank(old), *_geometry(old), old.ceil_mode)


def max_blur(old: Any) -> torch.nn.Module:
    """The max of the same windows at stride 1, then a binomial blur of 3 taps at the stride."""
    kernel_size, stride, padding, dilation = _geometry(old)
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": old.ceil_mode}
    return LAYERS[f"MaxBlurPool{_rank(old)}d"](kernel_size, **keywords)


REPLACEMENTS: dict[str, Callable[[Any], torch.nn.Module]] = {"mean": mean, "strided": strided, "max-blur": max_blur}
FUSED = ("relu+max", "fused")
NAMES = ", ".join([*(f"max:{name}" for name in REPLACEMENTS), ":".join(FUSED)])


def named(what: Any, with_: Any) -> tuple[Any, Callable[[Any], torch.nn.Module]]:
    """The classes and the maker that two names stand for."""
    if what != "max" or with_ not in REPLACEMENTS:
        raise InvalidValue(f"names must be one of {NAMES} (what:with_), got {what}:{with_}", "swap")
    return MAX_POOLS, REPLACEMENTS[with_]


def _rank(old: Any) -> int:
    if old.return_indices:
        raise InvalidValue(f"what must be max pools without return_indices=True, got one with it: {old!r}", "swap")
    return next(rank for rank, kind in enumerate(MAX_POOLS, start=1) if isinstance(old, kind))


def _geometry(old: Any) -> tuple[Any, Any, Any, Any]:
    return old.kernel_size, old.stride, old.padding, old.dilation


def _each(value: Any, rank: int) -> tuple[int, ...]:
    entries = tuple(value) if isinstance(value, Sequence) else (value,)
    return entries * rank if len(entries) == 1 else entries


def _outputs(size: int, span: int, step: int, pad: int, *, ceil: bool) -> int:
    """PyTorch's size of a max pool's output."""
    room = size + 2 * pad - span
    count = (-(-room // step) if ceil else room // step) + 1
    return count - (ceil and (count - 1) * step >= size + pad)
