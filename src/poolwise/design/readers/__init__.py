"""Models of every framework as a `Graph`: one file each, imported only where a model of its kind is at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from poolwise import InvalidValue
from poolwise.design.graph import MERGES, Graph, Unfit
from poolwise.models import input_shapes, kind, load

__all__ = ["read"]

Shapes = tuple[tuple[int, ...], ...]
# how PyTorch, Keras and ONNX say that arrays which meet have different sizes
_DISAGREE = re.compile(
    "|".join(
        (
            r"Sizes of tensors must match.*?got \d+",
            r"The size of tensor a .*? dimension \d+",
            r"Inputs have incompatible shapes.*?\) and \([^)]*\)",
            r"[^.;:\])]*(?:not be broadcast|matching shapes|mismatch in dimension|Incompatible dimensions)[^.;(]*",
            r"branches that meet must.*",
        )
    )
)
_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)


def read(model: Any, shapes: Sequence[Any] | None = None, *, trust: bool = False) -> Graph:
    """The network of a torch.nn.Module, a keras model, an onnx.ModelProto, or what a name stands for.

    shapes: the batch's, in the model's own layout, or one for each input; None: what the model declares, with a batch
    of 1. Where branches that meet cannot agree on it, the network is that of the next larger sizes on which they do,
    and `Graph.unfit` says so. trust: whether a file may run its own code.

    Raises InvalidType for what is no model; InvalidValue for a file that is damaged, and where nobody declares a size.
    """
    model = load(model, trust=trust) if isinstance(model, str | Path) else model
    reader = import_module(f"{__name__}.{kind(model)}").graph
    sizes = _sizes(model, shapes)
    try:
        return _agreeing(reader(model, sizes))
    except InvalidValue as fault:
        said = _DISAGREE.search(fault.fact)
        fitting = _fitting(reader, model, sizes, said.group().strip()) if said else None
        if fitting is None:
            raise
        return fitting


def _sizes(model: Any, shapes: Sequence[Any] | None) -> Shapes:
    """One shape for each input: the given ones, else the declared."""
    given = list(shapes or input_shapes(model))
    if given and not isinstance(given[0], Sequence):
        given = [given]
    for shape in given or [None]:
        if shape is None or not all(isinstance(size, int) and size > 0 for size in shape):
            said = "no shape" if shape is None else "x".join("?" if size is None else str(size) for size in shape)
            raise InvalidValue(f"input must be given, such as 1x3x224x224, for a model that declares {said}", "review")
    return tuple(tuple(shape) for shape in given)


def _agreeing(graph: Graph) -> Graph:
    """The same; a fault where arrays of different sizes are joined, which a reader may have let pass."""
    for step in graph.steps:
        sizes = [graph.values[name].sizes for name in step.inputs if graph.values[name].axes]
        if step.op in MERGES and any(_differ(sizes[0], each) for each in sizes[1:]):
            both = " and ".join("×".join(map(str, each)) for each in dict.fromkeys(sizes))
            raise InvalidValue(f"branches that meet must have sizes that agree, got {both} at {step.name}", "review")
    return graph


def _differ(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes neither are alike nor broadcast."""
    return len(one) == len(other) and any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True))


def _fitting(reader: Any, model: Any, sizes: Shapes, said: str) -> Graph | None:
    """The network on the next larger sizes on which its branches agree."""
    for multiple, larger in _larger(sizes):
        try:
            graph = _agreeing(reader(model, larger))
        except InvalidValue:
            continue
        return replace(graph, unfit=Unfit(sizes[0], multiple, said))
    return None


def _larger(sizes: Shapes) -> Iterator[tuple[int, Shapes]]:
    """Larger sizes to try: multiples of 2, 4 … of all positions, channels first and channels last."""
    tried = {sizes}
    for multiple in _MULTIPLES:
        for first, end in ((2, None), (1, -1)):
            larger = tuple(
                tuple(
                    -(-size // multiple) * multiple if axis in range(len(shape))[first:end] else size
                    for axis, size in enumerate(shape)
                )
                for shape in sizes
            )
            if larger not in tried:
                tried.add(larger)
                yield multiple, larger
