"""What each downsampling stage of a network does: sizes, receptive fields, what is never read, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from poolwise import Geometry, Max, Mean, Min, ReLUMax, Sum
from poolwise.design.enlarge import Reach, reaches
from poolwise.design.graph import Graph, Step, Value
from poolwise.design.trace import Even, Span, Uneven, Unread, empty_windows, unread_by

Views: TypeAlias = tuple[Even | Uneven, ...] | None  # None: nobody can say what the cells see
SELECTIONS = (Max, Min, ReLUMax)
KEEPS_POSITIONS = {
    "Relu", "LeakyRelu", "Elu", "PRelu", "Selu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "HardSwish", "Swish",
    "Gelu", "Mish", "Softplus", "Softsign", "Softmax", "BatchNormalization", "LRN", "InstanceNormalization",
    "GroupNormalization", "LayerNormalization", "Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Concat",
    "Dropout", "Identity", "Cast", "Reshape", "Transpose",
}  # fmt: skip


@dataclass(frozen=True)
class Pads:
    """Of one axis: how much padding is declared before and after, how much of it windows reach, how many do."""

    low: int
    high: int
    low_read: int
    high_read: int
    touching: int


@dataclass(frozen=True)
class Stage:
    """One downsampling stage, by axis. All figures are for the batch that was given.

    spans: what its cells see of the network's input; None where it cannot be said. parameters, macs: of the stage and
    of all steps since the one before it. comparisons, additions: of a pooling. kept: bytes that poolwise and PyTorch
    keep of it for backward.
    """

    step: Step
    geometry: Geometry
    before: Value
    after: Value
    spans: tuple[Span, ...] | None
    unread: tuple[Unread, ...]
    pads: tuple[Pads, ...]
    empty: int
    parameters: int
    macs: int
    comparisons: int
    additions: int
    kept: tuple[int, int]

    @property
    def touching(self) -> float:
        """The share of windows that touch padding."""
        free = prod(out - pads.touching for out, pads in zip(self.geometry.outputs, self.pads, strict=True))
        return 1 - free / prod(self.geometry.outputs)


def downsampling(graph: Graph) -> list[Stage]:
    """Every step of a network that makes its map smaller, or pools, in the order of execution."""
    views = seen(graph)
    counted: set[str] = set()
    stages: list[Stage] = []
    parameters = macs = 0
    for step in graph.steps:
        before, after = graph.values[step.inputs[0]], graph.values[step.output]
        parameters += sum(size for name, size in step.weights.items() if name not in counted)
        counted.update(step.weights)
        macs += step.macs
        if step.reads is not None and _downsamples(step):
            seen_by = _reading(step.reads, views[step.inputs[0]])
            stages.append(_stage(step, step.reads, before, after, seen_by, parameters, macs))
            parameters = macs = 0
    return stages


def seen(graph: Graph) -> dict[str, Views]:
    """For each value what its cells see of the network's input."""
    views: dict[str, Views] = {name: _own(graph.values[name]) for name in graph.inputs}
    for step in graph.steps:
        given = [(graph.values[name], views.get(name)) for name in step.inputs]
        views[step.output] = _through(step, given, graph.values[step.output])
    return views


def totals(graph: Graph) -> tuple[int, int]:
    """Parameters, shared ones once, and multiplications that are added up, of a whole network."""
    weights = {name: size for step in graph.steps for name, size in step.weights.items()}
    return sum(weights.values()), sum(step.macs for step in graph.steps)


def _downsamples(step: Step) -> bool:
    geometry = step.reads
    return geometry is not None and (step.pooling is not None or any(_strides(geometry, step)))


def _strides(geometry: Geometry, step: Step) -> list[bool]:
    return [getattr(table, "step", 1) > 1 for table in geometry.tables]


def _own(value: Value) -> Views:
    return tuple(Even(1, 1, 0) for _ in value.axes) or None


def _reading(geometry: Geometry, views: Views) -> Views:
    return views and tuple(view.through(table) for view, table in zip(views, geometry.tables, strict=True))


def _through(step: Step, given: Sequence[tuple[Value, Views]], after: Value) -> Views:
    """What the cells of a step's output see of the network's input."""
    if not after.axes or not step.known:
        return None
    if step.reads is not None:
        return _reading(step.reads, given[0][1])
    around = reaches(step, given[0][0].sizes, after.sizes) if len(given[0][0].axes) == len(after.axes) else None
    if around is not None:
        return given[0][1] and tuple(
            _through_reach(view, size, reach)
            for view, size, reach in zip(given[0][1], given[0][0].sizes, around, strict=True)
        )
    if step.op not in KEEPS_POSITIONS:
        return None
    met = [views for value, views in given if value.sizes == after.sizes]  # what is broadcast sees everything anyway
    known = [views for views in met if views is not None]
    if not known or len(known) < len(met):
        return None
    return tuple(_any(axis, size) for axis, size in zip(zip(*known, strict=True), after.sizes, strict=True))


def _through_reach(view: Even | Uneven, size: int, reach: Reach) -> Uneven:
    cells = view.cells(size)
    return Uneven(cells.starts[reach[0]], cells.ends[reach[1]])


def _any(views: tuple[Even | Uneven, ...], cells: int) -> Even | Uneven:
    """What is seen by one or another of several branches, from the first element to the last."""
    even = [view for view in views if isinstance(view, Even)]
    if len(even) == len(views) and len({view.jump for view in even}) == 1:
        first = min(view.first for view in even)
        return Even(even[0].jump, max(view.first + view.field for view in even) - first, first)
    each = [view.cells(cells) for view in views]
    return Uneven(np.min([view.starts for view in each], axis=0), np.max([view.ends for view in each], axis=0))


def _stage(
    step: Step, geometry: Geometry, before: Value, after: Value, views: Views, parameters: int, macs: int
) -> Stage:
    cells, taps = after.elements, prod(geometry.window)
    selects = isinstance(step.pooling, SELECTIONS)
    adds = isinstance(step.pooling, Mean | Sum)
    offset = 1 if taps <= 255 else 4  # bytes that tell which tap won
    kept = (offset * cells, 8 * cells) if selects else (0, 0) if adds else (before.nbytes, before.nbytes)
    return Stage(
        step,
        geometry,
        before,
        after,
        None if views is None else tuple(view.span for view in views),
        tuple(unread_by(read) for read in geometry.coverage()),
        tuple(_pads(table) for table in geometry.tables),
        empty_windows(geometry),
        parameters,
        macs,
        cells * (taps - 1) if selects else 0,
        cells * (taps - 1) if adds else 0,
        kept,
    )


def _pads(table: Any) -> Pads:
    if table.kind != "regular":
        return Pads(0, 0, 0, 0, 0)
    first = table.start + table.step * np.arange(table.output)
    end = first + (table.taps - 1) * table.dilation
    low, high = max(0, -int(first[0])), max(0, int(end[-1]) - table.size + 1)
    return Pads(table.low, table.high, low, min(high, table.high), int(((first < 0) | (end >= table.size)).sum()))
