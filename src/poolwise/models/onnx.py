"""The reading of an .onnx file and its data beside it, and of what it declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from poolwise.errors import InvalidValue
from poolwise.models import Shape, said


def only_input(model: Any) -> Any:
    """The one input; initialisers that are listed as inputs are none."""
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if len(inputs) != 1:
        raise InvalidValue(f"model must take one input, got {', '.join(each.name for each in inputs) or 'none'}")
    return inputs[0]


def declared(model: Any) -> Shape | None:
    """The shape of a model's one input, None where it has none."""
    sizes = only_input(model).type.tensor_type.shape.dim
    return tuple(each.dim_value if each.dim_value > 0 else None for each in sizes) or None


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
