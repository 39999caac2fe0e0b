"""A model's pooling by poolwise, in place: its modules, its functional calls, and a ReLU joined with a max pool."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import fx
from torch.nn import functional as stock
from torch.nn.modules import module as hooks

from poolwise.errors import InvalidType
from poolwise.torch import _replacements, functional
from poolwise.torch._rewrite import rewritten
from poolwise.torch.layers import LAYERS

Model = TypeVar("Model", bound=torch.nn.Module)
STEMS = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool")  # those that mean the same in every case
MODULES = {getattr(torch.nn, name): LAYERS[name] for name in LAYERS if name[:-2] in STEMS}
_NAMES = [f"{stem}_pool{rank}d" for stem in ("max", "avg", "adaptive_max", "adaptive_avg") for rank in functional.RANKS]
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    getattr(home, name): getattr(functional, name) for home in (stock, torch) for name in _NAMES if hasattr(home, name)
}
_RANKS: dict[Any, int] = {getattr(functional, f"max_pool{rank}d"): rank for rank in functional.RANKS}
_MAX_POOLS: dict[Any, int] = {LAYERS[f"MaxPool{rank}d"]: rank for rank in functional.RANKS}
_RELUS = {stock.relu, torch.relu, torch.relu_, stock.relu_}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# what gives a tensor that nobody else holds
_FRESH = (
    *[
        getattr(torch.nn, f"{stem}{rank}d")
        for stem in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm")
        for rank in functional.RANKS
    ],
    torch.nn.Linear,
    torch.nn.GroupNorm,
)
_FRESH_FUNCTIONS = {stock.conv1d, stock.conv2d, stock.conv3d, stock.linear, stock.batch_norm, torch.add, torch.cat}


@dataclass(frozen=True)
class Change:
    """One place of a model that poolwise changed: the module's path, what stood there, what stands there now."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path or '(the model)'}: {self.before} → {self.after}"


def accelerate(model: Model) -> Model:
    """Let poolwise compute the max, average and adaptive pooling of a model, and join each ReLU with its max pool.

    model: any module; changed in place, and returned. `model.poolwise_changes` lists what was changed, as `Change`s.

    Modules keep their class's name, their arguments, hooks, place and state; the state dict stays as it was. Functional
    calls (`F.max_pool2d`) are found through a trace of each module's own `forward`, where its source proves that one
    trace shows all of it: no branch on data, no context manager, no state. What is not provable, not stock PyTorch, or
    means something else there (`LPPool`, `MaxUnpool`, `FractionalMaxPool`) is left as it is.

    A ReLU and a max pool that follow each other, in either order, become one step that keeps one byte per output, where
    nothing else reads what lies between: no other call, no hook (looked at in every call), and no alias of a tensor
    that an in-place ReLU would have changed. On a device without our kernels they stay two.

    Raises InvalidType if model is not a module.

    >>> import torch, poolwise.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    >>> for change in poolwise.torch.accelerate(model).poolwise_changes:
    ...     print(change)
    2: torch.nn.MaxPool2d → poolwise.torch.MaxPool2d
    (the model): ReLU and max pool → poolwise.torch.functional.relumax_pool2d
    """
    if not isinstance(model, torch.nn.Module):
        raise InvalidType(f"model must be a torch.nn.Module, got {type(model).__name__}", "accelerate")
    modules = list(model.named_modules())
    changes = [change for path, module in modules for change in _own_kind(path, module)]
    for path, module in modules:
        made = rewritten(module, _edited)
        if made is not None:
            module.__class__, said = made
            changes += [Change(path, *each.split(" → ")) for each in said]
    cast("Any", model).poolwise_changes = (*getattr(model, "poolwise_changes", ()), *changes)
    return model


def swap(model: Model, what: Any, with_: Any) -> Model:
    """Put other modules in the place of some, keeping their hooks, mode and place.

    what: a class or a tuple of classes (and their subclasses), one module, or a callable that says of a module whether
        it is meant; or a name, see below.
    with_: a module (each place gets a copy of its own), a class (made with those attributes of the old module that its
        arguments are named after), or a callable from the old module to the new one.

    By name: "max" with "max-blur" (Zhang 2019), "mean" or "strided" (one element of each window), for every max pool
    module, with its windows and sizes; "relu+max" with "fused" is `accelerate`.

    Returns the model, or what stands in its place; `poolwise_changes` lists the places. A module that stands in several
    places is replaced by one. Raises InvalidType for anything else, InvalidValue for other names.

    >>> import torch, poolwise.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2))
    >>> poolwise.torch.swap(model, torch.nn.MaxPool2d, poolwise.torch.LPPool2d(2, 2))[1]
    LPPool2d(norm_type=2, kernel_size=2, stride=None, ceil_mode=False)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.MaxPool2d(2))
    >>> poolwise.torch.swap(model, "max", "strided")[1]
    Subsample(rank=2, kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    """
    if not isinstance(model, torch.nn.Module):
        raise InvalidType(f"model must be a torch.nn.Module, got {type(model).__name__}", "swap")
    if (what, with_) == _replacements.FUSED:
        return accelerate(model)
    if isinstance(what, str) and isinstance(with_, str):
        what, with_ = _replacements.named(what, with_)
    meant, make = _meant(what), _maker(with_)
    made: dict[int, torch.nn.Module] = {}
    changes: list[Change] = []
    places = list(model.named_modules(remove_duplicate=False))
    for path, old in places:
        if not meant(old) or any(path.startswith(f"{change.path}.") or change.path == "" for change in changes):
            continue
        if id(old) not in made:
            made[id(old)] = _settled(make(old), old)
        changes.append(Change(path, _label(old), _label(made[id(old)])))
        if path:
            model.set_submodule(path, made[id(old)])
    result = cast("Model", made.get(id(model), model))
    cast("Any", result).poolwise_changes = (*getattr(model, "poolwise_changes", ()), *changes)
    return result


def _own_kind(path: str, module: torch.nn.Module) -> Iterator[Change]:
    kind = MODULES.get(type(module))
    if kind is not None and "forward" not in vars(module):
        yield Change(path, _label(module), f"poolwise.torch.{kind.__name__}")
        module.__class__ = kind


def _label(module: torch.nn.Module) -> str:
    """What users call a module: where it can be imported from, not where it was written."""
    kind = type(module)
    if isinstance(module, _replacements.Subsample):
        return module.called
    homes = (home for home in ("torch.nn", "poolwise.torch") if kind.__module__.startswith(f"{home}."))
    return f"{next(homes, kind.__module__)}.{kind.__name__}"


def _meant(what: Any) -> Callable[[torch.nn.Module], bool]:
    kinds = what if isinstance(what, tuple) else (what,)
    if all(isinstance(kind, type) for kind in kinds):
        return lambda module: isinstance(module, kinds)
    if isinstance(what, torch.nn.Module):
        return lambda module: module is what
    if callable(what):
        return lambda module: bool(what(module))
    raise InvalidType(f"what must be a class, a tuple of classes, a module or a callable, got {what!r}", "swap")


def _maker(with_: Any) -> Callable[[torch.nn.Module], Any]:
    if isinstance(with_, torch.nn.Module):
        return lambda _: deepcopy(with_)
    if isinstance(with_, type) and issubclass(with_, torch.nn.Module):
        return lambda old: with_(**_arguments(with_, old))
    if callable(with_) and not isinstance(with_, type):
        return with_
    raise InvalidType(f"with_ must be a module, a class of modules or a callable, got {with_!r}", "swap")


def _arguments(kind: type, old: torch.nn.Module) -> dict[str, Any]:
    known = inspect.signature(kind).parameters.values()
    named = [each for each in known if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    missing = [each.name for each in named if each.default is each.empty and not hasattr(old, each.name)]
    if missing:
        reason = f"got {kind.__name__}, whose {missing[0]} {type(old).__name__} has not"
        raise InvalidType(
            f"with_ must be a class whose arguments the old module has as attributes, a module or a callable, {reason}",
            "swap",
        )
    return {each.name: getattr(old, each.name) for each in named if hasattr(old, each.name)}


def _settled(new: Any, old: torch.nn.Module) -> torch.nn.Module:
    if not isinstance(new, torch.nn.Module):
        raise InvalidType(f"with_ must give a torch.nn.Module, got {type(new).__name__}", "swap")
    for name in (
        *_HOOKS,
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks_always_called",
    ):
        getattr(new, name).update(getattr(old, name))
    return new.train(old.training)


# What a trace is edited into.


def _edited(graph: fx.Graph, module: torch.nn.Module) -> list[str]:
    """Our functions for PyTorch's, then each ReLU and max pool in one."""
    said: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target in FUNCTIONS and _is_ours(node):
            ours = FUNCTIONS[node.target]
            said[node] = f"{ours.__name__} → poolwise.torch.functional.{ours.__name__}"
            node.target = ours
    for node in list(graph.nodes):
        pair = _pair(node, module)
        if pair is not None:
            joined, rank = _join(graph, *pair, module)
            said[joined] = f"ReLU and max pool → poolwise.torch.functional.relumax_pool{rank}d"
    return [said[node] for node in graph.nodes if node in said]


def _is_ours(node: fx.Node) -> bool:
    """Whether the call's arguments are numbers that are there; PyTorch's functions take some that ours do not."""
    names = inspect.signature(FUNCTIONS[node.target]).parameters
    return set(node.kwargs) <= set(names) and len(node.args) <= len(names)


def _pair(first: fx.Node, root: torch.nn.Module) -> tuple[fx.Node, fx.Node] | None:
    """A node and its only reader, one a ReLU and the other a max pool."""
    if len(first.users) != 1:
        return None
    second = next(iter(first.users))
    if not second.args or second.args[0] is not first or list(second.all_input_nodes) != [first]:
        return None
    if _is_relu(first, root) and _is_max_pool(second, root):
        return (first, second) if not _in_place(first, root) or _is_fresh(first.args[0], root) else None
    return (first, second) if _is_max_pool(first, root) and _is_relu(second, root) else None


def _is_relu(node: fx.Node, root: torch.nn.Module) -> bool:
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        return type(_called(node, root)) is torch.nn.ReLU
    return (node.op == "call_function" and node.target in _RELUS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )


def _in_place(node: fx.Node, root: torch.nn.Module) -> bool:
    if node.op == "call_module":
        return bool(cast("Any", _called(node, root)).inplace)
    name = node.target if node.op == "call_method" else cast("Any", node.target).__name__
    return str(name).endswith("_") or bool(node.kwargs.get("inplace") or list(node.args[1:]) == [True])


def _is_max_pool(node: fx.Node, root: torch.nn.Module) -> bool:
    if node.op == "call_module":
        pool = _called(node, root)
        return type(pool) in _MAX_POOLS and not cast("Any", pool).return_indices and len(node.args) == 1
    if node.op != "call_function" or node.target not in _RANKS:
        return False
    return len(node.args) < 7 and not node.kwargs.get("return_indices", False)  # the seventh is return_indices


def _is_fresh(node: Any, root: torch.nn.Module) -> bool:
    """Whether an in-place ReLU of this node's result can be seen by nobody but its own reader."""
    if not isinstance(node, fx.Node) or len(node.users) != 1:
        return False
    if node.op == "call_module":
        return type(_called(node, root)) in _FRESH
    return node.op == "call_function" and node.target in _FRESH_FUNCTIONS


def _called(node: fx.Node, root: torch.nn.Module) -> torch.nn.Module:
    return root.get_submodule(str(node.target))


def _join(graph: fx.Graph, first: fx.Node, second: fx.Node, root: torch.nn.Module) -> tuple[fx.Node, int]:
    """One call in the place of two, which can still make the two."""
    source = first.args[0]
    producer = (
        source if isinstance(source, fx.Node) and source.op == "call_module" and _in_place_at(first, root) else None
    )
    relu, pool = (first, second) if _is_relu(first, root) else (second, first)
    rank = _MAX_POOLS[type(_called(pool, root))] if pool.op == "call_module" else _RANKS[pool.target]
    with graph.inserting_before(first):
        modules = [
            graph.get_attr(str(node.target)) if node is not None and node.op == "call_module" else None
            for node in (producer, relu, pool)
        ]
        names = (
            inspect.signature(functional.max_pool2d).bind(*pool.args, **pool.kwargs).arguments if not modules[2] else {}
        )
        keywords = {name: value for name, value in names.items() if name not in ("input", "return_indices")}
        joined = graph.call_function(JOINED[rank], (source, *modules), {"pool_first": pool is first, **keywords})
    second.replace_all_uses_with(joined)
    graph.erase_node(second)
    graph.erase_node(first)
    return joined, rank


def _in_place_at(node: fx.Node, root: torch.nn.Module) -> bool:
    return _is_relu(node, root) and _in_place(node, root)


def _joined(rank: int) -> Callable[..., torch.Tensor]:
    relumax = getattr(functional, f"relumax_pool{rank}d")
    max_pool = getattr(functional, f"max_pool{rank}d")

    def function(
        x: torch.Tensor,
        producer: torch.nn.Module | None,
        relu: torch.nn.Module | None,
        pool: torch.nn.Module | None,
        *,
        pool_first: bool,
        **arguments: Any,
    ) -> torch.Tensor:
        if (
            isinstance(x, fx.Proxy)
            or not x.is_cpu
            or _is_watched(producer, relu, pool)
            or not _is_still(relu, pool)
            or not (pool_first or _is_one(arguments.get("dilation", 1) if pool is None else pool.dilation))
        ):
            rectify = stock.relu if relu is None else relu
            step = (lambda t: max_pool(t, **arguments)) if pool is None else pool
            return rectify(step(x)) if pool_first else step(rectify(x))
        if pool is None:
            return relumax(x, **arguments)
        its = cast("Any", pool)
        return relumax(x, its.kernel_size, its.stride, its.padding, its.dilation, its.ceil_mode)

    function.__name__ = function.__qualname__ = f"relu_and_max_pool{rank}d"
    return function


def _is_one(dilation: Any) -> bool:
    """Whether every window has elements: one that has gaps may have none, and is −∞ where the joined step gives 0."""
    return all(each == 1 for each in (dilation if isinstance(dilation, Sequence) else (dilation,)))


def _is_watched(*modules: torch.nn.Module | None) -> bool:
    """Whether a hook wants to see what lies between."""
    if hooks._has_any_global_hook():
        return True
    return any(module is not None and any(getattr(module, name) for name in _HOOKS) for module in modules)


def _is_still(relu: torch.nn.Module | None, pool: torch.nn.Module | None) -> bool:
    """Whether the modules are what they were: somebody may have put others in their place."""
    plain = relu is None or type(relu) is torch.nn.ReLU
    return plain and (pool is None or (type(pool) in _MAX_POOLS and not cast("Any", pool).return_indices))


relu_and_max_pool1d, relu_and_max_pool2d, relu_and_max_pool3d = map(_joined, functional.RANKS)
JOINED: dict[int, Any] = dict(
    zip(functional.RANKS, (relu_and_max_pool1d, relu_and_max_pool2d, relu_and_max_pool3d), strict=True)
)
