"""The poolings of a user's own model, PyTorch, Keras or ONNX: its feature maps before and after each, from one run.

What each pooling is, is said in poolwise's words and then held against what the model computed; where the two differ,
the stage's note says so. Each framework has a file here, its reader, which imports it and is itself imported only where
a model of its kind, or a file of one, is at hand.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from poolwise import InvalidType, InvalidValue, MissingExtra
from poolwise.explorer.models.record import Record, Shape, Stage, said
from poolwise.named import current_folder, factory

__all__ = ["PICKLES", "Stage", "input_shape", "load", "stages"]

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".h5", ".hdf5")
MOST = 1 << 28  # numbers that are made where no images are given: 1 GiB of them
NAMES = "a .onnx or .keras file or module:factory"
# the package and the name of a model's class -> its reader
_READERS = {("keras", "Layer"): "keras", ("torch", "Module"): "pytorch", ("onnx", "ModelProto"): "onnx"}
# a file's suffix -> its reader, and how its framework is installed
_FILES = {".onnx": ("onnx", "pip install onnx onnxruntime"), ".keras": ("keras", 'pip install "poolwise[keras]"')}


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
    reader = _reader(_kind(model))
    batch = _batch(images, input_shape, _declared(model))
    record = Record()
    try:
        reader.run(model, batch, record)
    except Exception as cause:  # whatever the user's model raises
        raise InvalidValue(f"model must run on images of shape {batch.shape}, got {said(cause)}") from None
    if not record.stages:
        raise InvalidValue(f"model must have a pooling, got {type(model).__name__}, in which none was seen")
    return record.stages


def input_shape(model: Any) -> Shape | None:
    """The batch's shape that a model declares: a dynamic batch is 1, other dynamic sizes None. None: it declares none.

    Raises InvalidType for what is no model, InvalidValue for a model of several inputs.
    """
    return _declared(model)


def load(name: str | Path) -> Any:
    """The model of a name: `model.onnx`, `model.keras`, or `module:factory`, which is called.

    Raises InvalidValue for any other name, and for a file that is damaged or would run code; InvalidType if the factory
    makes no model; MissingExtra if the framework is not installed.
    """
    path, suffix = Path(name), Path(name).suffix.lower()
    if suffix in PICKLES:
        raise InvalidValue(
            f"model must be {NAMES}, got {str(name)!r}: a pickle runs code when it is opened; give module:factory"
        )
    if suffix in _FILES:
        if not path.is_file():
            raise InvalidValue(f"model must be a file that exists, got {str(name)!r}")
        return _read(path, suffix)
    if ":" not in str(name):
        raise InvalidValue(f"model must be {NAMES}, got {str(name)!r}")
    return _made(str(name))


def _read(path: Path, suffix: str) -> Any:
    """The model in a file, by its framework's reader."""
    if suffix == ".keras" and not zipfile.is_zipfile(path):  # seen before Keras is imported, which takes seconds
        raise InvalidValue(f"model must be a .keras archive, got {str(path)!r}, which is damaged or something else")
    name, install = _FILES[suffix]
    try:
        return _reader(name).load(path)
    except ImportError as cause:
        raise MissingExtra(f"a {suffix} file needs {cause.name}: {install}") from None


def _made(name: str) -> Any:
    """The model that `module:attribute` is, or makes."""
    found = factory(name)
    try:
        _kind(found)
    except InvalidType:
        try:
            with current_folder():
                found = found()
        except Exception as cause:  # whatever the user's factory raises
            raise InvalidValue(f"model must be made by {name}(), got {said(cause)}") from None
    _kind(found)
    return found


def _reader(name: str) -> Any:
    """A framework's file of this package, imported now: its `run`, `declared` and, where models have files, `load`."""
    return import_module(f"{__name__}.{name}")


def _kind(model: Any) -> str:
    """The reader of a model, by the names of its classes, so that nothing is imported to know."""
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__}
    for known, name in _READERS.items():
        if known in classes:  # Keras on PyTorch is both of the first two
            return name
    kinds = "a torch.nn.Module, a keras model or an onnx.ModelProto"
    raise InvalidType(f"model must be {kinds}, got {type(model).__name__}")


def _declared(model: Any) -> Shape | None:
    """A model's own shape with a batch of 1 where it leaves that open."""
    shape = _reader(_kind(model)).declared(model)
    return shape and (1 if shape[0] is None else shape[0], *shape[1:])


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
