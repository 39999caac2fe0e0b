"""Reads a module's `forward` through a trace and writes it again with poolwise's functions.

A trace is one run: what Python decided on the way is frozen in it. So a `forward` is rewritten only if its source holds
nothing but what a trace can show (`_Provable`), and the trace serves only calls of tensors, while every attribute that
it read is what it was; any other call goes to the `forward` that was there.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import chain
from math import inf, isnan
from types import FunctionType, ModuleType
from typing import Any, cast

import torch
from torch import fx
from torch.overrides import get_overridable_functions

Reads = dict[tuple[str, str], object]
PRESENT = "present"  # what a guard expects of an attribute that holds a module: that it holds one
CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Variant:
    """One trace as source: the attributes that it depends on, and where its names come from."""

    guards: tuple[tuple[str, str, object], ...]  # a module's path below this one, an attribute, its value
    source: str
    names: tuple[tuple[str, str], ...]


def rewritten(
    module: torch.nn.Module, edit: Callable[[fx.Graph, torch.nn.Module], list[str]]
) -> tuple[type[torch.nn.Module], list[str]] | None:
    """A subclass of the module's class whose `forward` was edited, and what the edits were; None: nothing, or no proof.

    edit: changes a graph in place and says what it changed.
    """
    base = type(module)
    if not _provable(module):
        return None
    variants: list[Variant] = []
    changes: list[str] = []
    for training in (module.training, not module.training):
        made = _variant(module, edit, training=training)
        if made is None:
            return None
        variant, changes = made
        variants.append(variant)
        if not any(name == "training" for _, name, _ in variant.guards):
            break
    return (_class_of(base, tuple(variants)), changes) if changes else None


def _variant(
    module: torch.nn.Module, edit: Callable[[fx.Graph, torch.nn.Module], list[str]], *, training: bool
) -> tuple[Variant, list[str]] | None:
    mode, module.training = module.training, training
    try:
        with _reading(module) as reads:
            graph = _Tracer().trace(module)
    except Exception:  # whatever a user's forward raises at a proxy: its trace is no proof
        return None
    finally:
        module.training = mode
    changes = edit(graph, module)
    for node in graph.nodes:
        node.type = None  # annotations, which may be names of another file
    code = graph.python_code("self")
    names = _named(code.globals)
    if names is None or not all(_guardable(value) for value in reads.values()):
        return None
    guards = (*[(path, name, value) for (path, name), value in reads.items()], *_held(module, reads))
    return Variant(guards, code.src, names), changes


class _Tracer(fx.Tracer):
    """Traces one `forward`; the modules that it calls stay calls."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return True


@contextmanager
def _reading(root: torch.nn.Module) -> Iterator[Reads]:
    """Notes which attributes of the root and the modules below it are read."""
    paths = {id(module): path for path, module in root.named_modules()}
    reads: Reads = {}

    def note(module: torch.nn.Module, name: str) -> Any:
        own = object.__getattribute__(module, "__dict__")
        if not name.startswith("_") and id(module) in paths and "_modules" in own:
            if name in own:
                reads[paths[id(module)], name] = own[name]
            elif name in own["_modules"]:
                reads[paths[id(module)], name] = None if own["_modules"][name] is None else PRESENT
        return object.__getattribute__(module, name)

    cast("Any", torch.nn.Module).__getattribute__ = note
    try:
        yield reads
    finally:
        del cast("Any", torch.nn.Module).__getattribute__


def _held(root: torch.nn.Module, reads: Reads) -> list[tuple[str, str, object]]:
    """Which entries the containers have whose modules the trace took one by one."""
    seen = {"", *(f"{path}.{name}".lstrip(".") for path, name in reads)}
    paths = [path for path, module in root.named_modules() if isinstance(module, CONTAINERS)]
    met = [path for path in paths if path in seen or path.rpartition(".")[0] in paths]
    return [(path, "_modules", tuple(root.get_submodule(path)._modules)) for path in met]


def _guardable(value: object) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_guardable, cast("Any", value))))


# The class that holds the traces.


@lru_cache(maxsize=4096)
def _class_of(base: type[torch.nn.Module], variants: tuple[Variant, ...]) -> type[torch.nn.Module]:
    compiled = [(variant.guards, _function(variant)) for variant in variants]
    original = cast("Any", base).forward

    @wraps(original)
    def forward(self: torch.nn.Module, *inputs: Any, **keywords: Any) -> Any:
        if not keywords and all(isinstance(x, torch.Tensor) for x in inputs):
            for guards, function in compiled:
                if _hold(self, guards):
                    return function(self, *inputs)
        return original(self, *inputs, **keywords)

    def reduce(self: torch.nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _revived, (base, variants), self.__getstate__()

    members = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "poolwise_variants": variants,
    }
    return type(base.__name__, (base,), members)


def _revived(base: type[torch.nn.Module], variants: tuple[Variant, ...]) -> torch.nn.Module:
    """An instance before its state is set, for copy and pickle."""
    kind = _class_of(base, variants)
    return kind.__new__(kind)


def _hold(module: torch.nn.Module, guards: tuple[tuple[str, str, object], ...]) -> bool:
    for path, name, value in guards:
        owner = module.get_submodule(path) if path else module
        found = tuple(owner._modules) if name == "_modules" else getattr(owner, name, None)
        if (found is None) if value is PRESENT else (type(found) is not type(value) or found != value):
            return False
    return True


def _function(variant: Variant) -> Callable[..., Any]:
    names = {name: pkgutil.resolve_name(qualified) for name, qualified in variant.names}
    exec(compile(variant.source, "<poolwise>", "exec"), names)  # as PyTorch does with its graphs
    return cast("Callable[..., Any]", names["forward"])


def _named(names: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """Where each name of the source can be found again; None if one cannot."""
    found: list[tuple[str, str]] = []
    for name, value in names.items():
        qualified = _qualified(value)
        if qualified is None:
            return None
        found.append((name, qualified))
    return tuple(found)


def _qualified(value: Any) -> str | None:
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, float):
        return "math:nan" if isnan(value) else "math:inf" if value == inf else None
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if value is type(None):
        home, name = "types", "NoneType"
    try:
        return f"{home}:{name}" if pkgutil.resolve_name(f"{home}:{name}") is value else None
    except (AttributeError, ImportError, ValueError):
        return None


# What a trace can show.


@lru_cache(maxsize=1)
def _recorded() -> frozenset[int]:
    """The functions that a trace records, by identity."""
    return frozenset(map(id, chain(*get_overridable_functions().values(), _DISPATCHED)))


_DISPATCHED = [
    getattr(torch.nn.functional, name)
    for name in dir(torch.nn.functional)
    if name.endswith(("pool1d", "pool2d", "pool3d")) and not name.startswith("_")
]
_BUILTINS = ("range", "len", "enumerate", "zip", "reversed", "list", "tuple")
_LIST_METHODS = ("append", "extend")


def _provable(module: torch.nn.Module) -> bool:
    kind = type(module)
    if "forward" in vars(module) or "__reduce_ex__" in vars(kind):
        return False
    if kind is torch.nn.Sequential:
        return True
    if kind.__module__.startswith("torch.nn."):
        return False
    return _Provable(module).of(inspect.getattr_static(kind, "forward", None), outermost=True)


class _Provable(ast.NodeVisitor):
    """Whether a `forward`, and the methods that it calls, hold only what a trace shows.

    No context managers (a trace forgets `no_grad`), no handlers, no state, no `is` and no types of anything but the
    module's own attributes and the given tensors, and no calls but of modules, methods that are provable too, tensors'
    methods, and functions that PyTorch records.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.sound = True
        self.seen: set[Any] = set()

    def of(self, function: Any, *, outermost: bool = False) -> bool:
        """Whether this function is; each is looked at once."""
        if function in self.seen:
            return self.sound
        self.seen.add(function)
        if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__") or function.__closure__:
            self.sound = False
            return False
        parameters = list(inspect.signature(function).parameters.values())
        if outermost and any(p.default is not p.empty or p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
            self.sound = False
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, SyntaxError, TypeError):
            self.sound = False
            return False
        outer = getattr(self, "given", None), getattr(self, "globals", None), getattr(self, "itself", None)
        self.given = {p.name for p in parameters[1:]} if outermost else set()
        definition = tree.body[0]
        local = {p.name for p in parameters} | set(_bound(definition))
        self.globals = {name: value for name, value in function.__globals__.items() if name not in local}
        self.itself = parameters[0].name if parameters else ""
        self.sound &= isinstance(definition, ast.FunctionDef) and not definition.decorator_list
        for statement in getattr(definition, "body", []):
            self.visit(statement)
        self.given, self.globals, self.itself = cast("Any", outer)
        return self.sound

    def generic_visit(self, node: ast.AST) -> None:
        allowed = (ast.expr, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.keyword, ast.slice)
        statements = (
            ast.Expr,
            ast.Assign,
            ast.AnnAssign,
            ast.AugAssign,
            ast.Return,
            ast.If,
            ast.For,
            ast.Pass,
            ast.comprehension,
        )
        refused = (ast.Lambda, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
        if not isinstance(node, allowed + statements) or isinstance(node, refused):
            self.sound = False
        super().generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._stays_local(*node.targets)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._stays_local(node.target)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._stays_local(node.target)
        if node.value is not None:
            self.visit(node.value)

    def _stays_local(self, *targets: ast.expr) -> None:
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            self.sound &= all(isinstance(name, ast.Name) for name in names)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(isinstance(each, ast.Is | ast.IsNot | ast.In | ast.NotIn) for each in node.ops):
            self.sound &= self._is_known(node.left)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        value = self.globals.get(node.id)
        if isinstance(node.ctx, ast.Load) and node.id in self.globals and not callable(value):
            self.sound &= isinstance(value, ModuleType)  # a number that somebody may set

    def visit_Call(self, node: ast.Call) -> None:
        self.sound &= self._is_recorded(node.func)
        self.generic_visit(node)

    def _is_known(self, node: ast.expr) -> bool:
        return self._own(node) is not None or (isinstance(node, ast.Name) and node.id in self.given)

    def _own(self, node: ast.expr) -> list[str] | None:
        """The names after `self` in `self.layer.conv`; None if it does not start there."""
        names: list[str] = []
        while isinstance(node, ast.Attribute | ast.Subscript):
            names.append(node.attr if isinstance(node, ast.Attribute) else "[]")
            node = node.value
        return names[::-1] if isinstance(node, ast.Name) and node.id == self.itself else None

    def _is_recorded(self, callee: ast.expr) -> bool:
        own = self._own(callee)
        if own is not None:
            method = inspect.getattr_static(type(self.module), own[0], None) if len(own) == 1 else None
            return self._is_module(own) if method is None else self.of(method)
        value = self._resolved(callee)
        if value is not None:
            return id(value) in _recorded() or getattr(value, "__module__", None) in ("math", "_operator")
        if isinstance(callee, ast.Name):
            return callee.id in _BUILTINS or not hasattr(builtins, callee.id)  # a module out of a loop
        return isinstance(callee, ast.Attribute) and (
            hasattr(torch.Tensor, callee.attr) or callee.attr in _LIST_METHODS
        )

    def _is_module(self, names: list[str]) -> bool:
        found: Any = self.module
        for name in names:
            if name == "[]":
                return isinstance(found, CONTAINERS)
            found = getattr(found, name, None)
        return found is None or isinstance(found, torch.nn.Module)  # a call of None stands in a branch not taken

    def visit_Attribute(self, node: ast.Attribute) -> None:
        own = self._own(node)
        if own is not None and isinstance(inspect.getattr_static(type(self.module), own[0], None), property):
            self.sound = False
        self.generic_visit(node)

    def _resolved(self, node: ast.expr) -> Any:
        """The global object that `torch.nn.functional.relu` names; None for what hangs on something local."""
        if isinstance(node, ast.Name):
            return self.globals.get(node.id)
        if isinstance(node, ast.Attribute):
            holder = self._resolved(node.value)
            return getattr(holder, node.attr, None) if isinstance(holder, ModuleType) else None
        return None


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a function binds, without those of its comprehensions, which are bound in them alone."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)
