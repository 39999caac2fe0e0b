"""Max unpooling: each maximum back to where it stood; the last of repeated indices wins, and only it has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import poolwise.torch.functional
from poolwise import InvalidType, InvalidValue, _native
from poolwise.op import DTYPES

GEOMETRIES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2/2": ((2, 3, 8, 10), {"window": (2, 2)}),
    "overlapping": ((2, 7, 9), {"window": (3, 3), "stride": 2}),
    "padded": ((2, 7, 9), {"window": (3, 3), "stride": 2, "padding": 1}),
    "dilated": ((2, 9, 11), {"window": (2, 3), "stride": 2, "dilation": 2, "padding": ((1, 0), (0, 1))}),
    "1-D": ((3, 12), {"window": (3,)}),
    "4-D": ((4, 6, 4, 2), {"window": (2, 2, 2, 2)}),
    "channels last": ((2, 8, 6, 5), {"window": (2, 2), "axes": (1, 2)}),
    "axes apart": ((6, 3, 8), {"window": (2, 2), "axes": (2, 0)}),
    "empty batch": ((0, 4, 4), {"window": (2, 2)}),
}


def by_loops(y: NDArray[Any], indices: NDArray[Any], axes: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    x = np.zeros(shape, y.dtype)
    sizes = tuple(shape[axis] for axis in axes)
    for cell in np.ndindex(y.shape):
        place = list(cell)
        for axis, at in zip(axes, np.unravel_index(indices[cell], sizes), strict=True):
            place[axis] = int(at)
        x[tuple(place)] = y[cell]
    return x


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_each_maximum_goes_back_to_where_it_stood(case: str, dtype: str) -> None:
    shape, arguments = GEOMETRIES[case]
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(dtype)
    y, indices = poolwise.max_pool(x, return_indices=True, **arguments)
    axes = arguments.get("axes", tuple(range(len(shape) - len(arguments["window"]), len(shape))))
    back = poolwise.max_unpool(y, indices, **arguments, output_size=[shape[axis] for axis in axes])
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, by_loops(y, indices, axes, shape))
    assert np.all((back == x) | (back == 0))


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"bfloat16"}))
def test_every_dtype_is_moved_as_it_is(dtype: str) -> None:
    y = np.array([1, 0, 1]).astype(dtype)
    got = poolwise.max_unpool(y, np.array([0, 2, 5], np.uint8), (2,))
    np.testing.assert_array_equal(got, np.array([1, 0, 0, 0, 0, 1]).astype(dtype))


def test_of_repeated_indices_the_last_wins_and_only_it_has_a_gradient() -> None:
    y, indices = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[5, 1, 5, 1]])
    np.testing.assert_array_equal(poolwise.max_unpool(y, indices, (2,)), [[0, 4, 0, 0, 0, 3, 0, 0]])
    g, gy = np.arange(8.0)[None], np.full((1, 4), 77.0)
    assert _native.unpool_backward(8, 1, 4, 8, 1, g, indices, gy) == -1
    np.testing.assert_array_equal(gy, [[0, 0, 5, 1]])


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("inner", [1, 3])
def test_forward_and_backward_are_those_of_a_loop_for_any_number_of_threads(threads: int, inner: int) -> None:
    rng = np.random.default_rng(1)
    y, indices = rng.standard_normal((40, 500, inner)), rng.integers(0, 700, (40, 500, inner))
    g, x, gy = rng.standard_normal((40, 700, inner)), np.zeros((40, 700, inner)), np.zeros(y.shape)
    last: dict[tuple[int, int, int], int] = {}
    for o, i, c in np.ndindex(y.shape):
        x[o, indices[o, i, c], c] = y[o, i, c]
        last[o, int(indices[o, i, c]), c] = i
    for (o, at, c), i in last.items():
        gy[o, i, c] = g[o, at, c]
    to, back = np.full(x.shape, 77.0), np.full(y.shape, 77.0)
    assert _native.unpool(8, 40, 500, 700, inner, y, indices, to, threads) == -1
    assert _native.unpool_backward(8, 40, 500, 700, inner, g, indices, back, threads) == -1
    np.testing.assert_array_equal(to, x)
    np.testing.assert_array_equal(back, gy)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pytorch_unpools_the_same(rank: int) -> None:
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 7, 9, 8)[: rank + 2]))
    y, indices = getattr(torch.nn.functional, f"max_pool{rank}d")(x, 3, 2, 1, return_indices=True)
    distinct = torch.arange(indices[0, 0].numel()).reshape(indices.shape[2:]).expand(indices.shape).contiguous()
    theirs = getattr(torch.nn.functional, f"max_unpool{rank}d")(y, distinct, 3, 2, 1)
    ours = poolwise.max_unpool(y.numpy(), distinct.numpy(), (3,) * rank, stride=2, padding=1)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_an_output_size_may_be_of_the_pooled_axes_or_of_all() -> None:
    y, indices = np.ones((1, 2, 2)), np.zeros((1, 2, 2), int)
    assert poolwise.max_unpool(y, indices, (2, 2), output_size=(5, 4)).shape == (1, 5, 4)
    assert poolwise.max_unpool(y, indices, (2, 2), output_size=(1, 5, 4)).shape == (1, 5, 4)


Y, PLACES = np.ones((2, 2)), np.arange(4).reshape(2, 2)


@pytest.mark.parametrize("bad", [10**9, -(10**9), 16, -1])
def test_an_index_outside_is_refused(bad: int) -> None:
    places = PLACES.copy()
    places[1, 0] = bad
    with pytest.raises(
        InvalidValue, match=rf"max_unpool: indices must be between 0 and 15, .*, got {bad}; output_size"
    ):
        poolwise.max_unpool(Y, places, (2, 2))
    to = np.full((2, 8), 77.0)
    assert _native.unpool(8, 2, 2, 8, 1, Y, np.where(places == bad, bad, places % 8), to) == 2
    assert (to == 77).all()


@pytest.mark.parametrize(
    ("fault", "text", "arguments"),
    [
        (InvalidType, "indices must be integers, got float64", {"indices": np.ones((2, 2))}),
        (InvalidType, "indices must be integers, got bool", {"indices": np.ones((2, 2), bool)}),
        (InvalidValue, r"indices must have y's shape \(2, 2\), got \(4,\)", {"indices": np.arange(4)}),
        (InvalidValue, "window must be at least 1", {"window": (0, 2)}),
        (InvalidValue, "stride must be at least 1", {"stride": 0}),
        (InvalidValue, "padding must leave an output", {"padding": 9}),
        (InvalidValue, "padding must be given in numbers", {"padding": "same"}),
        (InvalidValue, "output_size must be more than 2 and less than 6", {"output_size": (4, 6)}),
        (InvalidValue, "output_size", {"output_size": (4, 9 * 10**18)}),
        (InvalidValue, "output_size must have 2 entries", {"output_size": (4,)}),
        (InvalidValue, "window .* more than memory can address", {"stride": 10**12}),
    ],
)
def test_bad_input_gets_one_clear_error(fault: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(fault, match=f"max_unpool: {text}"):
        poolwise.max_unpool(**{"y": Y, "indices": PLACES, "window": (2, 2), **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        (3, 1, 4, 8, 1),
        (8, -1, 4, 8, 1),
        (8, 2**40, 2**40, 8, 1),
        (8, 1, 5, 8, 1),
        (8, 1, 4, 9, 1),
        (4, 1, 4, 8, 1),
    ],
)
def test_the_module_itself_refuses_sizes_that_do_not_match(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        _native.unpool(*arguments, np.ones(4), np.arange(4), np.ones(8))


@pytest.mark.parametrize("sizes", [(2, 3, 4, 4), (0, 3, 4, 4)])
def test_gradients_that_autograd_batches_are_unpooled(sizes: tuple[int, ...]) -> None:
    y = torch.rand(sizes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    indices = torch.randint(0, 64, sizes, generator=torch.Generator().manual_seed(1))  # some of them twice
    x = poolwise.torch.functional.max_unpool2d(y, indices, 2)
    several = torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(2))
    (batched,) = torch.autograd.grad(x, y, several, is_grads_batched=True, retain_graph=True)
    for g, got in zip(several, batched, strict=True):
        assert torch.equal(got, torch.autograd.grad(x, y, g, retain_graph=True)[0])
