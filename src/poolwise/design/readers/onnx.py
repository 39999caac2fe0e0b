"""An ONNX model as a `Graph`: by its nodes and ONNX's own inference of shapes. Nothing is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import onnx
from onnx import inliner, numpy_helper, shape_inference

from poolwise import Geometry, InvalidValue, Lp, Max, Mean, Operation
from poolwise.design.graph import Graph, Step, Value
from poolwise.design.readers import windows
from poolwise.geometry import Regular
from poolwise.models import said
from poolwise.models.onnx import inputs

_WINDOWED = re.compile(r"(Max|Average|Lp)Pool|Conv")
_GLOBAL = re.compile(r"Global(Max|Average|Lp)Pool")
_POOLINGS: dict[str, type[Operation]] = {"Max": Max, "Average": Mean, "Lp": Lp}
_AUTO_PAD = {b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower"}
# how many of a node's constants are parameters; of a normalisation the statistics are none
_PARAMETERS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "InstanceNormalization"), 2),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), 2),
    **dict.fromkeys(("MatMul", "PRelu", "Add", "Mul"), 1),
}
_PAD_MODES = {b"constant": "absent", b"reflect": "reflect", b"edge": "replicate", b"wrap": "circular"}
_FLAT = {"Flatten", "Gemm", "MatMul", "Shape", "Squeeze", "Unsqueeze"}


def graph(model: Any, shapes: Sequence[Sequence[int]]) -> Graph:
    """The model's network on inputs of these shapes, one for each.

    Raises InvalidValue for another number of shapes than inputs, and where shapes contradict each other.
    """
    model = inliner.inline_local_functions(model)
    taken = inputs(model)
    if len(taken) != len(shapes):
        names = ", ".join(each.name for each in taken)
        raise InvalidValue(f"input must be given for each of {names}, got {len(shapes)}", "review")
    changed = [_reshaped(given, shape) for given, shape in zip(taken, shapes, strict=True)]
    if any(changed):
        del model.graph.value_info[:]  # what was said of the other sizes
        for each in model.graph.output:
            each.type.tensor_type.ClearField("shape")
    try:
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as cause:  # whatever contradicting shapes lead to
        raise InvalidValue(f"model must have shapes that agree, got {said(cause)}", "review") from None
    return _Builder(model, [each.name for each in taken]).graph()


def _reshaped(given: Any, shape: Sequence[int]) -> bool:
    """Gives an input this shape, and says whether it had another."""
    before = _sizes(given)
    declared = given.type.tensor_type.shape.dim
    if len(declared) not in (0, len(shape)):
        raise InvalidValue(f"input must have {len(declared)} sizes, got {'x'.join(map(str, shape))}", "review")
    del declared[:]
    for size in shape:
        declared.add().dim_value = size
    return before != tuple(shape)


class _Builder:
    """The graph so far. What no input flows into is a constant."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        self.title, self.inputs, self.nodes = model.graph.name, inputs, model.graph.node
        self.outputs = [each.name for each in model.graph.output]
        infos = [*model.graph.input, *model.graph.value_info, *model.graph.output]
        self.shapes: dict[str, tuple[int, ...] | None] = {
            each.name: tuple(each.dims) for each in model.graph.initializer
        }
        self.shapes |= {each.name: _sizes(each) for each in infos}
        self.itemsizes = {each.name: _itemsize(each.type.tensor_type.elem_type) for each in infos}
        self.constants = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.values: dict[str, Value] = {}
        self.same: dict[str, str] = {}
        self.steps: list[Step] = []

    def graph(self) -> Graph:
        for name in self.inputs:
            self._value(name, len(self.shapes.get(name) or ()) - 2)
        for place, node in enumerate(self.nodes):
            flowing = tuple(dict.fromkeys(self._named(name) for name in node.input if name in self.values))
            if flowing:
                self._step(node, flowing, node.name or f"{node.op_type}_{place}")
        outputs = tuple(map(self._named, self.outputs))
        return Graph(self.title, "onnx", tuple(self.inputs), outputs, self.values, tuple(self.steps))

    def _named(self, name: str) -> str:
        return self.same.get(name, name)

    def _value(self, name: str, positions: int) -> None:
        """positions: how many of the last axes are."""
        shape = self.shapes.get(name) or ()
        axes = tuple(range(len(shape) - positions, len(shape))) if 0 < positions < len(shape) else ()
        self.values[name] = Value(name, shape, axes, self.itemsizes.get(name, 4))

    def _step(self, node: Any, flowing: tuple[str, ...], name: str) -> None:
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        known = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)
        positions = self._positions(node, given, self.values[flowing[0]]) if known else 0
        for output in filter(None, node.output):
            self._value(output, positions)
        if node.op_type in ("Dropout", "Identity") and known:
            return self._alias(node, flowing[0])
        reads, pooling = self._reading(node, given, self.values[flowing[0]]) if known else (None, None)
        step = Step(
            name,
            node.op_type,
            flowing,
            node.output[0],
            reads,
            pooling,
            self._weights(node),
            self._macs(node, given, flowing[0]) if known else 0,
            known,
            given,
        )
        self.steps.append(step)
        return None

    def _positions(self, node: Any, given: Mapping[str, Any], value: Value) -> int:
        """How many axes of position are left: all, unless they are moved or laid together."""
        count = len(value.axes)
        if not count or node.op_type in _FLAT:
            return 0
        if node.op_type == "Reshape" and (self.shapes.get(node.output[0]) or ())[-count:] != value.sizes:
            return 0
        rank = len(value.shape)
        if node.op_type == "Transpose" and list(given.get("perm", ()))[-count:] != list(range(rank - count, rank)):
            return 0
        return count

    def _alias(self, node: Any, source: str) -> None:
        """A step that changes nothing is left out: who reads its output reads its input."""
        self.values[node.output[0]] = self.values[source]
        self.same[node.output[0]] = source

    def _reading(self, node: Any, given: Mapping[str, Any], value: Value) -> tuple[Geometry | None, Operation | None]:
        sizes, whole = value.sizes, _GLOBAL.fullmatch(node.op_type)
        if not sizes:
            return None, None
        if whole:
            return Geometry.whole(sizes, tuple(range(len(sizes)))), _operation(whole.group(1), given)
        if node.op_type in ("Slice", "Pad"):
            return self._moved(node, given, value), None
        windowed = _WINDOWED.fullmatch(node.op_type)
        if windowed is None:
            return None, None
        rank = len(sizes)
        weights = self.shapes.get(node.input[1]) if node.op_type == "Conv" else None
        window = tuple(given.get("kernel_shape") or (weights or ())[2:])
        if len(window) != rank:
            return None, None
        pads = given.get("pads") or (0,) * 2 * rank
        reads = Geometry.of(
            sizes,
            window=window,
            stride=tuple(given.get("strides") or (1,) * rank),
            padding=_AUTO_PAD.get(given.get("auto_pad", b""), tuple(zip(pads[:rank], pads[rank:], strict=True))),
            dilation=tuple(given.get("dilations") or (1,) * rank),
            ceil_mode=bool(given.get("ceil_mode", 0)),
        )
        return reads, None if node.op_type == "Conv" else _operation(windowed.group(1), given)

    def _moved(self, node: Any, given: Mapping[str, Any], value: Value) -> Geometry | None:
        """What a slice or a pad reads; None where the model computes its places."""
        rank, made = len(value.shape), self.shapes.get(node.output[0])
        if made is None or len(made) != rank:
            return None
        if node.op_type == "Slice":
            starts, axes = self._numbers(node, given, 1, "starts"), self._numbers(node, given, 3, "axes")
            if starts is None:
                return None
            steps = self._numbers(node, given, 4, "steps") or (1,) * len(starts)
            places = {
                axis % rank: (start, step)
                for axis, start, step in zip(axes or range(rank), starts, steps, strict=False)
            }
            if any(step < 1 for _, step in places.values()):
                return None
            return windows.over([_sliced(value.shape[a], made[a], places.get(a, (0, 1))) for a in value.axes])
        pads, axes = self._numbers(node, given, 1, "pads"), self._numbers(node, given, 3, "axes") or range(rank)
        mode = _PAD_MODES.get(given.get("mode", b"constant"))
        if pads is None or mode is None:
            return None
        half = len(pads) // 2
        sides = zip(axes, pads[:half], pads[half:], strict=False)
        around = {axis % rank: (low, high) for axis, low, high in sides}
        return windows.over([windows.shifted(value.shape[a], *around.get(a, (0, 0)), mode) for a in value.axes])

    def _numbers(self, node: Any, given: Mapping[str, Any], place: int, name: str) -> tuple[int, ...] | None:
        """The integers of a constant input, or of the attribute that it was before; None where there are none."""
        if name in given:
            return tuple(given[name])
        held = self.constants.get(node.input[place]) if len(node.input) > place else None
        return None if held is None else tuple(map(int, numpy_helper.to_array(held).ravel()))

    def _weights(self, node: Any) -> dict[str, int]:
        constant = [name for name in node.input if name and name not in self.values]
        return {name: prod(self.shapes.get(name) or ()) for name in constant[: _PARAMETERS.get(node.op_type, 0)]}

    def _macs(self, node: Any, given: Mapping[str, Any], source: str) -> int:
        weights = self.shapes.get(node.input[1]) if len(node.input) > 1 else None
        made = prod(self.shapes.get(node.output[0]) or (0,))
        if node.op_type == "Conv" and weights:
            return made * prod(weights[1:])
        if node.op_type == "ConvTranspose" and weights:
            return self.values[source].elements * prod(weights[1:])
        if node.op_type == "Gemm" and weights:
            return made * weights[1 if given.get("transB") else 0]
        if node.op_type == "MatMul":
            return made * (self.shapes.get(node.input[0]) or (0,))[-1]
        return 0


def _sliced(size: int, output: int, place: tuple[int, int]) -> Regular:
    start, step = place
    return windows.sliced(size, output, min(max(start + size if start < 0 else start, 0), size), step)


def _operation(name: str, given: Mapping[str, Any]) -> Operation:
    kind = _POOLINGS[name]
    if kind is Mean:
        return Mean(count_include_pad=bool(given.get("count_include_pad", 0)))
    return Lp(given.get("p", 2)) if kind is Lp else kind()


def _sizes(info: Any) -> tuple[int, ...] | None:
    """None where a size is not known."""
    sizes = [each.dim_value for each in info.type.tensor_type.shape.dim]
    return tuple(sizes) if sizes and all(size > 0 for size in sizes) else None


def _itemsize(kind: int) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if kind else 4
