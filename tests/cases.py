"""The one table of cases and the one comparer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import (
    LIP,
    Blur,
    Gated,
    GeM,
    InvalidType,
    LogSumExp,
    Lp,
    Max,
    Mean,
    Median,
    Min,
    Mixed,
    Mode,
    Operation,
    Quantile,
    ReLUMax,
    Soft,
    Stochastic,
    StochasticMean,
    Sum,
    TopKMean,
)
from poolwise.api import sliding
from poolwise.call import Call, shape_over
from poolwise.doors import NUMPY, Facts, enter
from poolwise.geometry import Geometry

# the operations that the compiled module has a body for
NATIVE: list[Operation] = [
    Max(),
    Min(),
    ReLUMax(),
    Sum(),
    Mean(),
    Mean(count_include_pad=True),
    Mean(divisor=3),
    Mean(rounding="truncate"),
]
OPERATIONS: list[Operation] = [
    *NATIVE,
    Lp(),
    Lp(3.5),
    Lp(float("inf")),
    Blur(),
    LogSumExp(),
    LogSumExp(300.0),
    TopKMean(2),
    TopKMean(7),
    Median(),
    Quantile(0.25),
    Quantile(0.9),
    Mode(),
    Soft(),
    Soft(30.0),
    GeM(),
    GeM(1.5, eps=0.1),
    GeM(float("inf")),
    Mixed(0.3),
    StochasticMean(),
]
WITH_ARRAYS: list[Operation] = [LIP(), Mixed(None), Gated(), GeM(None), Stochastic()]
FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int32", "int64", "uint64"]
DTYPES = [*FLOATS, *INTEGERS, "bool"]

# name -> shape, arguments of pool. Prime sizes, so that nothing divides by accident.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2/2": ((2, 3, 7, 11), {"window": (2, 2)}),
    "3/2 p1": ((2, 7, 11), {"window": (3, 3), "stride": 2, "padding": 1}),
    "3/1 same": ((2, 7, 5), {"window": (3, 3), "stride": 1, "padding": "same"}),
    "4/3 same_lower": ((1, 7, 11), {"window": (4, 4), "stride": 3, "padding": "same_lower"}),
    "uneven padding": ((2, 5, 7), {"window": (3, 2), "stride": (1, 2), "padding": ((1, 2), (0, 3))}),
    "dilated": ((2, 11, 13), {"window": (3, 2), "stride": 2, "dilation": (3, 2), "padding": 2}),
    "ceil": ((3, 7, 11), {"window": (2, 3), "stride": (2, 4), "ceil_mode": True}),
    "ceil p1": ((3, 7, 11), {"window": (3, 3), "stride": 3, "padding": 1, "ceil_mode": True}),
    "stride beyond window": ((2, 7, 11), {"window": (1, 2), "stride": (3, 5)}),
    "empty windows": ((1, 2, 2), {"window": (2, 2), "stride": 1, "padding": 1, "dilation": 3}),
    "window of padding": ((2, 3, 5), {"window": (2, 2), "stride": 2, "padding": 4}),
    "1-D": ((3, 17), {"window": (3,), "stride": 2}),
    "3-D": ((2, 5, 7, 3), {"window": (2, 3, 2), "stride": (1, 2, 1), "padding": (1, 1, 0)}),
    "4-D": ((3, 5, 3, 2), {"window": (2, 2, 2, 2), "stride": 1}),
    "channels last": ((2, 7, 11, 3), {"window": (3, 2), "stride": 2, "axes": (1, 2)}),
    "axes swapped": ((2, 7, 5), {"window": (3, 2), "stride": 1, "axes": (2, 1)}),
    "axes apart": ((5, 3, 7), {"window": (2, 3), "stride": 2, "axes": (0, 2)}),
    "large window": ((1, 19, 23), {"window": (17, 19), "stride": 1}),
    "whole": ((2, 7, 11), {"window": (7, 11)}),
    "one element": ((1, 1), {"window": (1, 1)}),
    "empty batch": ((0, 3, 7, 11), {"window": (2, 2)}),
    "reflect": ((2, 5, 7), {"window": (3, 4), "stride": 2, "padding": 3, "padding_mode": "reflect"}),
    "circular": ((2, 5, 7), {"window": (3, 3), "stride": 1, "padding": 1, "padding_mode": "circular"}),
    "replicate ceil": (
        (2, 5, 7),
        {"window": (2, 3), "stride": 3, "padding": (6, 2), "padding_mode": "replicate", "ceil_mode": True},
    ),
}
ORDER = ("window", "stride", "padding", "dilation", "ceil_mode", "padding_mode", "axes")
DEFAULTS = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "padding_mode": "absent", "axes": None}


def takes(op: Operation, dtype: str) -> bool:
    """Whether the operation means something on the dtype."""
    try:
        op.result_dtype(dtype)
    except InvalidType:
        return False
    return True


def geometry_of(case: str) -> Geometry:
    """The case's geometry."""
    shape, arguments = CASES[case]
    return sliding(shape, *({**DEFAULTS, **arguments}[name] for name in ORDER))


def values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Numbers with ties; floats also with NaN, infinities and both zeros."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.3
    low = 0 if dtype.startswith("u") else -7
    x = rng.integers(low, 8, shape).astype(dtype)
    if dtype.startswith("float"):
        x = (x + rng.choice([0, 0.25, 0.1], shape)).astype(dtype)
        special = rng.random(shape)
        for number, value in enumerate([np.nan, np.inf, -np.inf, -0.0, 0.0]):
            x[(special > number / 40) & (special < (number + 1) / 40)] = value
    return x


def call_of(case: str, op: Operation, dtype: str, *, masked: bool = False, keep: bool = True) -> Call:
    """The case as a kernel sees it."""
    geometry = geometry_of(case)
    facts = Facts(geometry.shape, dtype, tuple(range(len(geometry.shape))), "cpu")
    names, dtypes = (("input", "where"), (dtype, "bool")) if masked else (("input",), (dtype,))
    names, dtypes = (*names, *op.operands), (*dtypes, *(dtype,) * len(op.operands))
    return Call(op, geometry, NUMPY.framework, dtypes, facts.layout, "cpu", names, keep)


def operands_of(
    case: str, dtype: str, *, masked: bool = False, op: Operation | None = None
) -> tuple[NDArray[Any], ...]:
    """Input, a mask that broadcasts, and what the operation needs beside them."""
    shape = CASES[case][0]
    x = values(shape, dtype)
    mask = np.random.default_rng(1).random((1, *shape[1:])) < 0.6
    arrays = {} if op is None else arrays_of(op, geometry_of(case), dtype)
    return (x, mask, *arrays.values()) if masked else (x, *arrays.values())


def arrays_of(op: Operation, geometry: Geometry, dtype: str) -> dict[str, NDArray[Any]]:
    """The operands of an operation: one that lies over the window or the output is the same for the first axis."""
    arrays: dict[str, NDArray[Any]] = {}
    for each in op.arrays:
        if each.name in op.operands:
            shape = shape_over(geometry, each.over)
            alike = each.over != "input" and not each.drawn and 0 not in geometry.axes
            shape = (1, *shape[1:]) if alike else shape
            arrays[each.name] = np.random.default_rng(5).random(shape).astype(dtype) + (0 if each.drawn else 1)
    return arrays


def same(got: Any, expected: Any, *, scale: float = 1.0) -> None:
    """Equal dtype, shape and numbers: integers exactly, floats to a few units of their precision times `scale`."""
    (_, got), (_, expected) = enter(np.asarray(got)), enter(np.asarray(expected))
    assert got.dtype == expected.dtype, f"dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    if got.dtype.kind == "f":
        bound = 8 * float(np.finfo(got.dtype).eps) * max(scale, 1.0)
        np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=bound, atol=bound)
    else:
        np.testing.assert_array_equal(got, expected)
