"""The poolings of an ONNX model, by the nodes of its graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import onnx
from numpy.typing import NDArray
from onnx import inliner, numpy_helper

from poolwise import Lp, Max, Mean, Operation
from poolwise.models.onnx import only_input
from poolwise.models.record import Pooling, Record, pooling_of, windows

_NODE = re.compile(r"(Global)?(Max|Average|Lp)Pool")
_AUTO_PAD = {b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower", b"VALID": 0}


def run(model: Any, batches: Iterable[NDArray[Any]], record: Record) -> None:
    """Runs a copy of the model whose outputs are what its poolings take and give."""
    given = only_input(model)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    copy = inliner.inline_local_functions(model)
    found = [(place, node) for place, node in enumerate(copy.graph.node) if _is_pooling(node)]
    constants = {each.name: numpy_helper.to_array(each) for each in copy.graph.initializer}
    names = dict.fromkeys(name for _, node in found for name in (node.input[0], node.output[0]))
    asked = [name for name in names if name != given.name and name not in constants]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    session = session_of(copy) if asked else None
    for batch in batches:
        record.begin()
        x = batch.astype(dtype)
        made = session.run(asked, {given.name: x}) if session else ()
        values = {given.name: x, **constants, **dict(zip(asked, made, strict=True))}
        for place, node in found:
            _add(record, node, place, values)


def _add(record: Record, node: Any, place: int, values: Mapping[str, Any]) -> None:
    """One pooling of one batch."""
    before, after = (values[name][record.images] for name in (node.input[0], node.output[0]))
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    pooling = _pooling(node.op_type, attributes, before.ndim - 2)
    record.add(node.name or f"{node.op_type}_{place}", pooling, before, after, before.dtype)


def session_of(model: Any) -> Any:
    """What runs a model: onnxruntime where it is installed."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

        return ReferenceEvaluator(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, and need not be printed too
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _is_pooling(node: Any) -> bool:
    """Whether a node is a pooling of ONNX itself, not of another domain."""
    return node.domain in ("", "ai.onnx") and _NODE.fullmatch(node.op_type) is not None


def _pooling(name: str, given: Mapping[str, Any], rank: int) -> Pooling:
    """By ONNX's attributes; where none is given the stride is 1."""
    whole, stem = cast("re.Match[str]", _NODE.fullmatch(name)).groups()
    kind: type[Operation] = {"Max": Max, "Average": Mean, "Lp": Lp}[stem]
    own = {"count_include_pad": bool(given.get("count_include_pad", 0)), "p": given.get("p", 2)}
    if whole:
        return pooling_of(kind, own, {"output_size": (1,) * rank})
    pads = given.get("pads") or (0,) * 2 * rank
    padding = _AUTO_PAD.get(given.get("auto_pad", b""), tuple(zip(pads[:rank], pads[rank:], strict=True)))
    steps, gaps = given.get("strides") or 1, given.get("dilations") or 1
    return pooling_of(kind, own, windows(rank, given["kernel_shape"], steps, padding, gaps, given.get("ceil_mode")))
