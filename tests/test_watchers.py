"""The tests that watch the tests: kernels that lie are rejected, and every parameter matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import poolwise
from cases import CASES, DEFAULTS, call_of, operands_of, same
from poolwise import Blur, GeM, LogSumExp, Lp, Max, Mean, Mixed, Operation, Quantile, Soft, TopKMean
from poolwise.call import Call
from poolwise.kernels.gathered import Gathered
from poolwise.ops import OPERATIONS
from poolwise.reference import Reference


class Liar(Gathered):
    """A kernel with one thing wrong with it."""

    def __init__(self, lie: str) -> None:
        self.lie = lie

    def forward(self, operands: Sequence[Any], call: Call) -> tuple[Any, Any]:
        y, kept = super().forward(operands, call)
        if self.lie == "drops NaN":
            y = np.nan_to_num(y, nan=0.0, posinf=np.inf, neginf=-np.inf)
        if self.lie == "padding is zero":
            y = np.maximum(y, 0)
        if self.lie == "one element off":
            y.reshape(-1)[-1:] += 1
        if self.lie == "another dtype":
            y = y.astype(np.float64)
        return y, kept

    def backward(self, g: Any, kept: Any, call: Call) -> tuple[Any, ...]:
        gradient = super().backward(g, kept, call)[0].copy()
        if self.lie == "gradient twice":
            gradient *= 2
        if self.lie == "gradient to the neighbour":
            gradient = np.roll(gradient, 1, axis=-1)
        return (gradient,)

    def indices(self, kept: Any, call: Call) -> Any:
        flat = super().indices(kept, call)
        return flat + 1 if self.lie == "index off by one" else flat


def judged(kernel: Gathered) -> None:
    """What the kernel tests ask of every kernel, on every case."""
    for case in CASES:
        _judged_on(kernel, case)


def _judged_on(kernel: Gathered, case: str) -> None:
    call, operands = call_of(case, Max(), "float32"), operands_of(case, "float32")
    expected, kept = Reference().forward(operands, call)
    g = np.random.default_rng(2).standard_normal(expected.shape).astype("float32")
    y, mine = kernel.forward(operands, call)
    same(y, expected)
    same(kernel.backward(g, mine, call)[0], Reference().backward(g, kept, call)[0])
    same(kernel.indices(mine, call), Reference().indices(kept, call))


def test_an_honest_kernel_passes() -> None:
    judged(Liar(""))


@pytest.mark.parametrize(
    "lie",
    [
        "drops NaN",
        "padding is zero",
        "one element off",
        "another dtype",
        "gradient twice",
        "gradient to the neighbour",
        "index off by one",
    ],
)
def test_a_lying_kernel_is_rejected(lie: str) -> None:
    with pytest.raises(AssertionError):
        judged(Liar(lie))


OTHER: dict[str, Any] = {
    "stride": 1,
    "padding": 1,
    "dilation": 2,
    "ceil_mode": True,
    "padding_mode": "reflect",
    "axes": (0, 1),
    "where": np.arange(7 * 9).reshape(7, 9) % 3 > 0,
}


@pytest.mark.parametrize("name", OTHER)
def test_every_parameter_of_pool_matters(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((7, 7, 9))
    given = {"padding": 1} if name == "padding_mode" else {}
    plain = poolwise.pool(x, Mean(), (2, 2), **given)
    changed = poolwise.pool(x, Mean(), (2, 2), **given, **{name: OTHER[name]})
    assert plain.shape != changed.shape or not np.allclose(plain, changed, equal_nan=True)


def test_every_parameter_of_pool_is_in_that_list() -> None:
    assert set(OTHER) == {*DEFAULTS, "where"}


@pytest.mark.parametrize(
    ("op", "x", "changes"),
    [
        (Mean(), np.array([5.0, 1.0, 2.0]), {"count_include_pad": True, "divisor": 7.0}),
        (Mean(), np.array([-1, -1, -2]), {"rounding": "truncate"}),
        (Lp(), np.array([5.0, 1.0, 2.0]), {"p": 3}),
        (Blur(), np.array([5.0, 1.0, 2.0]), {"taps": (1, 3)}),
        (LogSumExp(), np.array([5.0, 1.0, 2.0]), {"temperature": 2.0}),
        (TopKMean(), np.array([5.0, 1.0, 2.0]), {"k": 1}),
        (Quantile(), np.array([5.0, 1.0, 2.0]), {"q": 0.75}),
        (Soft(), np.array([5.0, 1.0, 2.0]), {"temperature": 2.0}),
        (GeM(), np.array([5.0, 1.0, 2.0]), {"p": 2, "eps": 1.5}),
        (Mixed(), np.array([5.0, 1.0, 2.0]), {"a": 0.25}),
    ],
)
def test_every_parameter_of_an_operation_matters(op: Operation, x: np.ndarray, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        changed = replace(op, **{name: value})
        assert not np.array_equal(poolwise.pool(x, op, (2,), padding=1), poolwise.pool(x, changed, (2,), padding=1))


PARAMETRISED = {"Mean", "Lp", "Blur", "LogSumExp", "TopKMean", "Quantile", "Soft", "GeM", "Mixed"}


def test_every_operation_with_parameters_is_in_that_list() -> None:
    assert {kind.__name__ for kind in OPERATIONS if fields(kind)} == PARAMETRISED


def test_names_are_unique() -> None:
    for position in range(3):
        stems = [kind.stems[position] for kind in OPERATIONS]
        assert len(set(stems)) == len(stems)
    assert len({kind.name for kind in OPERATIONS}) == len(OPERATIONS)


def test_the_cases_hold_what_the_comparison_must_see() -> None:
    x = operands_of("2/2", "float32")[0]
    assert np.isnan(x).any()
    assert np.isposinf(x).any()
    assert np.isneginf(x).any()
    assert np.signbit(x[x == 0]).any()
    assert any(call_of(case, Max(), "float32").geometry.has_empty_windows for case in CASES)
