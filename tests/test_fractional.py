"""Fractional pooling of arrays: PyTorch's places, any operation, any axes, and draws that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import poolwise
from poolwise import InvalidType, InvalidValue, Max, Mean, Operation, fractional_pool

X = np.random.default_rng(0).standard_normal((2, 3, 11, 9, 8))


def starts(size: int, taps: int, outputs: int, u: float) -> list[int]:
    """Graham's formula, a number at a time."""
    if outputs == 1:
        return [size - taps]
    distance = (size - taps) / (outputs - 1)
    return [int((i + u) * distance) - int(u * distance) for i in range(outputs - 1)] + [size - taps]


@pytest.mark.parametrize("op", [Max(), Mean(), poolwise.Lp(3)], ids=repr)
def test_each_plane_reads_the_windows_that_its_draws_name(op: Operation) -> None:
    draws = np.random.default_rng(1).random((2, 3, 8, 2))
    y = fractional_pool(X, op, (3, 2), (5, 4), draws=draws, axes=(2, 3))
    assert y.shape == (2, 3, 5, 4, 8)
    for b, c, last in np.ndindex(2, 3, 8):
        rows, columns = (
            starts(n, k, m, u) for n, k, m, u in zip((11, 9), (3, 2), (5, 4), draws[b, c, last], strict=True)
        )
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                window = X[b, c, row : row + 3, column : column + 2, last]
                expected = poolwise.global_pool(window, op, axes=(0, 1))
                np.testing.assert_allclose(y[b, c, i, j, last], expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_indices_are_pytorchs(rank: int, dtype: str) -> None:
    rng = np.random.default_rng(2)
    x, draws = X[..., :1].reshape(2, 3, 11, 9).astype(dtype), rng.random((2, 3, rank)).astype(dtype)
    x = x if rank == 2 else X.astype(dtype)
    theirs = torch.from_numpy(draws).flip(-1) if rank == 2 else torch.from_numpy(draws)
    function = getattr(torch.nn.functional, f"fractional_max_pool{rank}d")
    sizes, window = (4, 5, 3)[:rank], (3, 2, 2)[:rank]
    expected, where = function(torch.from_numpy(x), window, sizes, return_indices=True, _random_samples=theirs)
    y, indices = fractional_pool(x, Max(), window, sizes, draws=draws, return_indices=True)
    np.testing.assert_array_equal(y, expected.numpy())
    np.testing.assert_array_equal(indices, where.numpy())


def test_a_seed_repeats_exactly_and_another_one_does_not() -> None:
    first, again, other = (fractional_pool(X, Max(), (2, 2, 2), (7, 5, 5), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("outputs", "taps"), [(1, 3), (11, 1), (9, 3), (1, 11)])
def test_the_extremes_of_the_output_size(outputs: int, taps: int) -> None:
    line = np.arange(11.0)
    y, indices = fractional_pool(line, Max(), (taps,), (outputs,), draws=[0.999], return_indices=True)
    expected = [start + taps - 1 for start in starts(11, taps, outputs, 0.999)]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize(
    ("fault", "text", "arguments"),
    [
        (InvalidValue, r"draws must have the shape \(2, 3, 3\), got \(2,\)", {"draws": np.zeros(2)}),
        (InvalidValue, "draws must be at least 0 and less than 1", {"draws": np.full((2, 3, 3), np.nan)}),
        (InvalidValue, "draws must be at least 0 and less than 1", {"draws": np.ones((2, 3, 3))}),
        (InvalidType, "draws must be floats, got int64", {"draws": np.zeros((2, 3, 3), int)}),
        (InvalidType, "draws must be an array of numpy", {"draws": torch.zeros(2, 3, 3)}),
        (InvalidValue, "seed must be None where draws are given", {"draws": np.zeros((2, 3, 3)), "seed": 1}),
        (InvalidType, "seed must be None, an int of at least 0 or", {"seed": 1.5}),
        (InvalidValue, "output_size must be at most 10 on axis 2", {"output_size": (11, 5, 5)}),
        (InvalidValue, "output_size must be at least 1", {"output_size": 0}),
        (InvalidValue, "window must fit the input's 8 on axis 4", {"window": (2, 2, 9)}),
        (InvalidType, "op must be an operation", {"op": "max"}),
        (InvalidType, "kernel must be None or", {"kernel": 3}),
        (InvalidType, "return_indices must be True or False", {"return_indices": "no"}),
    ],
)
def test_bad_input_gets_one_clear_error(fault: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(fault, match=f"^fractional_pool: {text}"):
        fractional_pool(**{"x": X, "op": Max(), "window": (2, 2, 2), "output_size": (5, 5, 5), **arguments})
