"""The poolings of a user's own model, PyTorch, Keras or ONNX: its feature maps before and after each, from one run.

What each pooling is, is said in poolwise's words and then held against what the model computed; where the two differ,
the stage's note says so. The recording itself is in `poolwise.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from poolwise import InvalidType, InvalidValue
from poolwise.models import Shape, load, said
from poolwise.models import input_shape as declared_shape
from poolwise.models.record import Record, Stage, run

__all__ = ["Stage", "stages"]

MOST = 1 << 28  # numbers that are made where no images are given: 1 GiB of them


def stages(model: Any, images: Any = None, *, input_shape: tuple[int, ...] | None = None) -> list[Stage]:
    """Run a model once on a batch and record every pooling, in the order of execution.

    model: a torch.nn.Module, a keras model or layer, an onnx.ModelProto, or what `load` takes; left as it was.
    images: the batch as the model takes it: NCHW for PyTorch and ONNX, Keras in the model's own layout; floats are cast
        to the model's dtype. None: random numbers in [0, 1) of `input_shape`, or of the shape that the model declares.

    PyTorch runs in eval mode without gradients; modules and calls of functions are seen, in TorchScript neither, in an
    exported program only PyTorch's. Keras runs eagerly (twice if it is not built); layers are seen, `keras.ops` is not.
    ONNX: the main graph and the model's own functions.

    Raises InvalidType for what is no model, InvalidValue if it does not run on the batch or has no pooling.
    """
    model = load(model) if isinstance(model, str | Path) else model
    batch = _batch(images, input_shape, declared_shape(model))
    record = Record()
    try:
        run(model, [batch], record)
    except Exception as cause:  # whatever the user's model raises
        raise InvalidValue(f"model must run on images of shape {batch.shape}, got {said(cause)}") from None
    if not record.stages:
        raise InvalidValue(f"model must have a pooling, got {type(model).__name__}, in which none was seen")
    return record.stages


def _batch(images: Any, shape: Sequence[int] | None, declared: Shape | None) -> NDArray[Any]:
    """The images, checked; or random ones of the shape that is known."""
    if images is None:
        known = declared if shape is None else shape
        if known is None or None in known:
            raise InvalidValue(f"images or input_shape must be given for a model that declares {_written(known)}")
        if not all(isinstance(size, int) and size > 0 for size in known):
            raise InvalidValue(f"input_shape must be made of ints, each at least 1, got {known}")
        if prod(cast("Any", known)) > MOST:
            raise InvalidValue(f"input_shape must be of at most {MOST:,} numbers, got {known}")
        images = np.random.default_rng(0).random(cast("Any", known), np.float32)
    try:
        array = np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as cause:  # a ragged list, a tensor on another device
        raise InvalidType(f"images must be an array of numbers, got {type(images).__name__} ({said(cause)})") from None
    if array.dtype.kind not in "biuf" or not array.size:
        raise InvalidValue(f"images must be an array of numbers, got {array.dtype} of shape {array.shape}")
    for wanted in filter(None, (shape, declared and (None, *declared[1:]))):
        if len(array.shape) != len(wanted) or any(b not in (None, a) for a, b in zip(array.shape, wanted, strict=True)):
            raise InvalidValue(f"images must have {_written(wanted)}, got {array.shape}")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _written(shape: Sequence[int | None] | None) -> str:
    """A shape as a message says it."""
    sizes = ["any" if size is None else str(size) for size in shape or ()]
    return f"the shape ({', '.join(sizes)})" if sizes else "no shape"
