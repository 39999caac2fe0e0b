"""A network as the explorer's strip reads it (`static/network.js`): each stage's map, and what its cells see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolwise.design.columns import fields, size, strides, window
from poolwise.design.graph import Graph, Value
from poolwise.design.rules import Finding
from poolwise.design.stages import Stage, seen

SEVERITIES = ("error", "warning", "info")


def network(
    graph: Graph, stages: Sequence[Stage], findings: Sequence[Finding], picture: str = "", *, smooth: bool = True
) -> dict[str, Any]:
    """As JSON's own types. picture: what the input might be, as an address; smooth: whether it is a photograph."""
    value, views = given(graph), seen(graph)
    rows, columns = two(value.sizes, 1)
    return {
        "rows": rows,
        "columns": columns,
        "size": size(value),
        "picture": picture,
        "smooth": smooth,
        "stages": [_stage(stage, views[stage.after.name], findings) for stage in stages],
    }


def given(graph: Graph) -> Value:
    """The first input with positions."""
    values = [graph.values[name] for name in graph.inputs]
    return next((value for value in values if value.axes), values[0])


def two(axes: Sequence[Any], missing: Any) -> list[Any]:
    """Rows and columns: the last two axes of three, and one row where there is one axis."""
    return [missing, missing, *axes][-2:]


def _stage(stage: Stage, views: Any, findings: Sequence[Finding]) -> dict[str, Any]:
    rows, columns = two(stage.after.sizes, 1)
    axes = None if views is None else [_sight(view, size) for view, size in zip(views, stage.after.sizes, strict=True)]
    own = [each.severity for each in findings if each.step == stage.step.name]
    return {
        "name": stage.step.name,
        "what": f"{stage.step.op} {window(stage)}",
        "rows": rows,
        "columns": columns,
        "size": size(stage.after),
        "stride": strides(stage),
        "field": fields(stage),
        "axes": axes and two(axes, {"jump": 1, "field": 1, "first": 0}),
        "marks": {severity: own.count(severity) for severity in SEVERITIES},
    }


def _sight(view: Any, cells: int) -> dict[str, Any]:
    """What the cells of one axis see, as network.js reads it."""
    span = view.span
    sight = {"jump": span.jump, "field": span.field, "first": span.first}
    if span.even:
        return sight
    each = view.cells(cells)
    return {**sight, "starts": each.starts.tolist(), "ends": each.ends.tolist()}
