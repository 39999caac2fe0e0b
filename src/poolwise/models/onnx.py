"""The reading of an .onnx file and its data beside it, and of what it declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from poolwise.errors import InvalidValue
from poolwise.models import Shape, said


def inputs(model: Any) -> list[Any]:
    """The inputs; initialisers that are listed as inputs are none."""
    constants = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in constants]


def only_input(model: Any) -> Any:
    """The one input."""
    found = inputs(model)
    if len(found) != 1:
        raise InvalidValue(f"model must take one input, got {', '.join(each.name for each in found) or 'none'}")
    return found[0]


def declared(model: Any) -> list[Shape]:
    """The shape of each input that declares one."""
    sizes = [each.type.tensor_type.shape.dim for each in inputs(model)]
    return [tuple(size.dim_value if size.dim_value > 0 else None for size in each) for each in sizes if each]


def load(path: Path) -> Any:
    """The model in a file, checked; of other files, only those in its folder are opened."""
    folder = path.resolve().parent
    try:
        model = onnx.load(path, load_external_data=False)
        for location in {ExternalDataInfo(each).location for each in model.graph.initializer if each.external_data}:
            beside = (folder / location).resolve()
            if not (beside.is_relative_to(folder) and beside.is_file()):
                raise InvalidValue(f"model must have its data in files beside it, got {location!r} in {str(path)!r}")
        load_external_data_for_model(model, str(folder))
        onnx.checker.check_model(model)
    except InvalidValue:
        raise
    except Exception as cause:  # whatever a damaged file leads to
        raise InvalidValue(f"model must be an ONNX file, got {str(path)!r} ({said(cause)})") from None
    return model
