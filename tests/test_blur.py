"""Blur and max-blur pooling: literals, convolutions with explicit kernels, laws, gradients, refusals."""

from __future__ import annotations

import copy
import pickle
from math import comb
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import ndimage

import poolwise
import poolwise.torch
from poolwise import Blur, InvalidType, InvalidValue, Max, blur_pool, max_blur_pool

X = np.random.default_rng(0).standard_normal((2, 3, 11, 14))
MODES = {"reflect": "mirror", "circular": "wrap", "replicate": "nearest"}  # ours -> scipy.ndimage's
KERNELS = ["gathered", "reference"]


def binomial(taps: int) -> np.ndarray:
    """By convolving [1, 1] with itself."""
    weights = np.ones(1)
    for _ in range(taps - 1):
        weights = np.convolve(weights, [1, 1])
    return weights / weights.sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("line", "window", "arguments", "expected"),
    [
        ([4, 8, 0, 4, 4], 3, {"stride": 2}, [5, 3]),  # (4 + 16 + 0) / 4, (0 + 8 + 4) / 4
        ([4, 8], 2, {}, [6]),
        ([16, 0, 0, 0, 32], 5, {}, [3]),  # (16 + 32) / 16
        ([4, 8, 0], 3, {"stride": 1, "padding": 1}, [16 / 3, 5, 8 / 3]),  # at the ends (8 + 8) / 3 and (8 + 0) / 3
        ([4, 8, 0], 3, {"stride": 1, "padding": 1, "padding_mode": "reflect"}, [6, 5, 4]),
        ([4, 8, 0], 3, {"stride": 1, "padding": 1, "padding_mode": "circular"}, [4, 5, 3]),
        ([4, 8, 0], 3, {"stride": 1, "padding": 1, "padding_mode": "replicate"}, [5, 5, 2]),
        ([4, 9, 8], 3, {"where": np.array([True, False, True])}, [6]),
        ([4, 9, 8, 9, 0], 3, {"dilation": 2}, [5]),
        ([3, 5, 9], 3, {"taps": (2, 0, 1)}, [5]),
        ([3, 5], 2, {"taps": 2}, [4]),
    ],
)
def test_worked_by_hand(line: list[float], window: int, arguments: dict[str, Any], expected: Any, kernel: str) -> None:
    np.testing.assert_allclose(blur_pool(line, (window,), **arguments, kernel=kernel), expected, rtol=1e-15)


def test_a_plane_is_weighed_by_the_product_of_its_axes_weights() -> None:
    window = np.arange(9.0).reshape(3, 3) ** 2
    expected = (0 + 2 * 1 + 4 + 2 * 9 + 4 * 16 + 2 * 25 + 36 + 2 * 49 + 64) / 16
    assert blur_pool(window, (3, 3)).tolist() == [[expected]]


@pytest.mark.parametrize("taps", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_is_a_convolution_with_the_binomial_kernel(taps: int, stride: int) -> None:
    kernel = torch.from_numpy(np.outer(binomial(taps), binomial(taps)))[None, None].expand(3, 1, taps, taps)
    expected = torch.nn.functional.conv2d(torch.from_numpy(X), kernel, stride=stride, groups=3)
    np.testing.assert_allclose(blur_pool(X, (taps, taps), stride=stride), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_padding_modes_are_scipys(mode: str, taps: int) -> None:
    expected = X
    for axis in (2, 3):
        expected = ndimage.convolve1d(expected, binomial(taps), axis=axis, mode=MODES[mode])
    y = blur_pool(X, (taps, taps), stride=1, padding=taps // 2, padding_mode=mode)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("taps", [1, 2, 9, 54, 55, 1024, 1025, 3000])
def test_weights_are_binomial_coefficients_of_any_order(taps: int) -> None:
    weights = Blur().weights(taps)
    exact = np.array([comb(taps - 1, tap) / 2 ** (taps - 1) for tap in range(taps)])
    np.testing.assert_allclose(weights / weights.sum(), exact, rtol=1e-9, atol=1e-300)
    if taps <= 54:
        assert weights.sum() == 1


CONSTANT = st.floats(-1e6, 1e6).filter(lambda value: abs(value) > 1e-6)


@settings(max_examples=100)
@given(
    CONSTANT,
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["absent", *MODES]),
)
def test_a_constant_stays_that_constant(
    value: float, taps: int, stride: int, padding: int, masked: bool, mode: str
) -> None:
    x = np.full((9, 8), value)
    where = np.random.default_rng(0).random(x.shape) < 0.6 if masked else None
    y = blur_pool(x, (taps, taps), stride=stride, padding=padding, padding_mode=mode, where=where)
    held = poolwise.sum_pool(
        np.ones(x.shape), (taps, taps), stride=stride, padding=padding, padding_mode=mode, where=where
    )
    np.testing.assert_allclose(y[held > 0], value, rtol=4e-15)
    assert np.isnan(y[held == 0]).all()


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 99), st.sampled_from(["absent", *MODES]))
def test_it_is_linear(taps: int, stride: int, seed: int, mode: str) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, 9, 8))
    rules = {"stride": stride, "padding": taps // 2, "padding_mode": mode}
    sum_of = blur_pool(2 * a - 3 * b, (taps, taps), **rules)
    np.testing.assert_allclose(
        sum_of, 2 * blur_pool(a, (taps, taps), **rules) - 3 * blur_pool(b, (taps, taps), **rules), atol=1e-12
    )


@settings(max_examples=50)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(-9, 9), st.integers(0, 99))
def test_circularly_it_commutes_with_shifts_by_whole_strides(stride: int, taps: int, steps: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(6 * stride)
    pads = (((taps - 1) // 2, taps // 2),)
    for function, window, own in ((blur_pool, (taps,), {"padding": pads}), (max_blur_pool, (1,), {"taps": taps})):
        rules: dict[str, Any] = {**own, "stride": stride, "padding_mode": "circular"}
        y, moved = function(x, window, **rules), function(np.roll(x, steps * stride), window, **rules)
        np.testing.assert_allclose(np.roll(y, steps), moved, rtol=1e-12)


@pytest.mark.parametrize("window", [(3, 5), (200, 100)])
def test_one_axis_after_another_is_all_at_once(window: tuple[int, int]) -> None:
    x = np.random.default_rng(2).standard_normal((210, 120))
    x[0, 0], x[5, 7] = np.inf, np.nan
    rules: dict[str, Any] = {"stride": (7, 5), "padding": 2, "kernel": "gathered"}
    both = [blur_pool(x, window, where=where, **rules) for where in (None, np.ones(x.shape, bool))]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-12)
    assert np.isposinf(both[0][0, 0]) or np.isnan(both[0][0, 0])


# Max, then blur


def by_torch(x: np.ndarray, window: int, stride: int, padding: int, taps: int, mode: str) -> torch.Tensor:
    """The same of PyTorch's own operations."""
    maxima = torch.nn.functional.max_pool2d(torch.from_numpy(x), window, 1, padding)
    low, high = (taps - 1) // 2, taps // 2
    padded = torch.nn.functional.pad(maxima, (low, high, low, high), mode=mode)
    kernel = torch.from_numpy(np.outer(binomial(taps), binomial(taps)))[None, None].expand(x.shape[1], 1, taps, taps)
    return torch.nn.functional.conv2d(padded, kernel, stride=stride, groups=x.shape[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 1, 1), (3, 3, 0)])
def test_max_blur_is_a_max_at_stride_1_then_a_convolution(
    window: int, stride: int, padding: int, taps: int, mode: str
) -> None:
    y = max_blur_pool(X, (window, window), stride=stride, padding=padding, taps=taps, padding_mode=mode)
    expected = by_torch(X, window, stride, padding, taps, mode)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
    assert y.shape == poolwise.max_pool(X, (window, window), stride=stride, padding=padding).shape
    layer = poolwise.torch.MaxBlurPool2d(window, stride, padding, taps=taps, padding_mode=mode)
    torch.testing.assert_close(layer(torch.from_numpy(X)), expected)
    function = poolwise.torch.functional.max_blur_pool2d
    both = function(torch.from_numpy(X), window, stride, padding, taps=taps, padding_mode=mode)
    torch.testing.assert_close(both, expected)


def test_zhangs_example() -> None:
    """After a max, 0 0 1 1 0 0 1 1 alternates; shifted by one it is constant."""
    line = np.array([0.0, 0, 1, 1] * 4)
    plain = [poolwise.max_pool(np.roll(line, shift), (2,)) for shift in (0, 1)]
    assert plain[0].tolist() == [0, 1] * 4
    assert plain[1].tolist() == [1] * 8
    soft = [max_blur_pool(np.roll(line, shift), (2,), padding=((0, 1),), padding_mode="circular") for shift in (0, 1)]
    assert np.abs(soft[0] - soft[1]).max() <= 0.5


@pytest.mark.parametrize("axes", [(1, 2), (2, 0), 3], ids=str)
def test_any_axes(axes: Any) -> None:
    x = X.transpose(0, 2, 3, 1)
    order = (axes,) if isinstance(axes, int) else axes
    back = np.moveaxis(x, order, range(-len(order), 0))
    expected = max_blur_pool(back, (2,) * len(order), stride=2)
    np.testing.assert_array_equal(
        np.moveaxis(max_blur_pool(x, 2, stride=2, axes=axes), order, range(-len(order), 0)), expected
    )


@pytest.mark.parametrize(
    ("rules", "line", "expected"),
    [
        ({"padding": 2}, [1.0, 2.0], [1, 4 / 3, 7 / 4, 2, 2]),  # the maxima: none, 1, 2, 2, none
        ({"where": np.array([False, False, True])}, [9.0, 9.0, 1.0], [1, 1]),
    ],
)
def test_a_window_without_an_element_takes_no_part(rules: dict[str, Any], line: Any, expected: Any) -> None:
    y = max_blur_pool(np.array(line), (2,), stride=1, padding_mode="absent", **rules)
    np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_ceil_mode_and_dilation_and_a_mask_go_where_they_belong() -> None:
    rules = {"dilation": 2, "padding": 1}
    maxima = poolwise.max_pool(X, (3, 3), stride=1, **rules)
    expected = blur_pool(maxima, (3, 3), stride=2, padding=1, ceil_mode=True, padding_mode="reflect")
    y = max_blur_pool(X, (3, 3), stride=2, ceil_mode=True, **rules)
    np.testing.assert_allclose(y, expected, rtol=1e-14)


# Gradients


@pytest.mark.parametrize("mode", ["absent", "reflect"])
@pytest.mark.parametrize(
    "make",
    [
        lambda mode: poolwise.torch.BlurPool2d(3, 2, 1, padding_mode=mode),
        lambda mode: poolwise.torch.BlurPool2d((2, 4), 1, taps=None, padding_mode=mode),
        lambda mode: poolwise.torch.MaxBlurPool2d(2, padding_mode=mode),
    ],
    ids=["3", "2×4", "max"],
)
def test_gradients_are_finite_differences(make: Any, mode: str) -> None:
    layer = make(mode)
    x = torch.from_numpy(X[:1, :1, :5, :6].copy()).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_numpys_gradient_is_pytorchs() -> None:
    x = torch.from_numpy(X).requires_grad_()
    rules: dict[str, Any] = {"stride": 2, "padding": 1}
    y = poolwise.blur_pool(x, (3, 5), **rules)
    g = np.random.default_rng(1).standard_normal(tuple(y.shape))
    y.backward(torch.from_numpy(g))
    np.testing.assert_allclose(poolwise.pool_backward(g, X, Blur(), (3, 5), **rules), x.grad, rtol=1e-12, atol=1e-14)


# The rest


def test_layers_are_values_that_print_and_pickle() -> None:
    for layer in (
        poolwise.torch.BlurPool2d(3, 2, 1, padding_mode="reflect", taps=(1, 2, 1)),
        poolwise.torch.MaxBlurPool2d(2, 2, taps=(1, 3, 1)),
    ):
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert repr(twin) == repr(layer)
            torch.testing.assert_close(twin(torch.from_numpy(X)), layer(torch.from_numpy(X)))
        assert "reflect" in repr(layer)


@pytest.mark.parametrize(
    ("make", "fault", "text"),
    [
        (lambda: Blur(0), InvalidValue, "taps must be at least 1, got 0"),
        (lambda: Blur(2.5), InvalidType, "taps must be None, an int or a tuple of weights, got 2.5"),
        (lambda: Blur(True), InvalidType, "taps must be None, an int or a tuple of weights, got True"),
        (lambda: Blur("3"), InvalidType, "taps must be None, an int or a tuple of weights, got '3'"),
        (lambda: Blur((1, -1)), InvalidValue, "taps must be between 0 and"),
        (lambda: Blur((1, np.nan)), InvalidValue, "taps must be between 0 and"),
        (lambda: Blur((0, 0)), InvalidValue, "taps must hold a weight above 0"),
        (lambda: Blur(()), InvalidValue, "taps must hold a weight above 0"),
        (lambda: blur_pool(X, (3, 3), taps=5), InvalidValue, "it has 5 taps along each axis, and the window is (3, 3)"),
        (
            lambda: blur_pool(X, (3, 2), taps=(1, 2, 1)),
            InvalidValue,
            "3 taps along each axis, and the window is (3, 2)",
        ),
        (lambda: poolwise.adaptive_pool(X, Blur(), (3, 3)), InvalidValue, "these bins differ in size"),
        (lambda: blur_pool(X.astype(int), (2, 2)), InvalidType, "got int64"),
        (lambda: max_blur_pool(X.astype(int), (2, 2)), InvalidType, "max_blur_pool: x must have one of the dtypes"),
        (lambda: max_blur_pool(X, (2, 2), taps=0), InvalidValue, "max_blur_pool: taps must be at least 1, got 0"),
        (lambda: max_blur_pool(X, (2, 2), taps=None), InvalidType, "max_blur_pool: taps must be an int or a tuple"),
        (lambda: max_blur_pool(X, (2, 2), stride=0), InvalidValue, "max_blur_pool: stride must be at least 1, got 0"),
        (lambda: max_blur_pool(X, (2, 15)), InvalidValue, "max_blur_pool: window must fit the padded input"),
        (lambda: max_blur_pool(X, 2), InvalidType, "max_blur_pool: window must be a tuple"),
        (lambda: max_blur_pool(X, (2, 2), padding=-1), InvalidValue, "max_blur_pool: padding must be at least 0"),
        (
            lambda: max_blur_pool(X, (2, 2), padding_mode="zero"),
            InvalidValue,
            "max_blur_pool: padding_mode must be one",
        ),
        (lambda: max_blur_pool(X, (2, 2), where=np.ones(3, bool)), InvalidValue, "max_blur_pool: where must broadcast"),
        (lambda: poolwise.torch.BlurPool2d(3, taps=0), InvalidValue, "BlurPool2d: taps must be at least 1"),
        (poolwise.torch.MaxBlurPool2d, InvalidType, "MaxBlurPool2d: kernel_size must be given"),
        (lambda: poolwise.torch.MaxBlurPool2d(2, p=3), InvalidType, "MaxBlurPool2d: unexpected argument p=3"),
        (
            lambda: poolwise.torch.MaxBlurPool2d(2)(torch.ones(2, 2)),
            InvalidValue,
            "MaxBlurPool2d: input must have 3 or 4 axes",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(make: Any, fault: type[Exception], text: str) -> None:
    with pytest.raises(fault) as caught:
        make()
    assert text in str(caught.value)


def test_even_adaptive_bins_and_whole_axes_are_windows_too() -> None:
    x = X[..., :10, :12]
    y = poolwise.adaptive_pool(x, Blur(), (5, 4))
    np.testing.assert_allclose(y, blur_pool(x, (2, 3)), rtol=1e-14)
    whole = np.einsum("bcij,i,j->bc", x, binomial(10), binomial(12))
    np.testing.assert_allclose(poolwise.global_pool(x, Blur(), axes=(2, 3)), whole, rtol=1e-12)


def test_max_blur_differs_less_under_shifts_than_max() -> None:
    rng = np.random.default_rng(3)
    x = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 1.0, mode="wrap")

    def change(function: Any) -> float:
        a, b = (function(np.roll(x, shift, 1)) for shift in (0, 1))
        return float(np.abs(a - b).mean())

    plain = change(lambda v: poolwise.pool(v, Max(), (2, 2), stride=2))
    soft = change(lambda v: max_blur_pool(v, (2, 2), padding=((0, 1), (0, 1)), padding_mode="circular"))
    assert soft < 0.8 * plain
