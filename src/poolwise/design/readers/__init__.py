"""Models of every framework as a `Graph`: one file each, imported only where a model of its kind is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from poolwise import InvalidValue
from poolwise.design.graph import Graph
from poolwise.models import input_shape, kind, load

__all__ = ["read"]


def read(model: Any, shape: Sequence[int] | None = None) -> Graph:
    """The network of a torch.nn.Module, a keras model, an onnx.ModelProto, or what a name stands for.

    shape: the batch's, in the model's own layout; None: what the model declares, with a batch of 1.

    Raises InvalidType for what is no model; InvalidValue for a file that is damaged, and where nobody declares a size.
    """
    model = load(model) if isinstance(model, str | Path) else model
    reader = kind(model)
    sizes = tuple(shape) if shape is not None else input_shape(model)
    if sizes is None or not all(isinstance(size, int) and size > 0 for size in sizes):
        declared = "no shape" if sizes is None else "x".join("?" if size is None else str(size) for size in sizes)
        raise InvalidValue(f"input must be given, such as 1x3x224x224, for a model that declares {declared}", "review")
    return import_module(f"{__name__}.{reader}").graph(model, [sizes])
