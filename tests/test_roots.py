"""Gradients of norms and power means on windows of any kind: from sums where the module has none of its own."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as stock

import poolwise
import poolwise.torch.functional as ours
from poolwise import GeM, InvalidType, InvalidValue, Lp, Operation
from poolwise.kernels.native import Native

OPS = (Lp(1), Lp(1.5), Lp(), Lp(3), Lp(6.5), GeM(1), GeM(), GeM(2.5, eps=0.5))
PRECISION = {"float32": 2**-23, "float16": 2**-10, "bfloat16": 2**-7}
# shape, arguments of pool
WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "9x9 at stride 1": ((2, 13, 15), {"window": (9, 9), "stride": 1}),
    "13x13 at stride 2": ((2, 17, 19), {"window": (13, 13), "stride": 2, "padding": 6}),
    "channels last": ((1, 11, 13, 5), {"window": (8, 7), "stride": 1, "axes": (1, 2)}),
    "taps that lie far apart": (
        (3, 40),
        {"window": (2,), "stride": 1, "dilation": 200_000, "padding": ((0, 200_000),)},
    ),
    "rounded up": ((2, 17, 16), {"window": (8, 8), "stride": 5, "ceil_mode": True}),
    "gaps between windows": ((2, 30, 23), {"window": (9, 8), "stride": (11, 13)}),
    "gaps in windows": ((2, 20, 21), {"window": (8, 7), "stride": 2, "dilation": 2, "padding": 3}),
    "three axes": ((2, 7, 6, 7), {"window": (4, 4, 4), "stride": 1, "padding": 2}),
    "axes apart": ((9, 3, 8), {"window": (4, 3), "stride": 1, "axes": (0, 2)}),
    "folded": ((2, 9, 8), {"window": (3, 4), "stride": 2, "padding": 3, "padding_mode": "reflect"}),
    "of padding alone": ((2, 3, 5), {"window": (8, 8), "stride": 1, "padding": 9}),
    "all": ((3, 8, 9), {"window": (8, 9)}),
    "no batch": ((0, 9, 9), {"window": (8, 8)}),
}


def gradients(op: Operation, x: Any, g: Any, **arguments: Any) -> tuple[Any, Any]:
    """By the module and, in float64, by the reference."""
    with np.errstate(all="ignore"):
        own = poolwise.pool_backward(g, x, op, kernel="native", **arguments)
        wide = (g.astype(np.float64), x.astype(np.float64))
        return own, poolwise.pool_backward(*wide, op, kernel="reference", **arguments)


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """A third of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.33, 0.0, rng.standard_normal(shape)).astype(np.dtype(dtype))


def outputs(x: Any, **arguments: Any) -> tuple[int, ...]:
    return poolwise.sum_pool(x, **arguments).shape


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize("name", WINDOWS)
def test_gradients_are_the_references(name: str, op: Operation) -> None:
    shape, arguments = WINDOWS[name]
    for dtype, masked in (("float32", False), ("float32", True), ("float16", False), ("bfloat16", True)):
        x = numbers(shape, dtype)
        g = numbers(outputs(x, **arguments), dtype, 1) + np.asarray(1, x.dtype)
        where = np.random.default_rng(2).random(shape) < 0.6 if masked else None
        own, wanted = gradients(op, x, g, where=where, **arguments)
        assert own.dtype == x.dtype
        scale = np.abs(g.astype(float)).max(initial=0)
        bound = PRECISION[dtype] * scale * 1e-3
        if op == Lp():  # at most 11 roundings: a norm, a share, eight additions, a product; 2.6 were seen
            bound = bound + 6 * 2**-24 * gradients(op, abs(x), abs(g), where=where, **arguments)[1]
        np.testing.assert_array_less(abs(own - wanted), PRECISION[dtype] * abs(wanted) + bound + 1e-300, err_msg=dtype)


@pytest.mark.parametrize("op", OPS, ids=repr)
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-44), ("bfloat16", 1e-40)])
def test_numbers_that_have_no_neighbours(op: Operation, padding: int, dtype: str, least: float) -> None:
    """Whose norms float32 does not hold, whose powers are infinite, or that are none."""
    finite, rare = [0.0, -0.0, 3e38, -3e38, 1e-45, -1e-45, 1.0, -2.0], [np.inf, -np.inf, np.nan]
    rng = np.random.default_rng(3)
    x = rng.choice([*finite, *rare], (20, 9, 8), p=[0.97 / 8] * 8 + [0.01] * 3).astype(np.dtype(dtype))
    x[:8] = rng.choice(finite, (8, 9, 8))
    x[8:10] = 0
    arguments: dict[str, Any] = {"window": (8, 8), "stride": 1, "padding": padding}
    infinite = [[1.0, np.inf, np.nan, 3e38]] if op != Lp(6.5) else []  # a share of which the reference rounds to 0
    for special in ([1.0], [1.0, 2.0, 0.0], *infinite):
        g = rng.choice(special, outputs(x, **arguments)).astype(x.dtype)
        own, wanted = gradients(op, x, g, **arguments)
        with np.errstate(over="ignore"):
            rounded = wanted.astype(x.dtype).astype("f4")
        np.testing.assert_allclose(own.astype("f4"), rounded, rtol=max(1e-6, PRECISION[dtype]), atol=least)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float16", 1.0), *itertools.product(("bfloat16", "float32", "float64"), (1.0, 2.0**-110, 2.0**120))],
)
def test_what_no_window_reads_receives_nothing(dtype: str, scale: float) -> None:
    """Gradients so small and so large that shares of them leave float32 too."""
    shape, arguments = WINDOWS["gaps between windows"]
    x = numbers(shape, dtype)
    g = (np.abs(numbers(outputs(x, **arguments), "float64", 1)) * scale).astype(x.dtype)
    x[:, 9:11] = np.inf
    x[:, :, 8:13] = np.nan
    own, wanted = gradients(Lp(), x, g, **arguments)
    least = 2.0**-25 if dtype == "float16" else 0  # half of its subnormals' distance
    assert not own[:, 9:11].any()
    assert not own[:, :, 8:13].any()
    assert own.any()
    np.testing.assert_allclose(own.astype(float), wanted, rtol=max(PRECISION.get(dtype, 0), 1e-6), atol=least)


def test_masked_numbers_send_and_receive_nothing() -> None:
    for op in OPS:
        x = numbers((2, 9, 9), "float32") + 3
        where = np.ones(x.shape, bool)
        where[:, 4, 5] = False
        _, arguments = WINDOWS["9x9 at stride 1"]
        g = np.ones(outputs(x, **arguments), "f4")
        expected = gradients(op, x, g, where=where, **arguments)[0]
        for hidden in (np.nan, np.inf, -np.inf):
            x[~where] = hidden
            np.testing.assert_array_equal(gradients(op, x, g, where=where, **arguments)[0], expected)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("window", "stride"), [((9, 9), 1), ((13, 13), 2), ((5, 5), 1)])
def test_of_positive_numbers_pytorchs_gradient(
    p: float, form: torch.memory_format, window: tuple[int, int], stride: int
) -> None:
    x = torch.rand(2, 40, 19, 23, generator=torch.Generator().manual_seed(4)) + 0.1
    x = x.to(memory_format=form).requires_grad_()
    y = ours.lp_pool2d(x, p, window, stride)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    (own,) = torch.autograd.grad(y, x, g)
    wide = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(stock.lp_pool2d(wide, p, window, stride), wide, g.double())
    torch.testing.assert_close(own, wanted.float(), rtol=1e-6, atol=1e-6)
    assert own.stride() == x.stride()
    explained = poolwise.explain(x, Lp(p), window, stride=stride, axes=(2, 3))
    assert explained.kernel == "native"
    assert explained.kept_bytes == x.nbytes


def test_many_taps_are_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers((40, 16, 20), "float32")
    asked: list[str] = []
    through = Native._backward_of_powers
    monkeypatch.setattr(Native, "_backward_of_powers", lambda *a: asked.append("sums") or through(*a))
    for window, by_sums in (((3, 3), False), ((6, 6), True)):
        for op in OPS:
            asked.clear()
            g = numbers(outputs(x, window=window, stride=1), "float32", 1)
            own = poolwise.pool_backward(g, x, op, window, stride=1, kernel="native")
            assert bool(asked) == (by_sums and op != Lp())  # a norm's always come from sums, in the module
            wide = torch.from_numpy(x).double().requires_grad_()
            y = poolwise.pool(wide, op, window, stride=1, kernel="gathered")
            (wanted,) = torch.autograd.grad(y, wide, torch.from_numpy(g).double())
            np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=2e-6)


def test_the_same_bits_on_any_number_of_threads() -> None:
    x = torch.randn(3, 5, 30, 31, generator=torch.Generator().manual_seed(6)).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(torch.autograd.grad(ours.lp_pool2d(x, 2.0, 9, 1).square().sum(), x)[0])
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


@pytest.mark.parametrize("op", [Lp(), Lp(3), GeM()], ids=repr)
def test_gradients_of_large_windows_are_differentiated_again(op: Operation) -> None:
    found: list[torch.Tensor] = []
    for kernel in ("native", "gathered"):
        x = torch.randn(2, 9, 10, generator=torch.Generator().manual_seed(7)).requires_grad_()
        y = poolwise.pool(x, op, (8, 8), stride=1, kernel=kernel)
        (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad((gx**2).sum(), x)[0])
    torch.testing.assert_close(*found)


def test_what_hooks_did_to_the_kept_input_is_seen() -> None:
    x = torch.randn(2, 9, 10).requires_grad_()
    changes: tuple[tuple[Any, type[Exception]], ...] = (
        (torch.Tensor.double, InvalidType),
        (lambda kept: kept[:1], InvalidValue),
    )
    for change, fault in changes:
        with torch.autograd.graph.saved_tensors_hooks(change, lambda kept: kept):
            y = poolwise.pool(x, Lp(), (8, 8), kernel="native")
        with pytest.raises(fault, match="kept must"):
            y.sum().backward()


def test_bfloat16_rounds_once() -> None:
    x = (numbers((2, 12, 12), "float32") + 2).astype(ml_dtypes.bfloat16)
    g = np.ones((2, 4, 4), ml_dtypes.bfloat16)
    own, wanted = gradients(Lp(), x, g, window=(9, 9), stride=1)
    np.testing.assert_array_equal(own, wanted.astype(ml_dtypes.bfloat16))
