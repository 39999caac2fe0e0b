"""A Keras model as a `Graph`: called on symbolic tensors, whose history is the network, on every backend."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import keras

from poolwise import Geometry, InvalidValue, Max, Mean, Operation
from poolwise.compose.balanced import balanced_pool
from poolwise.compose.named import operation
from poolwise.design.graph import Graph, Step, Value
from poolwise.design.readers import windows

PLAIN = {
    "ReLU": "Relu", "LeakyReLU": "LeakyRelu", "ELU": "Elu", "PReLU": "PRelu", "Softmax": "Softmax", "Relu": "Relu",
    "BatchNormalization": "BatchNormalization", "LayerNormalization": "LayerNormalization", "Add": "Add",
    "GroupNormalization": "GroupNormalization", "Subtract": "Sub", "Multiply": "Mul", "Average": "Mean",
    "Maximum": "Max", "Minimum": "Min", "Concatenate": "Concat", "Rescaling": "Mul", "Normalization": "Sub",
    "UpSampling1D": "Resize", "UpSampling2D": "Resize", "UpSampling3D": "Resize", "Resizing": "Resize",
    "Divide": "Div", "TrueDivide": "Div", "Relu6": "Clip", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Gelu": "Gelu",
    "Silu": "Swish", "Embedding": "Gather", "Clip": "Clip", "Power": "Pow",
}  # fmt: skip
RESHAPES = {"Flatten": "Flatten", "Reshape": "Reshape", "RepeatVector": "Expand", "Squeeze": "Squeeze"}
IDENTITIES = re.compile(
    r"\w*Dropout\w*|GaussianNoise|Identity|Random\w+|ActivityRegularization|Masking|InputLayer|ConvertToTensor|Cast"
)
ACTIVATIONS = {
    "relu": "Relu", "softmax": "Softmax", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu", "elu": "Elu",
    "selu": "Selu", "silu": "Swish", "swish": "Swish", "leaky_relu": "LeakyRelu", "relu6": "Clip", "mish": "Mish",
    "hard_sigmoid": "HardSigmoid", "hard_swish": "HardSwish", "softplus": "Softplus", "softsign": "Softsign",
}  # fmt: skip
STATISTICS = {"moving_mean", "moving_variance"}  # of a batch normalisation: no parameters, as elsewhere
_POOLING = re.compile(r"(Global|Adaptive)?(\w+?)Pooling([123])D")
_CONV = re.compile(r"(Depthwise|Separable)?Conv([123])D")
_SHIFT = re.compile(r"(ZeroPadding|Cropping)([123])D")


def graph(model: Any, shapes: Sequence[Any] | None = None) -> Graph:
    """The model's network on inputs of these shapes, in the model's own layout; None: those that it declares.

    Raises InvalidValue for a model that cannot be called on symbolic tensors.
    """
    sizes = _sizes(model, shapes)
    layers = model._flatten_layers()
    if not all(layer.built for layer in layers):
        _called(model, sizes, whole=True)
    with _untouched(model):
        inputs, outputs = _called(model, sizes)
        built = _Builder(_layout(model))
        for tensor in inputs:
            built.input(tensor)
        left = built.follow(outputs, "")
        names = tuple(built.names[id(each)] for each in inputs)
        return Graph(model.name, "keras", names, tuple(left), built.values, tuple(built.steps))


def _sizes(model: Any, shapes: Sequence[Any] | None) -> list[tuple[int, ...]]:
    if shapes:
        return [tuple(shape) for shape in (shapes if isinstance(shapes[0], Sequence) else [shapes])]
    declared = [tuple(each.shape) for each in getattr(model, "inputs", None) or []]
    if not declared or any(None in shape[1:] for shape in declared):
        raise InvalidValue(f"shapes must be given for a model that declares {declared or 'none'}, got None")
    return [(1 if shape[0] is None else shape[0], *shape[1:]) for shape in declared]


def _called(model: Any, sizes: list[tuple[int, ...]], *, whole: bool = False) -> tuple[list[Any], list[Any]]:
    """The model's `call` on symbolic tensors of these shapes; whole: its `__call__`, which builds it."""
    declared = getattr(model, "inputs", None) or [None] * len(sizes)
    tensors = [
        keras.KerasTensor(shape, dtype=getattr(like, "dtype", None) or "float32")
        for shape, like in zip(sizes, declared, strict=len(declared) == len(sizes))
    ]
    given = tensors[0] if len(tensors) == 1 else tensors
    try:
        return tensors, keras.tree.flatten(model(given) if whole else model.call(given, **_evaluating(model)))
    except Exception as cause:  # whatever the model raises
        line = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        raise InvalidValue(f"model must take symbolic tensors of shapes {sizes}, got {line}") from None


def _evaluating(layer: Any) -> dict[str, bool]:
    return {"training": False} if "training" in inspect.signature(layer.call).parameters else {}


@contextmanager
def _untouched(model: Any) -> Iterator[None]:
    """Keras notes every symbolic call in the layer: the notes made here are taken away again."""
    layers = model._flatten_layers()
    kept = [(notes, len(notes)) for layer in layers for notes in (layer._inbound_nodes, layer._outbound_nodes)]
    try:
        yield
    finally:
        for notes, count in kept:
            del notes[count:]


def _layout(model: Any) -> str:
    own = (getattr(layer, "data_format", None) for layer in model._flatten_layers())
    return next((each for each in own if each), keras.config.image_data_format())


def _positions(ndim: int, layout: str) -> tuple[int, ...]:
    first = 1 if layout == "channels_last" else 2
    return tuple(range(first, first + ndim - 2)) if ndim > 2 else ()


class _Builder:
    """The graph so far. names: the value of each symbolic tensor, which `alive` keeps."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.values: dict[str, Value] = {}
        self.steps: list[Step] = []
        self.names: dict[int, str] = {}
        self.alive: list[Any] = []
        self.times: Counter[str] = Counter()

    def input(self, tensor: Any) -> None:
        self._held(tensor, f"input_{len(self.names)}", _positions(len(tensor.shape), self.layout))

    def _held(self, tensor: Any, name: str, axes: tuple[int, ...]) -> str:
        self.alive.append(tensor)
        self.names[id(tensor)] = self.value(name, tensor, axes)
        return self.names[id(tensor)]

    def value(self, name: str, tensor: Any, axes: tuple[int, ...]) -> str:
        while name in self.values:
            name += "_"
        itemsize = {"bool": 1, "bfloat16": 2}.get(tensor.dtype, int((re.findall(r"\d+", tensor.dtype) or [32])[0]) // 8)
        self.values[name] = Value(name, tuple(tensor.shape), axes, itemsize)
        return name

    def follow(self, outputs: list[Any], prefix: str) -> list[str]:
        """The steps that lead to these tensors, from those that have names."""
        for node in self._order(outputs):
            self._node(node, prefix)
        return [self.names[id(each)] for each in outputs if id(each) in self.names]

    def _order(self, outputs: list[Any]) -> list[Any]:
        """The calls that made them, each after those that it needs."""
        order: dict[int, Any] = {}
        stack = [(each, False) for each in reversed(outputs)]
        while stack:
            tensor, done = stack.pop()
            history = getattr(tensor, "_keras_history", None)
            if id(tensor) in self.names or history is None or history.operation is None:
                continue
            node = history.operation._inbound_nodes[history.node_index]
            if done:
                order.setdefault(id(node), node)
            elif id(node) not in order:
                stack.append((tensor, True))
                stack.extend((each, False) for each in reversed(node.input_tensors))
        return list(order.values())

    def _node(self, node: Any, prefix: str) -> None:
        layer = node.operation
        flows = [each for each in node.input_tensors if id(each) in self.names]
        if not flows:
            return
        inside = self._inside(node, prefix)
        if inside is not None:
            for outer, name in zip(node.outputs, inside, strict=False):
                self.names[id(outer)] = name
                self.alive.append(outer)
        elif IDENTITIES.fullmatch(type(layer).__name__):
            self.names[id(node.outputs[0])] = self.names[id(flows[0])]
            self.alive.append(node.outputs[0])
        else:
            self._step(node, flows, prefix)

    def _inside(self, node: Any, prefix: str) -> list[str] | None:
        """The values that a layer made of layers, or of the user's own, gives; None: it is one step."""
        layer, steps, values = node.operation, len(self.steps), dict(self.values)
        if not isinstance(layer, keras.layers.Layer):
            return None
        ours = any(base.__module__.partition(".")[0] == "poolwise" for base in type(layer).__mro__)
        theirs = type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model)
        if ours or theirs:
            return None
        try:
            with _untouched(layer):
                keywords = {**node.arguments.kwargs, **_evaluating(layer)}
                outputs = keras.tree.flatten(layer.call(*node.arguments.args, **keywords))
                return self.follow(outputs, f"{prefix}{layer.name}/")
        except Exception:  # a `call` that takes numbers only: one step of its own name
            del self.steps[steps:]
            self.values = values
            return None

    def _step(self, node: Any, flows: list[Any], prefix: str) -> None:
        layer, output = node.operation, node.outputs[0]
        inputs = tuple(self.names[id(each)] for each in flows)
        before = self.values[inputs[0]]
        op, reads, pooling, macs, attributes, axes = _meaning(node, before, tuple(output.shape))
        self.times[f"{prefix}{layer.name}"] += 1
        count = self.times[f"{prefix}{layer.name}"]
        name = f"{prefix}{layer.name}" + (f" #{count}" if count > 1 else "")
        weights = {
            f"{each.path} {id(each)}": prod(each.shape)
            for each in getattr(layer, "weights", ())
            if each.name not in STATISTICS
        }
        named = self._held(output, name, axes)
        for extra in node.outputs[1:]:
            self.alive.append(extra)
            self.names[id(extra)] = named
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        fused = activation != "linear" and op in ("Conv", "ConvTranspose", "Gemm")
        made = self.value(f"{name}: linear", output, axes) if fused else named
        known = op != type(layer).__name__ or op in {*PLAIN.values(), *RESHAPES.values()}
        self.steps.append(Step(name, op, inputs, made, reads, pooling, weights, macs, known, attributes))
        if fused:
            self.steps.append(Step(f"{name}: {activation}", ACTIVATIONS.get(activation, activation), (made,), named))


Said = tuple[str, Geometry | None, Operation | None, int, dict[str, Any], tuple[int, ...]]


def _meaning(node: Any, before: Value, output: tuple[int, ...]) -> Said:
    """What a layer does: op, reads, pooling, multiplications, attributes, the output's positions."""
    layer = node.operation
    same = before.axes if len(output) == len(before.shape) else ()
    for base in type(layer).__mro__:
        for pattern, rule in ((_CONV, _conv), (_POOLING, _pool), (_SHIFT, _shift)):
            found = pattern.fullmatch(base.__name__)
            if found is not None:
                return rule(layer, found, before, output)
    name = type(layer).__name__
    transposed = re.fullmatch(r"(?:Depthwise)?Conv([123])DTranspose", name)
    if transposed is not None:
        axes = _positions(len(output), layer.data_format)
        macs = before.elements * prod(layer.kernel.shape[:-1])
        attributes = {"kernel_shape": list(layer.kernel_size), "strides": list(layer.strides), "padding": layer.padding}
        return "ConvTranspose", None, None, macs, attributes, axes
    if name == "Dense":
        axes = tuple(axis for axis in same if axis != len(output) - 1)
        return "Gemm", None, None, prod(output) * before.shape[-1], {}, axes
    if name == "Activation":
        activation = getattr(layer.activation, "__name__", "activation")
        return ACTIVATIONS.get(activation, activation), None, None, 0, {}, same
    if name in ("Mean", "Max") and not isinstance(layer, keras.layers.Layer):
        return _reduced(layer, before, output)
    if name == "Permute":
        order = [0, *layer.dims]
        return "Transpose", None, None, 0, {"perm": order}, tuple(order.index(axis) for axis in before.axes)
    if name in RESHAPES:
        return RESHAPES[name], None, None, 0, {}, ()
    attributes = {"mode": layer.interpolation} if hasattr(layer, "interpolation") else {}
    return PLAIN.get(name, name), None, None, 0, attributes, same


def _conv(layer: Any, found: re.Match[str], before: Value, output: tuple[int, ...]) -> Said:
    axes = _positions(len(output), layer.data_format)
    sizes = tuple(before.shape[axis] for axis in axes)
    reach = [(taps - 1) * gap for taps, gap in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    padding: Any = [(reach[0], 0)] if layer.padding == "causal" else layer.padding
    steps = layer.strides if isinstance(layer.strides, Sequence) else (layer.strides,) * len(sizes)
    reads = Geometry.of(
        sizes, window=layer.kernel_size, stride=steps, padding=padding, dilation=tuple(layer.dilation_rate)
    )
    channels = before.elements // before.shape[0] // prod(sizes)
    positions = before.shape[0] * prod(reads.outputs)
    if found[1] is None:
        group, macs = layer.groups, positions * prod(layer.kernel.shape)
    else:
        group, taps = channels, prod(layer.kernel_size) * channels * layer.depth_multiplier
        macs = positions * (taps + (prod(layer.pointwise_kernel.shape) if found[1] == "Separable" else 0))
    return "Conv", reads, None, macs, windows.attributes(reads, group=group, padding=layer.padding), axes


def _pool(layer: Any, found: re.Match[str], before: Value, output: tuple[int, ...]) -> Said:
    form, stem = found[1] or "", found[2]
    where = _positions(len(before.shape), layer.data_format)
    sizes = tuple(before.shape[axis] for axis in where)
    if hasattr(layer, "composition"):  # whose name says no operation
        return _composed(layer, before, before.axes if len(output) == len(before.shape) else ())
    op = getattr(layer, "op", None) or {"Max": Max(), "Average": Mean()}[stem]
    axes = where if len(output) == len(before.shape) else ()
    if form == "Global":
        reads = Geometry.whole(sizes, tuple(range(len(sizes))))
        return f"Global{stem}Pool", reads, op, 0, {}, axes
    if form == "Adaptive":
        outputs = tuple(output[axis] for axis in where)
        return f"Adaptive{stem}Pool", Geometry.adaptive(sizes, output_size=outputs), op, 0, {}, axes
    window, stride = (
        tuple(each) if isinstance(each, Sequence) else (each,) * len(sizes) for each in (layer.pool_size, layer.strides)
    )
    reads = Geometry.of(sizes, window=window, stride=stride, padding=layer.padding)
    return f"{stem}Pool", reads, op, 0, windows.attributes(reads, padding=layer.padding), axes


def _composed(layer: Any, before: Value, same: tuple[int, ...]) -> Said:
    """Balanced pooling as it is in evaluation; of another composition nobody here says what it reads."""
    if layer.composition.function is not balanced_pool:
        return type(layer).__name__, None, None, 0, {}, same
    given = layer.composition.at_rest(layer.arguments, training=False)
    axes = _positions(len(before.shape), layer.data_format)
    op, sizes = operation(given["op"]), tuple(before.shape[axis] for axis in axes)
    names = ("window", "stride", "padding", "dilation", "ceil_mode", "padding_mode", "offsets")
    reads = Geometry.of(sizes, tuple(range(len(sizes))), **{name: given[name] for name in names})
    return f"{op.stems[2]}Pool", reads, op, 0, windows.attributes(reads), axes


def _shift(layer: Any, found: re.Match[str], before: Value, output: tuple[int, ...]) -> Said:
    axes = _positions(len(output), getattr(layer, "data_format", None) or "channels_last")
    sign = 1 if found[1] == "ZeroPadding" else -1
    given = layer.padding if sign == 1 else layer.cropping
    pairs = [given] if isinstance(given[0], int) else given
    sides = zip(axes, pairs, strict=True)
    reads = windows.over([windows.shifted(before.shape[axis], sign * low, sign * high) for axis, (low, high) in sides])
    return ("Pad" if sign == 1 else "Slice"), reads, None, 0, {"pads": [list(pair) for pair in pairs]}, axes


def _reduced(layer: Any, before: Value, output: tuple[int, ...]) -> Said:
    """`keras.ops.mean` or `max` of axes: global pooling, where they are all the positions."""
    given = layer.axis if isinstance(layer.axis, Sequence) else () if layer.axis is None else (layer.axis,)
    gone = tuple(sorted(axis % len(before.shape) for axis in given))
    kept = before.axes if len(output) == len(before.shape) else ()
    name, op = ("Average", Mean()) if type(layer).__name__ == "Mean" else ("Max", Max())
    if gone and gone == before.axes:
        reads = Geometry.whole(before.sizes, tuple(range(len(gone))))
        return f"Global{name}Pool", reads, op, 0, {"axes": list(gone)}, kept
    return {"Average": "ReduceMean", "Max": "ReduceMax"}[name], None, None, 0, {"axes": list(gone)}, kept
