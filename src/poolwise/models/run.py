"""Running a user's model, PyTorch, Keras or ONNX, on NumPy arrays.

Each framework is imported inside its own function, where a model of its kind is at hand.
"""

# ruff: noqa: PLC0415 (for the reason above)

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.models import Shape, kind, only, said

Run = Callable[[NDArray[Any]], NDArray[Any]]


def declared(model: Any) -> Shape | None:
    """The shape of a model's one input, None for each size that is not fixed, the batch's too; None: it declares none.

    Raises InvalidType for what is no model, InvalidValue for a model of several inputs.
    """
    return only(import_module(f"poolwise.models.{kind(model)}").declared(model))


@contextmanager
def running(model: Any) -> Iterator[Run]:
    """A function from a batch, in the model's own layout, to the model's one output, both NumPy's.

    PyTorch runs in eval mode without gradients and is put back, Keras by `predict_on_batch`, ONNX by onnxruntime on the
    CPU (without it, by onnx's own reference, slowly). Batches are cast to what the model takes; where its batch is
    fixed, they are cut and filled up to it.

    The function raises InvalidValue for what the model raises, InvalidType if it gives anything but one array.

    >>> import torch
    >>> with running(torch.nn.Flatten()) as run:
    ...     run(np.zeros((5, 2, 3), np.float32)).shape
    (5, 6)
    """
    sizes = declared(model)
    fixed = sizes[0] if sizes else None
    with _RUNNERS[kind(model)](model) as run:
        yield lambda batch: _told(run, batch, fixed)


def _told(run: Run, batch: NDArray[Any], fixed: int | None) -> NDArray[Any]:
    try:
        if fixed is None or len(batch) == fixed:
            return _checked(run(batch), len(batch))
        parts = [batch[begin : begin + fixed] for begin in range(0, len(batch), fixed)]
        return np.concatenate([_checked(run(_filled(part, fixed)), fixed) for part in parts])[: len(batch)]
    except Fault:
        raise
    except Exception as cause:  # whatever the user's model raises
        raise InvalidValue(f"model must run on images of shape {batch.shape}, got {said(cause)}") from None


def whole_batches(model: Any, images: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """The images in batches that the model takes; of a fixed size, where its batch is fixed: then some may be left out.

    Where there are fewer images than the model takes at once, the last one stands in for those that lack.
    """
    sizes = declared(model)
    fixed = sizes[0] if sizes else None
    for begin in range(0, len(images), fixed or size):
        part = images[begin : begin + (fixed or size)]
        if fixed is None or len(part) == fixed or not begin:
            yield part if fixed is None else _filled(part, fixed)


def _filled(part: NDArray[Any], size: int) -> NDArray[Any]:
    """A batch of the size wanted: the last image stands in for those that lack."""
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]) if len(part) < size else part


def _checked(output: Any, count: int) -> NDArray[Any]:
    if not isinstance(output, np.ndarray):
        given = f"{len(output)} of them" if isinstance(output, list | tuple) else type(output).__name__
        raise InvalidType(f"model must give one array, got {given}; give a model that gives the one to be looked at")
    if not output.ndim or len(output) != count:
        raise InvalidValue(f"model must give an output for each of {count} images, got the shape {output.shape}")
    return output


@contextmanager
def _pytorch(model: Any) -> Iterator[Callable[[NDArray[Any]], Any]]:
    """In eval mode without gradients; every module gets back the mode that it was in."""
    import torch

    like = next((each for each in model.parameters() if each.is_floating_point()), torch.empty(0))

    def run(batch: NDArray[Any]) -> Any:
        x = torch.from_numpy(np.ascontiguousarray(batch))
        output = model(x.to(like.device, like.dtype if x.is_floating_point() else x.dtype))
        return _floats(output.detach().cpu()) if isinstance(output, torch.Tensor) else output

    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # `eval` may be a method of the user's, which changes more
        with torch.no_grad():
            yield run
    finally:
        for module, mode in modes:
            module.training = mode


def _floats(tensor: Any) -> NDArray[Any]:
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


@contextmanager
def _keras(model: Any) -> Iterator[Callable[[NDArray[Any]], Any]]:
    """As `predict_on_batch` runs it, compiled where Keras compiles; a layer that is no model, as it is."""
    import keras

    inputs = getattr(model, "inputs", None)

    def run(batch: NDArray[Any]) -> Any:
        x = batch.astype(inputs[0].dtype) if inputs else batch
        output = model.predict_on_batch(x) if hasattr(model, "predict_on_batch") else model(x)
        if isinstance(output, dict | list | tuple):
            return output
        values = np.asarray(keras.ops.convert_to_numpy(output))
        return values.astype(np.float32) if values.dtype.name == "bfloat16" else values

    yield run


@contextmanager
def _onnx(model: Any) -> Iterator[Callable[[NDArray[Any]], Any]]:
    """By onnxruntime on the CPU, or by onnx's own reference."""
    import onnx

    from poolwise.models.onnx import only_input
    from poolwise.models.record_onnx import session_of

    session, given = session_of(model), only_input(model)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)

    def run(batch: NDArray[Any]) -> Any:
        outputs = session.run(None, {given.name: batch.astype(dtype)})
        return outputs[0] if len(outputs) == 1 else outputs

    yield run


_RUNNERS = {"pytorch": _pytorch, "keras": _keras, "onnx": _onnx}
