"""What the readers share: geometries of sliding windows, pads and slices over the axes of position alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolwise import Geometry
from poolwise.geometry import Regular


def attributes(geometry: Geometry, **more: Any) -> dict[str, Any]:
    """ONNX's attributes of a sliding window."""
    tables: Any = geometry.tables
    return {
        "kernel_shape": [table.taps for table in tables],
        "strides": [table.step for table in tables],
        "dilations": [table.dilation for table in tables],
        "pads": [table.low for table in tables] + [table.high for table in tables],
        **more,
    }


def placed(geometry: Geometry) -> Geometry:
    """The same over the pooled axes alone."""
    return over(geometry.tables)


def over(tables: Sequence[Any]) -> Geometry:
    """The geometry of these tables, one for each axis."""
    return Geometry(tuple(table.size for table in tables), tuple(range(len(tables))), tuple(tables))


def shifted(size: int, low: int, high: int, mode: Any = "absent") -> Regular:
    """Each output reads one element; low, high: how many are put in front and behind, negative: cut off."""
    return Regular(size, size + low + high, -low, 1, 1, 1, max(low, 0), max(high, 0), mode)


def sliced(size: int, output: int, start: int, step: int) -> Regular:
    """Each output reads one element, from start on."""
    return Regular(size, output, start, step, 1, 1, 0, 0)
