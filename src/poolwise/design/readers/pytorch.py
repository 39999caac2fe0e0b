"""A PyTorch model as a `Graph`: through `torch.export`, else through `torch.fx`, node by node."""

from __future__ import annotations

import copy
import inspect
import logging
import operator
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx

from poolwise import InvalidValue
from poolwise.design.graph import Graph, Step, Value
from poolwise.design.readers import windows
from poolwise.design.readers.aten import IDENTITIES, Call, Meaning, meaning, norm

LEAVES = ("torch.nn.", "poolwise.torch.")
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


def graph(model: Any, shapes: Sequence[Any]) -> Graph:
    """The model's network on inputs of these shapes (one, or one for each input); the model stays as it was.

    Raises InvalidValue, with what both ways said, for a model that neither can follow.
    """
    sizes = [tuple(shape) for shape in (shapes if isinstance(shapes[0], Sequence) else [shapes])]
    _check_count(model, len(sizes))
    with _in_eval_mode(model), torch.no_grad(), _quiet(), _own_poolings_whole():
        inputs = tuple(_input(model, shape) for shape in sizes)
        try:
            return _exported(model, inputs)
        except Exception as first:  # whatever the model or the exporter raises
            try:
                return _traced(model, inputs)
            except Exception as second:
                told = _said(first)
                if str(first).partition("\n")[0] not in str(second):  # else it is the model's own error
                    told = f"torch.export: {told}; torch.fx: {_said(second)}"
                raise InvalidValue(f"model must be one that PyTorch can trace on {sizes}, got {told}") from None


def _check_count(model: Any, given: int) -> None:
    """Before a trace, which takes no notice of too many inputs."""
    try:
        takes = inspect.signature(model.forward)
    except ValueError:  # TorchScript's tell none
        return
    try:
        takes.bind(*range(given))
    except TypeError:
        names = ", ".join(takes.parameters)
        raise InvalidValue(f"input must be given once for each input of the model ({names}), got {given}") from None


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    """Every module's mode set past `eval`, which may be the user's own, and put back."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _own_poolings_whole() -> AbstractContextManager[None]:
    """Poolings of poolwise stay whole, where there can be any: where its PyTorch door is loaded."""
    registered = sys.modules.get("poolwise.torch._operator")
    return registered.as_one_call() if registered is not None else nullcontext()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's log of what it could not follow: the fault says it, or the other way succeeds."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _input(model: Any, shape: tuple[int, ...]) -> torch.Tensor:
    like = next((each for each in model.parameters() if each.is_floating_point()), torch.empty(0))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _exported(model: Any, inputs: tuple[torch.Tensor, ...]) -> Graph:
    program = torch.export.export(model, inputs, strict=False)
    built = _Builder(model)
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters}
    given = {node.name for node in program.graph.nodes if node.name in signature.user_inputs}
    names = built.read(program.graph, weights, dict.fromkeys(given))
    return built.graph(names)


def _traced(model: Any, inputs: tuple[torch.Tensor, ...]) -> Graph:
    """Each call of a symbolic trace, run on numbers and exported by itself."""
    traced = fx.symbolic_trace(copy.deepcopy(model))
    built = _Builder(model)
    reader = _Nodewise(traced, built)
    reader.run(*inputs)
    return built.graph(reader.outputs)


class _Builder:
    """The graph so far."""

    def __init__(self, model: Any) -> None:
        self.title = type(model).__name__
        self.values: dict[str, Value] = {}
        self.steps: list[Step] = []
        self.inputs: list[str] = []
        self.times: Counter[str] = Counter()
        first: dict[int, str] = {}
        self.parameters = {
            name: (first.setdefault(id(each), name), each.numel())
            for name, each in model.named_parameters(remove_duplicate=False)
        }

    def graph(self, outputs: Sequence[str]) -> Graph:
        return Graph(self.title, "pytorch", tuple(self.inputs), tuple(outputs), self.values, tuple(self.steps))

    def read(self, traced: fx.Graph, weights: dict[str, str], given: dict[str, str | None], prefix: str = "") -> list:
        """The steps of one fx graph; weights, given: its placeholders' parameters and values. The values that leave."""
        flows: dict[fx.Node, str] = {}
        held: dict[fx.Node, dict[str, int]] = {}
        norms, around = _norms(traced)
        for node in traced.nodes:
            if node.op == "output":
                return [flows[each] for each in node.all_input_nodes if each in flows]
            if node.op == "placeholder" and node.name in given:
                flows[node] = given[node.name] or self.input(node)
            elif node.op in ("placeholder", "get_attr"):
                held[node] = self._weights(weights.get(node.name, ""))
            elif not any(each in flows for each in node.all_input_nodes):
                held[node] = {key: size for each in node.all_input_nodes for key, size in held.get(each, {}).items()}
            elif node in around:
                flows[node] = flows[node.all_input_nodes[0]]
            else:
                self._call(node, flows, held, prefix, norms.get(node))
        return []

    def _weights(self, target: str) -> dict[str, int]:
        found = self.parameters.get(target)
        return {found[0]: found[1]} if found else {}

    def input(self, node: fx.Node) -> str:
        tensor = node.meta["val"]
        axes = tuple(range(2, tensor.ndim))
        self.inputs.append(self.value(node.name, tensor, axes))
        return self.inputs[-1]

    def value(self, name: str, tensor: Any, axes: tuple[int, ...]) -> str:
        while name in self.values:
            name += "_"
        self.values[name] = Value(name, tuple(map(int, tensor.shape)), axes, tensor.element_size())
        return name

    def _call(
        self, node: fx.Node, flows: dict[fx.Node, str], held: dict[fx.Node, Any], prefix: str, p: float | None
    ) -> None:
        sources = [each for each in node.all_input_nodes if each in flows]
        value, name = node.meta.get("val"), _operator(node)
        tensor = value[0] if isinstance(value, tuple | list) and value else value
        if not isinstance(tensor, torch.Tensor):  # a check, a size
            return
        splits = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
        taken = node.target is operator.getitem
        if name in IDENTITIES or (_operator(sources[0]) not in splits if taken else name in splits):
            flows[node] = flows[sources[0]]
            return
        before = self.values[flows[sources[0]]]
        call = Call(name, _arguments(node), before.shape, before.axes, tuple(map(int, tensor.shape)))
        found = _meaning(node, call) if p is None else norm(p, call)
        axes = found.axes if found.axes is not None else before.axes if len(before.shape) == tensor.ndim else ()
        output = self.value(node.name, tensor, axes)
        weights = {key: size for each in node.all_input_nodes for key, size in held.get(each, {}).items()}
        said, source = _place(node, name, prefix)
        self.times[said] += 1
        named = said if self.times[said] == 1 else f"{said} #{self.times[said]}"
        attributes = {**found.attributes, **({"source": source} if source else {})}
        inputs = tuple(flows[each] for each in sources)
        step = Step(named, found.op, inputs, output, found.reads, found.pooling, weights, found.macs, found.known)
        self.steps.append(replace(step, attributes=attributes))
        flows[node] = output
        if str(node.target).partition(".")[2].split(".")[0].endswith("_") and node.args:
            flows[cast("fx.Node", node.args[0])] = output  # in place: who reads the old one reads this


def _operator(node: fx.Node) -> str:
    """An operator's name, without the overload and the mark of in-place."""
    if node.target is operator.getitem:
        return "split"
    schema = getattr(node.target, "_schema", None)
    name = str(schema.name if schema else getattr(node.target, "__name__", node.target))
    return name.removeprefix("aten::").rstrip("_")


def _arguments(node: fx.Node) -> dict[str, Any]:
    """By the schema's names, defaults filled in; a tensor is its description."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = {each.name: each.default_value for each in schema.arguments if each.has_default_value()}
    given.update(zip([each.name for each in schema.arguments], node.args, strict=False))
    given.update(node.kwargs)
    return {key: each.meta.get("val") if isinstance(each, fx.Node) else each for key, each in given.items()}


def _meaning(node: fx.Node, call: Call) -> Meaning:
    if node.target is operator.getitem:
        return Meaning("Split")
    if call.name == "poolwise::pool":
        return _own(call)
    found = meaning(call)
    return found if found.known or call.name.partition("::")[1] == "" else replace(found, op=call.name)


def _own(call: Call) -> Meaning:
    """poolwise's registered operator, which carries the pooling as text."""
    from poolwise.torch import _operator as registered  # noqa: PLC0415 (loaded already, or there is no such node)

    op, build, arguments, _ = registered.decoded(call.given["text"])
    geometry = build(call.shape, *arguments)
    name = {"max": "MaxPool", "mean": "AveragePool", "lp": "LpPool"}.get(op.name, f"{type(op).__name__}Pool")
    form = {"torch_bins": "Adaptive", "adaptive": "Adaptive", "whole": "Global"}.get(build.__name__, "")
    if form and set(geometry.outputs) == {1}:
        form = "Global"
    axes = geometry.axes if len(call.output) == len(call.shape) else ()
    ceil_mode = int(arguments[5] if build.__name__ == "torch_windows" else arguments[4]) if not form else 0
    attributes = {} if form else windows.attributes(geometry, ceil_mode=ceil_mode)
    return Meaning(form + name, windows.placed(geometry), axes, op, attributes=attributes)


def _norms(traced: fx.Graph) -> tuple[dict[fx.Node, float], set[fx.Node]]:
    """The means that are p-norms in what PyTorch makes of lp_pool, with their p; and the nodes around them."""
    norms: dict[fx.Node, float] = {}
    around: set[fx.Node] = set()
    for root in traced.nodes:
        chain: list[Any] = [root]
        for name in ("pow", "mul", "mul", "sign", "avg_pool", "pow"):
            above = chain[-1]
            if not (isinstance(above, fx.Node) and above.op == "call_function" and _operator(above).startswith(name)):
                break
            chain.append(above.args[0])
        else:
            mean, power = chain[4], chain[5]
            relu = chain[2].args[1]
            if isinstance(relu, fx.Node) and _operator(relu) == "relu":
                norms[mean] = float(power.args[1])
                around.update(cast("Any", (*chain[:4], power, relu, relu.args[0])))
    return norms, around


def _place(node: fx.Node, function: str, prefix: str) -> tuple[str, str]:
    """A step's name, and the file and line of a functional call."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    path = ".".join(part for part in (prefix, re.sub(r"@\d+|(^|\.)_orig_mod\b", "", path).strip(".")) if part)
    if path and kind.startswith(LEAVES):
        return (f"{path}: pad" if function == "pad" else path), ""
    frames = [each for each in FRAME.findall(node.meta.get("stack_trace") or "") if "/torch/" not in each[0]]
    said = f"{path}.forward: {function}" if path else f"forward: {function}"
    if not frames:
        return said, ""
    file, line, _ = frames[-1]
    return f"{said} ({Path(file).name}:{line})", f"{file}:{line}"


class _Only(torch.nn.Module):
    """One call of a trace as a module."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.run(*tensors)


class _Nodewise(fx.Interpreter):
    """Runs a trace, and exports each of its calls by itself; one that cannot be exported is a step of its own name."""

    def __init__(self, traced: fx.GraphModule, built: _Builder) -> None:
        super().__init__(traced)
        self.built = built
        self.outputs: list[str] = []
        self.names: dict[fx.Node, str] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        sources = [each for each in n.all_input_nodes if each in self.names]
        if n.op == "placeholder":
            self.names[n] = self.built.value(n.name, result, tuple(range(2, result.ndim)))
            self.built.inputs.append(self.names[n])
        elif n.op == "output":
            self.outputs = [self.names[each] for each in sources]
        elif sources:
            self.names[n] = self._step(n, sources, result)
        return result

    def _step(self, n: fx.Node, sources: list[fx.Node], result: Any) -> str:
        tensors = [self.env[each] for each in sources]
        if not isinstance(result, torch.Tensor | tuple | list) or not all(isinstance(t, torch.Tensor) for t in tensors):
            return self.names[sources[0]]

        def run(*given: torch.Tensor) -> Any:
            held = dict(zip(sources, given, strict=True))
            args, kwargs = fx.map_arg((n.args, dict(n.kwargs)), lambda each: held.get(each, self.env.get(each)))
            return getattr(super(_Nodewise, self), n.op)(n.target, args, kwargs)

        prefix = str(n.target) if n.op == "call_module" else ""
        try:
            program = torch.export.export(_Only(run) if not prefix else self.fetch_attr(prefix), tuple(tensors))
            signature = program.graph_signature
            weights = {key: f"{prefix}.{name}" for key, name in signature.inputs_to_parameters.items()}
            given = dict(zip(signature.user_inputs, [self.names[each] for each in sources], strict=True))
            left = self.built.read(program.graph, weights, given, prefix)  # pyright: ignore[reportArgumentType]
            return left[0]
        except Exception:  # an operator that only runs: named, and the rest is read
            return self._unknown(n, sources, result)

    def _unknown(self, n: fx.Node, sources: list[fx.Node], result: Any) -> str:
        tensor = result[0] if isinstance(result, tuple | list) else result
        before = self.built.values[self.names[sources[0]]]
        axes = before.axes if len(before.shape) == tensor.ndim else ()
        output = self.built.value(n.name, tensor, axes)
        name = str(n.target) if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
        inputs = tuple(self.names[each] for each in sources)
        self.built.steps.append(Step(f"forward: {name}", name, inputs, output, known=False))
        return output


def _said(cause: Exception) -> str:
    """An error in one line."""
    line = " ".join(f"{type(cause).__name__}: {cause}".split())
    return line if len(line) <= 200 else f"{line[:197]}…"
