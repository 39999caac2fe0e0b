"""Calls that were made before, with as little work as can be: a tiny pooling costs what surrounds it.

A call is known by its tensor's shape, strides and dtype and by the very objects that its arguments are: 2, 2.0 and True
are equal, but not one object. For sizes that are new at every call, as `x.shape[2:]` is, the first equal ones stand.
What is known goes straight to the compiled module, or, of a small maximum that autograd records, to PyTorch's own
operation where that gives the same bits.
"""

# PyTorch's base class declares the methods below with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import torch
from torch.autograd import forward_ad

from poolwise.api import planned
from poolwise.call import INPUT, Call, Kernel
from poolwise.doors import Build
from poolwise.kernels.native import DIFFERENTIABLE, plan_of
from poolwise.op import Operation
from poolwise.torch._bridge import TorchDoor, backward_of, batched_by_autograd, watched
from poolwise.torch._framework import DTYPE, FORMS, TORCH, dense_strides, maker, own_maximum

SIZES, TUPLES, INTS = (torch.Size, list, tuple), {tuple}, {int}
MOST = 1024  # calls remembered of one function
MOST_OWN = 256  # elements of a call up to which PyTorch's own records it, where that gives the same bits
_compiling = torch.compiler.is_compiling
_tracing = torch._C._get_tracing_state
_transforms = torch._C._are_functorch_transforms_active
_recording = torch.is_grad_enabled
_profiled = cast("Any", torch._C)._autograd._profiler_enabled
_threads = torch.get_num_threads
_hooked: Any = getattr(cast("Any", torch._C)._autograd, "_top_saved_tensors_default_hooks", None)  # since PyTorch 2.8


class Quick:
    """The calls of one function that are known."""

    function: Callable[..., Any]

    def __init__(self) -> None:
        self.known: dict[Any, Ready] = {}
        self.sizes: dict[tuple[int, ...], tuple[int, ...]] = {}  # each for those that are equal

    def find(
        self, x: torch.Tensor, a: Any, b: Any = None, c: Any = None, d: Any = None, e: Any = None, f: Any = None
    ) -> Any:
        """The result, with the indices that were asked for; None for a call that the long way must serve.

        a to f: the function's arguments.
        """
        if (
            _compiling()
            or x.__class__ not in FORMS
            or _transforms()
            or _profiled()
            or watched()
            or _tracing() is not None
        ):
            return None
        try:
            ready = self.known.get((x.shape, x.stride(), x.dtype, id(a), id(b), id(c), id(d), id(e), id(f)))
        except RuntimeError:  # a layout that has no strides
            return None
        if ready is None:
            ready = self._equal(x, (a, b, c, d, e, f))
        if ready is None or not x.is_cpu or x.is_neg() or forward_ad._current_level >= 0:
            return None
        if x.requires_grad and _recording():
            if ready.own is not None and _hooked(False) is None:
                return ready.own(x)
            return (ready.recorded or ready.recording())(x)
        if ready.indexed:
            return ready.with_indices(x, *ready.outputs())
        y = ready.make_y()
        ready.forward(x.data_ptr(), y.data_ptr(), 0, 0, ready.strides, None, _threads())
        return y

    def _equal(self, x: torch.Tensor, arguments: tuple[Any, ...]) -> Ready | None:
        """The same call with sizes that are other objects."""
        found = list(arguments)  # the objects, so that nobody else has their identities meanwhile
        kinds: set[type] = set()
        for place, each in enumerate(arguments):
            if each.__class__ in SIZES and _are_ints(each):
                kinds.add(each.__class__)
                found[place] = self.sizes.get(tuple(each), each)
        ready = self.known.get((x.shape, x.stride(), x.dtype, *map(id, found))) if kinds else None
        if kinds == TUPLES and ready is not None and len(self.known) < MOST // 2:
            ready.held.append(arguments)  # a layer's own tuple comes again, and needs no second look then
            self.known[x.shape, x.stride(), x.dtype, *map(id, arguments)] = ready
        return ready

    def learn(
        self,
        x: Any,
        arguments: tuple[Any, ...],
        op: Operation,
        build: Build,
        asked: tuple[Any, ...],
        return_indices: bool,
    ) -> None:
        """Know a call that the long way has served."""
        if _compiling() or _transforms() or type(x) not in FORMS or not x.is_cpu:
            return
        if not all(map(_is_itself, arguments)):
            return
        facts = TorchDoor().facts(x)
        kinds = tuple(map(type, asked))
        call, choice = planned(TORCH, facts, op, build, asked, kinds, (INPUT,), None, True)
        if choice.kernel.name == "native" and op.name in DIFFERENTIABLE:
            if len(self.known) > MOST - 2:
                self.known.clear()
                self.sizes.clear()
            every = (*arguments, *(None,) * (6 - len(arguments)))
            lasting = [
                self.sizes.setdefault(tuple(each), tuple(each)) if isinstance(each, SIZES) else each for each in every
            ]
            ready = Ready(call, choice.kernel, x, [lasting, every], return_indices)
            again = not {list, torch.Size}.intersection(map(type, every))  # a list may change, a tensor's sizes are new
            for known_by in (lasting, every) if again else (lasting,):
                self.known[x.shape, x.stride(), x.dtype, *map(id, known_by)] = ready


def _are_ints(sizes: Sequence[Any]) -> bool:
    return set(map(type, sizes)) == INTS


def _is_itself(argument: Any) -> bool:
    """Whether equal values are, as a rule, one object, or have one that stands for them."""
    if type(argument) in SIZES:
        return _are_ints(cast("Any", argument))
    return argument is None or type(argument) is bool or (type(argument) is int and -5 <= argument <= 256)


class Ready:
    """A known call: the module's plan, what makes its results, the input's strides in bytes.

    held: the arguments it is known by, so that no other objects can have their identities.
    indexed: whether the indices are part of the result.
    recorded: the call as autograd records it, once that was asked for.
    own: PyTorch's operation that records the same sooner, since its node is not in Python. Whoever has a hand in what
    is kept (hooks) may give it back changed, which that one does not notice.
    """

    __slots__ = (
        *("call", "forward", "held", "indexed", "kernel", "make_flat", "make_kept", "make_y", "own", "plan"),
        *("recorded", "strides"),
    )

    def __init__(self, call: Call, kernel: Kernel, x: torch.Tensor, held: list[Any], indexed: bool) -> None:
        self.plan = plan_of(call)
        self.call, self.kernel, self.forward = call, kernel, self.plan.forward_at
        self.indexed, self.held = indexed, held
        self.strides = tuple([stride * x.element_size() for stride in x.stride()])
        shape, layout, kept_dtype = call.geometry.output_shape, call.layout, self.plan.kept_dtype
        self.make_y = maker(shape, call.result_dtype, layout)
        self.make_kept: Any = maker(shape, kept_dtype, layout) if kept_dtype else None
        self.make_flat: Any = maker(shape, "int64", layout) if indexed else None
        self.recorded: Callable[[torch.Tensor], Any] | None = None
        small_enough = not indexed and _hooked is not None and prod(call.geometry.shape) <= MOST_OWN
        self.own = own_maximum(call) if small_enough else None

    def outputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Memory for the output, what is kept and the indices."""
        return self.make_y(), self.make_kept(), self.make_flat()

    def with_indices(self, x: torch.Tensor, y: torch.Tensor, kept: torch.Tensor, flat: torch.Tensor) -> Any:
        """The result, and its indices."""
        offsets, threads = kept.data_ptr(), _threads()
        self.forward(x.data_ptr(), y.data_ptr(), offsets, 0, self.strides, None, threads)
        self.plan.indices_at(offsets, flat.data_ptr(), threads)
        return y, flat

    def recording(self) -> Callable[[torch.Tensor], Any]:
        """The call as autograd records it."""
        # past what torch.func needs, which `Quick` has asked for
        recorded = self.recorded = cast("Any", super(torch.autograd.Function, _recorded(self))).apply
        return recorded


def _recorded(ready: Ready) -> type[torch.autograd.Function]:
    """A known call that is differentiated; its further derivatives are `backward_of`'s.

    A class for each: what is the same at every call need not be handed to autograd and back.
    """
    call, make_y, make_kept = ready.call, ready.make_y, ready.make_kept
    forward_at, backward_at, strides = ready.forward, ready.plan.backward_at, ready.strides
    make_x = maker(call.geometry.shape, call.dtype, call.layout)
    of_g, of_kept = _memory(call, call.result_dtype), _memory(call, ready.plan.kept_dtype)

    class _Recorded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            y = make_y()
            if make_kept is None:
                forward_at(x.data_ptr(), y.data_ptr(), 0, 0, strides, None, _threads())
                return y
            kept = make_kept()
            ctx.save_for_backward(kept)
            forward_at(x.data_ptr(), y.data_ptr(), kept.data_ptr(), 0, strides, None, _threads())
            return y

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor | None, *_: None) -> torch.Tensor | None:
            if g is None:
                return None
            kept = None if make_kept is None else ctx.saved_tensors[0]
            again = _recording() or _transforms()  # whether the gradient may be differentiated
            if again or batched_by_autograd(g) or not (_lies(g, of_g) and _lies(kept, of_kept)):
                return backward_of(g, kept, call, ready.kernel)
            gx = make_x()
            backward_at(g.data_ptr(), gx.data_ptr(), 0 if kept is None else kept.data_ptr(), 0, None, _threads())
            return gx

    class _RecordedWithIndices(_Recorded):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> Any:
            y, kept, flat = ready.outputs()
            ctx.save_for_backward(kept)
            ctx.mark_non_differentiable(flat)
            ctx.set_materialize_grads(False)  # of the indices, which have none
            return ready.with_indices(x, y, kept, flat)

    return _RecordedWithIndices if ready.indexed else _Recorded


def _memory(call: Call, dtype: str) -> tuple[Any, ...] | None:
    """What the module expects of a tensor of the output's shape, if it expects one: dtype, shape and strides."""
    shape = call.geometry.output_shape
    return (DTYPE[dtype], shape, dense_strides(shape, call.layout)) if dtype else None


def _lies(x: torch.Tensor | None, memory: tuple[Any, ...] | None) -> bool:
    """Whether a tensor's memory is as the module expects it: hooks may have changed what was kept."""
    if x is None or memory is None:
        return x is memory
    return x.__class__ is torch.Tensor and x.is_cpu and not x.is_neg() and (x.dtype, x.shape, x.stride()) == memory
