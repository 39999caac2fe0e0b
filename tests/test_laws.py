"""Every operation is held to the laws that it declares, and breaks every law that it does not declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

import poolwise
from cases import arrays_of
from poolwise import Geometry, Operation
from poolwise.op import LAWS
from poolwise.ops import OPERATIONS

Floats = NDArray[np.float64]
SHAPE, WINDOW = (3, 6, 7), (2, 3)
NEARLY = {"rtol": 1e-9, "atol": 1e-9}
PARAMETRISED = [poolwise.LogSumExp(9.0), poolwise.TopKMean(4), poolwise.Quantile(0.9), poolwise.Soft(0.2)]
EVERY: list[Operation] = [*(kind() for kind in OPERATIONS), *PARAMETRISED, poolwise.GeM(7)]


def pooled(op: Operation, x: Floats, padding: int = 0) -> Floats:
    geometry = Geometry.of(x.shape, window=WINDOW, stride=1, padding=padding)
    drawn = {each.name for each in op.arrays if each.drawn}
    operands = {
        name: array if name in drawn else array - 1.5  # of either sign
        for name, array in arrays_of(op, geometry, "float64").items()
    }
    return poolwise.pool(x, op, WINDOW, stride=1, padding=padding, operands=operands)


def monotone(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    raised = x + rng.choice([0.0, 0.0, 0.5, 3.0], x.shape)
    return bool((pooled(op, raised, 1) >= pooled(op, x, 1) - 1e-9).all())


def shift(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    by = rng.integers(1, 40) / 4
    return np.allclose(pooled(op, x + by, 1), pooled(op, x, 1) + by, **NEARLY)


def scale(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    by = 2.0 ** rng.integers(-3, 4)
    return np.allclose(pooled(op, x * by, 1), pooled(op, x, 1) * by, **NEARLY)


def order(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    one = x[:, :2, :3]
    moved = rng.permuted(one.reshape(3, 6), axis=-1).reshape(one.shape)
    return np.allclose(pooled(op, moved), pooled(op, one), **NEARLY)


def constant(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    same = np.full(x.shape, x.flat[0])
    return np.allclose(pooled(op, same, 1), x.flat[0], **NEARLY)


def bounded(op: Operation, x: Floats, rng: np.random.Generator) -> bool:
    y = pooled(op, x, 1)
    low, high = (poolwise.pool(x, end, WINDOW, stride=1, padding=1) for end in (poolwise.Min(), poolwise.Max()))
    return bool(((low - 1e-9 <= y) & (y <= high + 1e-9)).all())


HOLDS: dict[str, Callable[[Operation, Floats, np.random.Generator], bool]] = {
    law.__name__: law for law in (monotone, shift, scale, order, constant, bounded)
}


def some(op: Operation, seed: int, spread: float) -> tuple[Floats, np.random.Generator]:
    """Eighths, with ties, of either sign unless the operation's laws are for what is above 0."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-16, 17, SHAPE) * spread / 8
    return (np.abs(x) + 0.125 if op.positive else x), rng


def test_the_laws_are_those_that_operations_may_declare() -> None:
    assert set(HOLDS) == LAWS
    assert all(kind.laws <= LAWS for kind in OPERATIONS)


@pytest.mark.parametrize(("op", "law"), [(op, law) for op in EVERY for law in sorted(op.laws)], ids=str)
@settings(max_examples=25)
@given(seed=st.integers(0, 9999), spread=st.sampled_from([0.125, 1.0, 16.0]))
def test_a_law_that_is_declared_holds(op: Operation, law: str, seed: int, spread: float) -> None:
    assert HOLDS[law](op, *some(op, seed, spread))


@pytest.mark.parametrize(("op", "law"), [(op, law) for op in EVERY for law in sorted(LAWS - op.laws)], ids=str)
def test_a_law_that_is_not_declared_is_broken(op: Operation, law: str) -> None:
    """So that no check passes whatever it is given, and no operation hides what it promises."""
    assert not all(HOLDS[law](op, *some(op, seed, spread)) for seed in range(40) for spread in (1.0, 8.0))


@settings(max_examples=50)
@given(seed=st.integers(0, 9999), p=st.sampled_from([1, 1.5, 2, 3, 8, np.inf]))
def test_the_power_mean_lies_between_the_mean_and_the_maximum(seed: int, p: float) -> None:
    x = np.abs(some(poolwise.Lp(), seed, 1.0)[0])
    mean, norm, most = (poolwise.pool(x, op, WINDOW) for op in (poolwise.Mean(), poolwise.Lp(p), poolwise.Max()))
    power_mean: Any = norm / 6 ** (1 / p)
    assert (mean <= power_mean + 1e-12).all()
    assert (power_mean <= most + 1e-12).all()
