"""A user's model, PyTorch, Keras or ONNX, by the name of a file or of a factory, and the shape that it declares.

Each framework that keeps models in files has a file here, which imports it and is itself imported only where one of its
models is at hand.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from poolwise.errors import InvalidType, InvalidValue, MissingExtra
from poolwise.named import current_folder, factory

Shape = tuple[int | None, ...]

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".h5", ".hdf5")
NAMES = "a .onnx or .keras file or module:factory"
# the package and the name of a model's class -> its framework
_KINDS = {("keras", "Layer"): "keras", ("torch", "Module"): "pytorch", ("onnx", "ModelProto"): "onnx"}
# a file's suffix -> its framework, and how that is installed
_FILES = {".onnx": ("onnx", "pip install onnx onnxruntime"), ".keras": ("keras", 'pip install "poolwise[keras]"')}
# those whose code runs when they are opened
_TRUSTED = {
    **dict.fromkeys((".keras", ".h5", ".hdf5"), _FILES[".keras"]),
    **dict.fromkeys((".pt", ".pth"), ("pytorch", 'pip install "poolwise[torch]"')),
}


def input_shape(model: Any) -> Shape | None:
    """The batch's shape that a model of one input declares, as `input_shapes` gives it; None: it declares none.

    Raises InvalidType for what is no model, InvalidValue for a model of several inputs.
    """
    return only(input_shapes(model))


def only(shapes: Sequence[Shape]) -> Shape | None:
    """The shape of the one input, None where none is declared; InvalidValue for several."""
    if len(shapes) > 1:
        raise InvalidValue(f"model must take one input, got inputs of the shapes {', '.join(map(str, shapes))}")
    return shapes[0] if shapes else None


def input_shapes(model: Any) -> list[Shape]:
    """The batch's shape of each input that a model declares: a dynamic batch is 1, other dynamic sizes None.

    Empty where it declares none. Raises InvalidType for what is no model.
    """
    return [(1 if shape[0] is None else shape[0], *shape[1:]) for shape in _reader(kind(model), "declared")(model)]


def load(name: str | Path, *, trust: bool = False) -> Any:
    """The model of a name: `model.onnx`, `model.keras`, or `module:factory`, which is called.

    trust: whether a file may run its own code: a .keras file with Lambda layers, a whole module that torch.save wrote
    (.pt, .pth), a legacy .h5 file of Keras.

    Raises InvalidValue for any other name, and for a file that is damaged or would run code; InvalidType if the factory
    or the file holds no model; MissingExtra if the framework is not installed.
    """
    path, suffix = Path(name), Path(name).suffix.lower()
    if trust and suffix in _TRUSTED:
        return _trusted(path, suffix)
    if suffix in PICKLES:
        raise InvalidValue(
            f"model must be {NAMES}, got {str(name)!r}: it runs code when it is opened; give module:factory"
            f"{', or --trust it where that is taken' if suffix in _TRUSTED else ''}"
        )
    if suffix in _FILES:
        if not path.is_file():
            raise InvalidValue(f"model must be a file that exists, got {str(name)!r}")
        return _read(path, suffix)
    if ":" not in str(name):
        raise InvalidValue(f"model must be {NAMES}, got {str(name)!r}")
    return _made(str(name))


def _trusted(path: Path, suffix: str) -> Any:
    """The model in a file whose code may run."""
    if not path.is_file():
        raise InvalidValue(f"model must be a file that exists, got {str(path)!r}")
    framework, install = _TRUSTED[suffix]
    try:
        found = _reader(framework, "trusted")(path)
    except ImportError as cause:
        raise MissingExtra(f"a {suffix} file needs {cause.name}: {install}") from None
    except Exception as cause:  # whatever the file's own code raises
        raise InvalidValue(
            f"model must be a file that {framework} can open, got {str(path)!r} ({said(cause)})"
        ) from None
    kind(found)
    return found


def _read(path: Path, suffix: str) -> Any:
    """The model in a file, by its framework's reader."""
    if suffix == ".keras" and not zipfile.is_zipfile(path):  # seen before Keras is imported, which takes seconds
        raise InvalidValue(f"model must be a .keras archive, got {str(path)!r}, which is damaged or something else")
    name, install = _FILES[suffix]
    try:
        return _reader(name, "load")(path)
    except ImportError as cause:
        raise MissingExtra(f"a {suffix} file needs {cause.name}: {install}") from None


def _made(name: str) -> Any:
    """The model that `module:attribute` is, or makes."""
    found = factory(name)
    try:
        kind(found)
    except InvalidType:
        try:
            with current_folder():
                found = found()
        except Exception as cause:  # whatever the user's factory raises
            raise InvalidValue(f"model must be made by {name}(), got {said(cause)}") from None
    kind(found)
    return found


def kind(model: Any) -> str:
    """A model's framework, by the names of its classes, so that nothing is imported to know: keras, pytorch or onnx.

    Raises InvalidType for what is no model.
    """
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__}
    for known, name in _KINDS.items():
        if known in classes:  # Keras on PyTorch is both of the first two
            return name
    kinds = "a torch.nn.Module, a keras model or an onnx.ModelProto"
    raise InvalidType(f"model must be {kinds}, got {type(model).__name__}")


def _reader(framework: str, function: str) -> Any:
    """A function of a framework's file of this package, imported now."""
    return getattr(import_module(f"{__name__}.{framework}"), function)


def said(cause: Exception) -> str:
    """A framework's error in one line, without colours, the arguments that Keras adds, and a long middle."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).partition("Arguments received by")[0]
    line = " ".join(f"{type(cause).__name__}: {text}".split())
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"
