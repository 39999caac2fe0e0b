"""Calls that were made before, with as little work as can be: a tiny pooling costs what surrounds it.

A call is known by its tensor's shape, strides and dtype and by the very objects that its arguments are: 2, 2.0 and True
are equal, but not one object. What is known goes straight to the compiled module.
"""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from math import prod
from typing import Any, cast

import torch
from torch.autograd import forward_ad

from poolwise.api import planned
from poolwise.call import INPUT, Call, Kernel
from poolwise.doors import Build
from poolwise.kernels.native import plan_of
from poolwise.op import Operation
from poolwise.torch._bridge import TorchDoor, backward_of
from poolwise.torch._framework import FORMS, TORCH

MOST = 1024  # calls remembered of one function
SMALL = 1 << 12  # bytes up to which an output is kept as the pattern of the next one, which allocates faster
_compiling = torch.compiler.is_compiling
_tracing = torch._C._get_tracing_state
_transforms = torch._C._are_functorch_transforms_active
_recording = torch.is_grad_enabled
_profiled = cast("Any", torch._C)._autograd._profiler_enabled
_threads = torch.get_num_threads
_empty_like = torch.empty_like


class Quick:
    """The calls of one function that are known."""

    def __init__(self) -> None:
        self.known: dict[Any, Ready] = {}

    def __call__(self, x: torch.Tensor, *arguments: Any) -> torch.Tensor | None:
        """The result, or None for a call that the long way must serve."""
        if _compiling() or x.__class__ not in FORMS or _transforms() or _profiled() or _tracing() is not None:
            return None
        try:
            ready = self.known.get((x.shape, x.stride(), x.dtype, *map(id, arguments)))
        except RuntimeError:  # a layout that has no strides
            return None
        if ready is None or not x.is_cpu or x.is_neg() or forward_ad._current_level >= 0:
            return None
        if x.requires_grad and _recording():
            return _apply(x, ready)
        return ready.run(x, None)

    def learn(self, x: Any, arguments: tuple[Any, ...], op: Operation, build: Build, asked: tuple[Any, ...]) -> None:
        """Know a call that the long way has served."""
        if _compiling() or type(x) not in FORMS or not x.is_cpu or not all(map(_is_itself, arguments)):
            return
        facts = TorchDoor().facts(x)
        kinds = tuple(map(type, asked))
        call, choice = planned(TORCH, facts, op, build, asked, kinds, (INPUT,), None, True)
        if choice.kernel.name == "native":
            if len(self.known) >= MOST:
                self.known.clear()
            self.known[x.shape, x.stride(), x.dtype, *map(id, arguments)] = Ready(call, choice.kernel, x, arguments)


def _is_itself(argument: Any) -> bool:
    """Whether equal values are, as a rule, one object, and one that nobody changes."""
    if type(argument) is tuple:
        return all(type(entry) is int for entry in cast("Any", argument))
    return argument is None or type(argument) is bool or (type(argument) is int and -5 <= argument <= 256)


class Ready:
    """A known call: the module's plan, patterns of the outputs, the input's strides in bytes."""

    __slots__ = ("arguments", "call", "forward", "kept", "kept_dtype", "kernel", "strides", "y")

    def __init__(self, call: Call, kernel: Kernel, x: torch.Tensor, arguments: tuple[Any, ...]) -> None:
        plan = plan_of(call)
        self.call, self.kernel, self.forward = call, kernel, plan.forward_at
        self.arguments = arguments  # held, so that no other object can have their identity
        self.strides = tuple([stride * x.element_size() for stride in x.stride()])
        self.kept_dtype = plan.kept_dtype
        small = 8 * prod(call.geometry.output_shape) <= SMALL
        self.y = self.fresh(call.result_dtype, x) if small else None
        self.kept = self.fresh(plan.kept_dtype, x) if small and plan.kept_dtype else None

    def fresh(self, dtype: str, x: torch.Tensor) -> torch.Tensor:
        """Memory for an output."""
        return TORCH.empty(self.call.geometry.output_shape, dtype, self.call.layout, x.detach())

    def run(self, x: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """The output, by the module; what backward needs goes into `kept`."""
        y = self.fresh(self.call.result_dtype, x) if self.y is None else _empty_like(self.y)
        address = 0 if kept is None else kept.data_ptr()
        self.forward(x.data_ptr(), y.data_ptr(), address, 0, self.strides, None, _threads())
        return y


class _Recorded(torch.autograd.Function):
    """A known call that is differentiated; its further derivatives are `_Backward`'s."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ready: Ready) -> torch.Tensor:
        ctx.ready = ready
        if not ready.kept_dtype:
            return ready.run(x, None)
        kept = ready.fresh(ready.kept_dtype, x) if ready.kept is None else _empty_like(ready.kept)
        ctx.save_for_backward(kept)
        return ready.run(x, kept)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        ready = ctx.ready
        return backward_of(g, ctx.saved_tensors[0] if ready.kept_dtype else None, ready.call, ready.kernel), None


# past what torch.func needs, which `Quick` has asked for
_apply = cast("Any", super(torch.autograd.Function, _Recorded)).apply
