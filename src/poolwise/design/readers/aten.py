"""What each of PyTorch's operators is: ONNX's name, what it reads, what it multiplies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from poolwise import Geometry, Lp, Max, Mean, Operation
from poolwise.design.readers import windows

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of an operator: its arguments by name, the shape and positions of what flows in, the shape given."""

    name: str
    given: Mapping[str, Any]
    shape: Shape
    axes: tuple[int, ...]
    output: Shape

    def sizes(self, axes: Sequence[int]) -> Shape:
        return tuple(self.shape[axis] for axis in axes)


@dataclass(frozen=True)
class Meaning:
    """What a call does. axes: the output's axes of position; None: as the input's."""

    op: str
    reads: Geometry | None = None
    axes: tuple[int, ...] | None = None
    pooling: Operation | None = None
    macs: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True


PLAIN = {
    "relu": "Relu", "relu6": "Clip", "hardtanh": "Clip", "clamp": "Clip", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "softmax": "Softmax", "log_softmax": "LogSoftmax", "leaky_relu": "LeakyRelu", "elu": "Elu", "selu": "Selu",
    "celu": "Celu", "gelu": "Gelu", "silu": "Swish", "mish": "Mish", "hardswish": "HardSwish", "exp": "Exp",
    "hardsigmoid": "HardSigmoid", "softplus": "Softplus", "softsign": "Softsign", "prelu": "PRelu", "log": "Log",
    "threshold": "ThresholdedRelu", "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "pow": "Pow", "sign": "Sign",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min", "where": "Where",
    "batch_norm": "BatchNormalization", "layer_norm": "LayerNormalization", "group_norm": "GroupNormalization",
    "instance_norm": "InstanceNormalization", "cat": "Concat", "concat": "Concat", "stack": "Concat", "rsub": "Sub",
    "roll": "Roll", "expand": "Expand",
}  # fmt: skip
IDENTITIES = {
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "detach", "contiguous", "clone", "alias",
    "to", "lift_fresh_copy", "lift_fresh",
}  # fmt: skip


def meaning(call: Call) -> Meaning:
    """What a call does; under its own name where that is not known."""
    for pattern, rule in RULES:
        found = re.fullmatch(pattern, call.name)
        if found is not None:
            return rule(call, found)
    if call.name in PLAIN:
        return Meaning(PLAIN[call.name])
    return Meaning(f"aten::{call.name}", known=False)


def _last(call: Call, rank: int) -> tuple[int, ...]:
    return tuple(range(len(call.shape) - rank, len(call.shape)))


def each(value: Any, rank: int) -> Shape:
    """One entry for each axis; one may stand for all."""
    entries = tuple(value) if isinstance(value, Sequence) else (value,)
    return entries * rank if len(entries) == 1 else entries


def _conv(call: Call, found: re.Match[str]) -> Meaning:
    rank, kernel = int(found[1]), tuple(call.given["weight"].shape)
    padding, axes = call.given["padding"], _last(call, rank)
    reads = Geometry.of(
        call.sizes(axes),
        window=kernel[2:],
        stride=each(call.given["stride"], rank),
        padding=padding if isinstance(padding, str) else each(padding, rank),
        dilation=each(call.given["dilation"], rank),
    )
    attributes = windows.attributes(reads, group=call.given["groups"], padding=padding)
    return Meaning("Conv", reads, axes, macs=prod(call.output) * prod(kernel[1:]), attributes=attributes)


def _conv_transpose(call: Call, found: re.Match[str]) -> Meaning:
    rank, kernel, given = int(found[1]), tuple(call.given["weight"].shape), call.given
    attributes = {
        "kernel_shape": list(kernel[2:]),
        "strides": list(each(given["stride"], rank)),
        "dilations": list(each(given["dilation"], rank)),
        "pads": list(each(given["padding"], rank)) * 2,
        "output_padding": list(each(given["output_padding"], rank)),
        "group": given["groups"],
    }
    macs = prod(call.shape) * prod(kernel[1:])
    return Meaning("ConvTranspose", None, _last(call, rank), macs=macs, attributes=attributes)


def _pool(call: Call, found: re.Match[str]) -> Meaning:
    rank, given, axes = int(found[2]), call.given, _last(call, int(found[2]))
    window = each(given["kernel_size"], rank)
    reads = Geometry.of(
        call.sizes(axes),
        window=window,
        stride=each(given["stride"], rank) if given["stride"] else window,
        padding=each(given["padding"], rank),
        dilation=each(given.get("dilation", 1), rank),
        ceil_mode=given["ceil_mode"],
    )
    if found[1] == "max":
        attributes = windows.attributes(reads, ceil_mode=int(given["ceil_mode"]))
        return Meaning("MaxPool", reads, axes, Max(), attributes=attributes)
    counted, divisor = given["count_include_pad"], given.get("divisor_override")
    op = Mean(count_include_pad=counted, divisor=divisor, rounding="truncate")
    attributes = windows.attributes(reads, ceil_mode=int(given["ceil_mode"]), count_include_pad=int(counted))
    return Meaning("AveragePool", reads, axes, op, attributes=attributes)


def _adaptive(call: Call, found: re.Match[str]) -> Meaning:
    rank = int(found[2])
    axes, outputs = _last(call, rank), call.output[-rank:]
    reads = Geometry.adaptive(call.sizes(axes), output_size=outputs)
    op, name = (Max(), "Max") if found[1] == "max" else (Mean(rounding="truncate"), "Average")
    form = "Global" if set(outputs) == {1} else "Adaptive"
    return Meaning(f"{form}{name}Pool", reads, axes, op, attributes={"output_size": list(outputs)})


def _reduced(call: Call, found: re.Match[str]) -> Meaning:
    """A mean or max of axes: global pooling, where they are all the positions."""
    dims = call.given.get("dim")
    asked = dims if isinstance(dims, Sequence) else range(len(call.shape)) if dims is None else (dims,)
    gone = tuple(sorted(axis % len(call.shape) for axis in asked))
    kept = len(call.output) == len(call.shape)
    left = tuple(axis for axis in call.axes if axis not in gone)
    axes = call.axes if kept else tuple(axis - sum(each < axis for each in gone) for axis in left)
    name, op = ("Average", Mean()) if found[1] == "mean" else ("Max", Max())
    if gone and gone == call.axes:
        reads = Geometry.whole(call.sizes(gone), tuple(range(len(gone))))
        return Meaning(f"Global{name}Pool", reads, call.axes if kept else (), op, attributes={"axes": list(gone)})
    return Meaning({"Average": "ReduceMean", "Max": "ReduceMax"}[name], axes=axes, attributes={"axes": list(gone)})


def _dense(call: Call, found: re.Match[str]) -> Meaning:
    inner = call.given["weight"].shape[-1]
    axes = tuple(axis for axis in call.axes if axis != len(call.shape) - 1)
    return Meaning("Gemm", axes=axes, macs=prod(call.output) * inner)


def _product(call: Call, found: re.Match[str]) -> Meaning:
    given, axes = call.given, tuple(axis for axis in call.axes if axis < len(call.output) - 1)
    inner = given["mat1"].shape[-1] if "mat1" in given else call.shape[-1]
    return Meaning("Gemm" if "mat1" in given else "MatMul", axes=axes, macs=prod(call.output) * inner)


def _reshaped(call: Call, found: re.Match[str]) -> Meaning:
    """Positions stay positions where their sizes stay the last ones."""
    sizes, rank = call.sizes(call.axes), len(call.axes)
    kept = rank and call.axes == _last(call, rank) and call.output[-rank:] == sizes and len(call.output) > rank
    axes = tuple(range(len(call.output) - rank, len(call.output))) if kept else ()
    return Meaning("Flatten" if call.name == "flatten" else "Reshape", axes=axes)


def _permuted(call: Call, found: re.Match[str]) -> Meaning:
    rank = len(call.shape)
    if call.name == "permute":
        order = [axis % rank for axis in call.given["dims"]]
    else:
        order, one, two = list(range(rank)), call.given["dim0"] % rank, call.given["dim1"] % rank
        order[one], order[two] = two, one
    return Meaning("Transpose", axes=tuple(order.index(axis) for axis in call.axes), attributes={"perm": order})


def _padded(call: Call, found: re.Match[str]) -> Meaning:
    pads, rank = call.given["pad"], len(call.shape)
    around = {rank - 1 - n: (pads[2 * n], pads[2 * n + 1]) for n in range(len(pads) // 2)}
    mode = call.given.get("mode", "constant")
    absent = "absent" if mode == "constant" else mode
    tables = [windows.shifted(call.shape[axis], *around.get(axis, (0, 0)), absent) for axis in call.axes]
    reads = windows.over(tables) if tables else None
    sides = [around.get(axis, (0, 0)) for axis in range(rank)]
    attributes = {"pads": [low for low, _ in sides] + [high for _, high in sides], "mode": mode}
    return Meaning("Pad", reads, attributes=attributes)


def _sliced(call: Call, found: re.Match[str]) -> Meaning:
    axis, step = call.given["dim"] % len(call.shape), call.given["step"]
    start = call.given["start"] or 0
    size = call.shape[axis]
    start = min(max(start + size if start < 0 else start, 0), size)
    attributes = {"axes": [axis], "starts": [start], "steps": [step]}
    if axis not in call.axes:
        return Meaning("Slice", attributes=attributes)
    tables = [
        windows.sliced(call.shape[each], call.output[each], *((start, step) if each == axis else (0, 1)))
        for each in call.axes
    ]
    return Meaning("Slice", windows.over(tables), attributes=attributes)


def _resized(call: Call, found: re.Match[str]) -> Meaning:
    scales = [after / before for before, after in zip(call.shape, call.output, strict=True)]
    return Meaning("Resize", attributes={"mode": found[1], "scales": scales})


def _unshuffled(call: Call, found: re.Match[str]) -> Meaning:
    factor, axes = call.given["downscale_factor"], _last(call, 2)
    reads = Geometry.of(call.sizes(axes), window=(factor, factor))
    return Meaning("SpaceToDepth", reads, axes, attributes={"blocksize": factor})


def _unpooled(call: Call, found: re.Match[str]) -> Meaning:
    return Meaning("MaxUnpool", axes=_last(call, int(found[1])))


def _shuffled(call: Call, found: re.Match[str]) -> Meaning:
    return Meaning("DepthToSpace", axes=_last(call, 2))


Rule = Callable[[Call, re.Match[str]], Meaning]
RULES: tuple[tuple[str, Rule], ...] = (
    (r"conv([123])d", _conv),
    (r"conv_transpose([123])d", _conv_transpose),
    (r"(max|avg)_pool([123])d(?:_with_indices)?", _pool),
    (r"adaptive_(max|avg)_pool([123])d", _adaptive),
    (r"(mean|amax)", _reduced),
    (r"linear", _dense),
    (r"addmm|mm|bmm|matmul", _product),
    (r"flatten|view|reshape|unflatten|squeeze|unsqueeze|_unsafe_view|select", _reshaped),
    (r"permute|transpose", _permuted),
    (r"pad|constant_pad_nd", _padded),
    (r"slice", _sliced),
    (r"upsample_(\w+?)[123]d", _resized),
    (r"pixel_unshuffle", _unshuffled),
    (r"max_unpool([23])d", _unpooled),
    (r"pixel_shuffle", _shuffled),
)


def norm(p: float, call: Call) -> Meaning:
    """A pooling by a p-norm, from the mean that PyTorch makes of it."""
    found = re.fullmatch(r"(avg)_pool([123])d", call.name)
    assert found is not None
    mean = _pool(call, found)
    return Meaning("LpPool", mean.reads, mean.axes, Lp(p) if p >= 1 else None, attributes={**mean.attributes, "p": p})
