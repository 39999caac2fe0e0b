"""The poolings of a Keras model, by its layers' calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from poolwise import Max, Mean
from poolwise.models.record import Pooling, Record, each_axis, pooling_of, windows

_LAYER = re.compile(r"(Global|Adaptive)?(\w+?)Pooling([123])D")


def run(model: Any, batches: Iterable[NDArray[Any]], record: Record) -> None:
    """Run a model eagerly, each pooling's `call` replaced by one that records."""
    inputs = getattr(model, "inputs", None)
    first, *others = [batch.astype(inputs[0].dtype) if inputs else batch for batch in batches]
    if not all(layer.built for layer in model._flatten_layers()):
        model(first)  # which traces the layers that it builds, with no numbers to see
    with ExitStack() as stack:
        for layer in model._flatten_layers():
            found = next(filter(None, map(_layer_class, type(layer).__mro__)), None)
            if found is not None:  # set past Keras, which would take notice
                stack.callback(partial(_restored, layer, vars(layer).get("call")))
                vars(layer)["call"] = _recorded(layer, found, record)
        for batch in (first, *others):
            record.begin()
            model(batch)


def _restored(layer: Any, call: Any) -> None:
    """A layer with the `call` that was set on it; None: with its class's."""
    if call is None:
        del vars(layer)["call"]
    else:
        vars(layer)["call"] = call


def _layer_class(base: type) -> re.Match[str] | None:
    """The parts of the name of a pooling class of Keras or poolwise."""
    return _LAYER.fullmatch(base.__name__) if base.__module__.partition(".")[0] in ("keras", "poolwise") else None


def _recorded(layer: Any, found: re.Match[str], record: Record) -> Callable[..., Any]:
    """The layer's `call`, recorded."""
    call, pooling, rank = layer.call, _pooling(layer, found), int(found[3])

    @wraps(call)
    def recorded(inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        outputs = call(inputs, *arguments, **keywords)
        masked = any(each is not None for each in (*arguments, keywords.get("mask")))
        told = Pooling(None, {}, "a mask leaves some steps out") if masked else pooling
        before, after = (_numbers(x, layer.data_format, rank, record.images) for x in (inputs, outputs))
        record.add(f"{layer.name} ({type(layer).__name__})", told, before, after, inputs.dtype)
        return outputs

    return recorded


def _pooling(layer: Any, found: re.Match[str]) -> Pooling:
    """A layer in poolwise's words; found: the parts of its class's name."""
    base: Any = next(base for base in type(layer).__mro__ if _layer_class(base))
    form, stem, rank = found[1], found[2], int(found[3])
    if type(layer).call is not base.call:
        return Pooling(None, {}, f"{type(layer).__name__} has a call of its own")
    if hasattr(layer, "composition"):
        return Pooling(None, {}, "poolwise makes it of several operations")
    op = getattr(layer, "op", None) or {"Max": Max(), "Average": Mean()}[stem]
    if form:
        arguments = {"output_size": (1,) * rank if form == "Global" else each_axis(layer.output_size, rank)}
    else:
        arguments = windows(rank, layer.pool_size, layer.strides, "same" if layer.padding == "same" else 0)
    if not op.arrays:
        return Pooling(op, arguments)
    if op.evaluated is not None:
        return Pooling(op.evaluated(), arguments)
    weights = {each.name: keras.ops.convert_to_numpy(getattr(layer, each.name)) for each in op.arrays if each.learned}
    return pooling_of(type(op), {**vars(op), **weights}, arguments)


def _numbers(x: Any, data_format: str, rank: int, images: slice) -> NDArray[Any]:
    """(N, channels, *sizes) of these images; the channels of a global pooling get axes of size 1."""
    some = np.array(keras.ops.convert_to_numpy(x))[images]
    some = some.astype(np.float32) if some.dtype.name == "bfloat16" else some
    if some.ndim == 2:
        return some.reshape(*some.shape, *(1,) * rank)
    return np.ascontiguousarray(np.moveaxis(some, -1, 1)) if data_format == "channels_last" else some
