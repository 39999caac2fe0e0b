"""A network as the review sees it: arrays, and steps that make one array from others.

Every reader of `poolwise.design.readers` gives a `Graph`; everything after it knows no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from poolwise import Geometry, Operation

MERGES = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Concat"}  # steps in which branches meet


@dataclass(frozen=True)
class Value:
    """One array that flows through the network.

    shape: every size, the batch's included. axes: the axes of position (height and width), those that poolings and
    convolutions slide over; () where there are none, as after a flatten. itemsize: bytes of one element.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()
    itemsize: int = 4

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the axes of position."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def channels(self) -> int | None:
        """The size of the one axis that is neither the batch nor a position."""
        others = [size for axis, size in enumerate(self.shape) if axis and axis not in self.axes]
        return others[0] if len(others) == 1 else None

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.itemsize


@dataclass(frozen=True)
class Step:
    """One operation of the network.

    name: how the model calls it ("features.4", "pool3/3x3_s2"). op: ONNX's name of what it does ("MaxPool", "Conv",
    "Relu", "Add"), whatever the framework; `AdaptiveAveragePool` and `AdaptiveMaxPool` where ONNX has none, and the
    framework's own name where the reader knows no better. inputs: the values that flow in, parameters left out.
    output: the value that comes out.
    reads: which positions of the first input each position of the output reads; None: each its own one, or it cannot be
    said. pooling: the operation, where poolwise has it. weights: parameters by name, so that shared ones are counted
    once. macs: multiplications that are added up, for the whole batch. known: whether the reader knows what the step
    does; where it does not, the network is reviewed around it.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    reads: Geometry | None = None
    pooling: Operation | None = None
    weights: Mapping[str, int] = field(default_factory=dict)
    macs: int = 0
    known: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unfit:
    """An input on which branches that meet have sizes that cannot agree.

    shape: the one that was asked for. multiple: its sizes rounded up to multiples of this fit. said: the framework's
    words.
    """

    shape: tuple[int, ...]
    multiple: int
    said: str


@dataclass(frozen=True)
class Graph:
    """A whole network on one size of input. steps stand in the order of execution.

    unfit: None where it runs on the input that was asked for; else why not, and everything else is of one that fits.
    """

    name: str
    framework: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    steps: tuple[Step, ...]
    unfit: Unfit | None = None
