"""The poolings of a PyTorch model: its modules by hooks, PyTorch's functions by a mode, poolwise's by their frames."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from poolwise import ops
from poolwise.models.record import Pooling, Record, each_axis, pooling_of, windows

_POSITIONS = {  # the arguments of PyTorch's functions after the input, in their order
    "max": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "lp": ("norm_type", "kernel_size", "stride", "ceil_mode"),
    "adaptive_max": ("output_size",),
    "adaptive_avg": ("output_size",),
    "fractional_max": (),
}
_FUNCTION = re.compile(rf"({'|'.join(_POSITIONS)})_pool([123])d(?:_with_indices)?(?:\.\w+)?")
_MODULE = re.compile(r"(Adaptive|Fractional)?(Max|Avg|LP)Pool([123])d")
_MODULES_OF = ("torch.nn.modules.pooling", "poolwise.torch", "poolwise.torch.layers", "poolwise.torch._replacements")


class Call(NamedTuple):
    """A pooling by PyTorch's names: the function's first words, the pooled axes, its arguments, and who computes it."""

    stem: str
    rank: int
    given: Mapping[str, Any]
    stock: bool = True


def run(model: Any, batches: Iterable[NDArray[Any]], record: Record) -> None:
    """Run a model in eval mode without gradients; its modules keep the modes that they are in."""
    like = next((each for each in model.parameters() if each.is_floating_point()), None)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(setattr, module, "training", module.training)
            module.training = False  # `eval` may be a method of the user's, which changes more
            asked = _asked(module)
            if asked is not None:
                path = re.sub(r"(^|\.)_orig_mod\b", "", name).lstrip(".")  # torch.compile's own
                stack.enter_context(_hooked(module, path or type(module).__name__, asked, record))
        for context in (_own_calls(record), _StockCalls(record), torch.no_grad()):
            stack.enter_context(context)
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for batch in batches:
            record.begin()
            x = torch.from_numpy(np.ascontiguousarray(batch))
            dtype = x.dtype if like is None or not x.is_floating_point() else like.dtype
            model(x.to(None if like is None else like.device, dtype))


def _asked(module: Any) -> Call | None:
    """None for what is no pooling, and for a subclass with a `forward` of its own: what that calls is seen."""
    base = next((base for base in type(module).__mro__ if base.__module__ in _MODULES_OF), None)
    if base is None or type(module).forward is not base.forward or "forward" in vars(module):
        return None
    if base.__name__ == "Pool":
        return Call("", len(module.window), {"op": module.op, "window": module.window, **module.arguments})
    if hasattr(base, "composition") or hasattr(base, "called"):
        return _composed(module)
    if hasattr(base, "kind"):
        given = {**vars(module), **module.parameters_of_operation, **dict(module.named_parameters(recurse=False))}
        kind = module.kind.evaluated or module.kind
        return Call(kind.stems[0], int(base.__name__[-2]), given)
    found = _MODULE.fullmatch(base.__name__)
    stem = "_".join(filter(None, found.groups()[:2])).lower() if found else ""
    return found and Call(stem, int(found[3]), vars(module), base.__module__ == _MODULES_OF[0])


def _composed(module: Any) -> Call | None:
    """A downsampling that is no single operation: the door's compositions, and what `swap` puts in by name."""
    composition = getattr(module, "composition", None)
    if module.rank is None or getattr(composition, "inputs", 1) > 1 or not hasattr(module, "kernel_size"):
        return None
    name = module.called if composition is None else composition.function.__name__.removesuffix("_pool")
    return Call("composed", module.rank, {"called": name.replace("_", "-"), **vars(module)})


@contextmanager
def _hooked(module: Any, name: str, asked: Call, record: Record) -> Iterator[None]:
    """Sees the calls of a pooling module."""

    def enter(module: Any, inputs: Any, keywords: Any) -> None:
        record.inside += 1

    def leave(module: Any, inputs: Any, keywords: Any, output: Any) -> None:
        record.inside -= 1
        if output is not None:  # it raised nothing
            _add(record, name, asked, (*inputs, *keywords.values())[0], output)

    before = module.register_forward_pre_hook(enter, with_kwargs=True)
    with before, module.register_forward_hook(leave, with_kwargs=True, always_call=True):
        yield


class _StockCalls(TorchFunctionMode):
    """Sees the calls of PyTorch's own functions."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        output = func(*args, **keywords)
        found = _FUNCTION.fullmatch(getattr(func, "__name__", ""))
        if found is not None and not self.record.inside:
            x, *rest = args or (keywords["input"],)
            given = {**dict(zip(_POSITIONS[found[1]], rest, strict=False)), **keywords}
            asked = Call(found[1], int(found[2]), given)
            _add(self.record, f"{found[1]}_pool{found[2]}d", asked, x, output)
        return output


@contextmanager
def _own_calls(record: Record) -> Iterator[None]:
    """Sees the calls of `poolwise.torch.functional` in their frames: a model may hold its functions by any name."""
    own: Any = sys.modules.get("poolwise.torch.functional")
    names = [name for name in getattr(own, "__all__", ()) if re.search(r"(?<!un)pool[123]d$", name)]
    codes = {inspect.unwrap(getattr(own, name)).__code__ for name in names}

    def profile(frame: Any, event: str, output: Any) -> None:
        if frame.f_code not in codes or event not in ("call", "return"):
            return
        record.inside += 1 if event == "call" else -1
        if event == "return" and output is not None and not record.inside:
            given = {**frame.f_locals, **frame.f_locals.get("parameters", {})}
            stem, _, rank = given["name"].partition("_pool")
            _add(record, given["name"], Call(stem, int(rank[0]), given, False), given["input"], output)

    before = sys.getprofile()
    if codes:
        sys.setprofile(profile)
    try:
        yield
    finally:
        if codes:
            sys.setprofile(before if callable(before) else None)  # cProfile's cannot be set again


def _add(record: Record, name: str, asked: Call, x: Any, output: Any) -> None:
    """One call of a pooling more."""
    y = output[0] if isinstance(output, tuple) else output  # the indices come second
    before, after = (_numbers(each, asked.rank, record.images) for each in (x, y))
    record.add(name, _pooling(asked, x.shape), before, after, x.dtype)


def _pooling(asked: Call, shape: Sequence[int]) -> Pooling:
    """A call in poolwise's words; shape: that of its input."""
    stem, rank, given, stock = asked
    if not stem:
        return _general_pooling(given, len(shape))
    names = {"stride", "padding", "dilation", "ceil_mode"} & set(given)
    if stem == "composed":
        arguments = windows(rank, given["kernel_size"], **{name: given[name] for name in names})
        return Pooling(None, arguments, "poolwise makes it of several operations", given["called"])
    if stem.startswith("fractional"):
        return Pooling(None, {}, "its windows lie at random places")
    kind = {kind.stems[0]: kind for kind in ops.OPERATIONS}[stem.removeprefix("adaptive_")]
    if stem.startswith("adaptive"):
        sizes = zip(each_axis(given["output_size"], rank), shape[-rank:], strict=True)
        return Pooling(kind(), {"output_size": tuple(n if m is None else m for m, n in sizes)})
    known = {"count_include_pad": True, "divisor": given.get("divisor_override"), "p": given.get("norm_type")}
    arguments = windows(rank, given["kernel_size"], **{name: given[name] for name in names})
    signed = stem == "lp" and stock and given["norm_type"] % 2
    note = "PyTorch sums signed powers where poolwise sums powers of magnitudes" if signed else ""
    return pooling_of(kind, {**known, **given}, arguments, note)


def _general_pooling(given: Mapping[str, Any], ndim: int) -> Pooling:
    """Of `poolwise.torch.Pool`, whose arguments are `poolwise.pool`'s."""
    rank, axes = len(given["window"]), given.get("axes")
    if given.get("where") is not None:
        return Pooling(None, {}, "a mask leaves some elements out")
    if axes is not None and [axis % ndim for axis in each_axis(axes, rank)] != list(range(ndim - rank, ndim)):
        return Pooling(None, {}, f"it pools the axes {axes}, not the last")
    names = {"stride", "padding", "dilation", "ceil_mode"} & set(given)
    arguments = windows(rank, given["window"], **{name: given[name] for name in names})
    return Pooling(given["op"], {**arguments, "padding_mode": given.get("padding_mode", "absent")})


def _numbers(x: Any, rank: int, images: slice) -> NDArray[Any]:
    """(N, channels, *sizes) of these images, copied: what follows may work in place."""
    some = (x[images] if x.ndim > rank + 1 else x[None]).detach().cpu()
    values = (some.float() if str(some.dtype) == "torch.bfloat16" else some).numpy()
    return np.array(values.reshape(len(values), -1, *values.shape[values.ndim - rank :]))
