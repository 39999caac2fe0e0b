"""Feature maps before and after, for a report: the explorer's module draws them, and a reader can point at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from poolwise import Operation
from poolwise.explorer.source import planes
from poolwise.explorer.state import write

Scale = tuple[float, float]


def pair(
    title: str,
    before: NDArray[Any],
    after: NDArray[Any],
    scales: tuple[Scale, Scale],
    pooling: tuple[Operation, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Two linked maps, as the module's `featureMaps` reads them.

    before, after: (rows, columns). scales: the numbers that are darkest and brightest, of each.
    pooling: the operation and `poolwise.pool`'s arguments that lead from one to the other; None where none does.
    """
    return {
        "title": title,
        "before": planes(before[None]),
        "after": planes(after[None]),
        "call": None if pooling is None else write(*pooling),
        "scales": [list(scale) for scale in scales],
    }


def pairs(shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pairs of one figure."""
    return {"palette": "cividis", "pairs": list(shown)}
