"""Compositions: literals, the frameworks' own operations as judges, laws, gradients, layers, refusals."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import poolwise
import poolwise.torch
from poolwise import Fault, InvalidType, InvalidValue, Max, Mean, polyphase_pool, polyphase_unpool
from poolwise.compose import COMPOSITIONS
from poolwise.torch.layers import composed_name

X = np.random.default_rng(0).standard_normal((2, 3, 8, 12))
T = torch.from_numpy(X)
F = torch.nn.functional


# Adaptive polyphase sampling


def by_hand(x: np.ndarray, stride: int, p: float) -> tuple[np.ndarray, list[int]]:
    """Component by component, image by image."""
    kept, chosen = [], []
    for image in x:
        components = [image[:, i::stride, j::stride] for i in range(stride) for j in range(stride)]
        norms = [np.linalg.norm(component.ravel(), p) for component in components]
        chosen.append(int(np.argmax(norms)))
        kept.append(components[chosen[-1]])
    return np.stack(kept), chosen


@pytest.mark.parametrize("p", [1, 2, 3.5, np.inf])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_polyphase_keeps_the_component_of_the_largest_norm(stride: int, p: float) -> None:
    y, indices = polyphase_pool(X, (stride, stride), p=p, return_indices=True)
    expected, chosen = by_hand(X, stride, p)
    np.testing.assert_array_equal(y, expected)
    assert indices.tolist() == chosen
    assert indices.dtype == np.int64


def test_the_norm_is_selectable() -> None:
    line = np.array([3.0, 2, 0, 2])  # offset 0: 3 and 0; offset 1: 2 and 2
    assert polyphase_pool(line, (2,), p=1).tolist() == [2, 2]
    assert polyphase_pool(line, (2,), p=2).tolist() == [3, 0]
    assert polyphase_pool(line, (2,), p=np.inf).tolist() == [3, 0]
    assert polyphase_pool(line * 1e200, (2,), p=2).tolist() == [3e200, 0]


def test_equal_norms_keep_the_first_component() -> None:
    _, indices = polyphase_pool(np.ones((5, 1, 4, 6)), (2, 3), return_indices=True)
    assert indices.tolist() == [0] * 5
    assert polyphase_pool(np.array([2.0, -2.0]), (2,), return_indices=True)[1] == 0


@settings(max_examples=100)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 99))
def test_polyphase_commutes_with_every_circular_shift(a: int, b: int, down: int, right: int, seed: int) -> None:
    """Chaman & Dokmanić, section 3.3: the same numbers, shifted by a whole number."""
    x = np.random.default_rng(seed).standard_normal((2, 2, 4 * a, 3 * b))
    y = polyphase_pool(x, (a, b))
    moved = polyphase_pool(np.roll(x, (down, right), (2, 3)), (a, b))
    for one, other in zip(y, moved, strict=True):
        places = [np.roll(one, shift, (1, 2)) for shift in np.ndindex(4, 3)]
        assert any(np.array_equal(other, place) for place in places)


def test_circular_convolutions_polyphase_and_a_global_average_are_shift_invariant_untrained() -> None:
    torch.manual_seed(0)

    def network(downsampling: Any) -> torch.nn.Module:
        layers = []
        for inputs, outputs in ((3, 8), (8, 16)):
            layers += [torch.nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular"), torch.nn.ReLU()]
            layers += [downsampling()]
        return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 5))

    x = torch.randn(8, 3, 16, 16)
    ours = network(lambda: poolwise.torch.PolyphasePool2d(2)).eval()
    theirs = network(lambda: torch.nn.MaxPool2d(2)).eval()
    theirs.load_state_dict(ours.state_dict())
    moves = [(down, right) for down in range(4) for right in range(4)]
    with torch.no_grad():
        changes = [
            max(float((net(x.roll(move, (2, 3))) - net(x)).abs().max()) for move in moves) for net in (ours, theirs)
        ]
    assert changes[0] < 1e-6  # of rounding alone: the same numbers, added in another order
    assert changes[1] > 1e-3


@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (4, 2)])
def test_polyphase_unpool_is_the_inverse(stride: tuple[int, int]) -> None:
    y, indices = polyphase_pool(X, stride, return_indices=True)
    x = polyphase_unpool(y, indices, stride)
    assert x.shape == X.shape
    kept = x != 0
    np.testing.assert_array_equal(x[kept], X[kept])
    assert kept.sum() == y.size
    np.testing.assert_array_equal(polyphase_pool(x, stride), y)


@pytest.mark.parametrize("axes", [(1, 2), (0, 2), (3, 1)])
def test_polyphase_on_any_axes(axes: tuple[int, int]) -> None:
    x = (
        X.transpose(2, 0, 3, 1)[:, :, :, :2]
        if axes == (0, 2)
        else np.random.default_rng(1).standard_normal((4, 6, 8, 2))
    )
    other = [axis for axis in range(4) if axis not in axes]
    front = np.moveaxis(x, (other[0], other[1], *axes), range(4))
    y, indices = polyphase_pool(x, 2, axes=axes, channel_axis=other[1], return_indices=True)
    expected, chosen = polyphase_pool(front, (2, 2), return_indices=True)
    np.testing.assert_array_equal(np.moveaxis(y, (other[0], other[1], *axes), range(4)), expected)
    np.testing.assert_array_equal(indices, chosen)
    again = polyphase_unpool(y, indices, 2, axes=axes, channel_axis=other[1])
    np.testing.assert_array_equal(again[again != 0], x[again != 0])


def test_polyphase_takes_integers_and_tensors() -> None:
    whole = (X * 9).astype("int16")
    y, indices = polyphase_pool(whole, (2, 2), return_indices=True)
    assert y.dtype == np.int16
    ours, theirs = polyphase_pool(torch.from_numpy(whole), (2, 2), return_indices=True)
    np.testing.assert_array_equal(ours, y)
    np.testing.assert_array_equal(theirs, indices)


# Average and max


@pytest.mark.parametrize("rules", [{}, {"stride": 1, "padding": 1}, {"stride": 2, "ceil_mode": True}], ids=str)
def test_avgmax_and_catavgmax(rules: dict[str, Any]) -> None:
    largest, mean = poolwise.max_pool(X, (3, 2), **rules), poolwise.avg_pool(X, (3, 2), **rules)
    np.testing.assert_allclose(poolwise.avgmax_pool(X, (3, 2), **rules), (largest + mean) / 2, rtol=1e-14)
    beside = poolwise.catavgmax_pool(X, (3, 2), **rules)
    np.testing.assert_array_equal(beside, np.concatenate([mean, largest], axis=1))
    torch.testing.assert_close(poolwise.torch.AvgMaxPool2d((3, 2), **rules)(T).numpy(), (largest + mean) / 2)
    torch.testing.assert_close(poolwise.torch.CatAvgMaxPool2d((3, 2), **rules)(T).numpy(), beside)
    last = poolwise.catavgmax_pool(X.transpose(0, 2, 3, 1), (3, 2), axes=(1, 2), channel_axis=-1, **rules)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), beside)


def test_adaptive_avgmax_is_timms_head() -> None:
    mean, largest = F.adaptive_avg_pool2d(T, (3, 5)), F.adaptive_max_pool2d(T, (3, 5))
    torch.testing.assert_close(poolwise.torch.AdaptiveAvgMaxPool2d((3, 5))(T), 0.5 * (mean + largest))
    torch.testing.assert_close(poolwise.torch.AdaptiveCatAvgMaxPool2d((3, 5))(T), torch.cat([mean, largest], 1))
    where = X > -1
    both = poolwise.adaptive_avgmax_pool(X, (2, 2), where=where)
    apart = [poolwise.adaptive_pool(X, op, (2, 2), where=where) for op in (Mean(), Max())]
    np.testing.assert_allclose(both, (apart[0] + apart[1]) / 2, rtol=1e-14)


# Pyramids


@pytest.mark.parametrize(("op", "theirs"), [("max", F.adaptive_max_pool2d), ("avg", F.adaptive_avg_pool2d)])
def test_a_spatial_pyramid_is_adaptive_pools_flattened(op: str, theirs: Any) -> None:
    expected = torch.cat([theirs(T, level).flatten(1) for level in (1, 2, 4)], 1)
    assert expected.shape == (2, 3 * 21)
    np.testing.assert_allclose(poolwise.spatial_pyramid_pool(X, (1, 2, 4), op=op, axes=(2, 3)), expected, rtol=1e-12)
    torch.testing.assert_close(poolwise.torch.SpatialPyramidPool2d(op=op)(T), expected)
    for sizes in ((5, 5), (9, 30)):
        assert poolwise.torch.SpatialPyramidPool2d()(torch.zeros(2, 3, *sizes)).shape == (2, 63)
    last = poolwise.spatial_pyramid_pool(X.transpose(0, 2, 3, 1), op=op, axes=(1, 2), channel_axis=3)
    np.testing.assert_allclose(last, expected, rtol=1e-12)


def test_pyramid_pools_are_maps() -> None:
    maps = poolwise.torch.PyramidPool2d((1, 2, (3, 6)))(T)
    for level, ours in zip((1, 2, (3, 6)), maps, strict=True):
        torch.testing.assert_close(ours, F.adaptive_avg_pool2d(T, level))
    largest = poolwise.pyramid_pool(X, ((2, 2),), op=Max())[0]
    np.testing.assert_array_equal(largest, F.adaptive_max_pool2d(T, 2))


# Average unpooling


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(0, 99))
def test_each_element_is_the_mean_of_the_averages_that_read_it(
    window: int, stride: int, dilation: int, padding: int, seed: int
) -> None:
    padding = min(padding, window // 2)
    x = np.random.default_rng(seed).standard_normal((9, 10))
    rules: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding}
    y = poolwise.avg_pool(x, (window, window), **rules)
    back = poolwise.avg_unpool(y, (window, window), output_size=x.shape, **rules)
    shares, counts = np.zeros(x.shape), np.zeros(x.shape)
    for cell in np.ndindex(y.shape):
        places = [
            [place for tap in range(window) if 0 <= (place := start * stride - padding + tap * dilation) < size]
            for start, size in zip(cell, x.shape, strict=True)
        ]
        shares[np.ix_(*places)] += y[cell]
        counts[np.ix_(*places)] += 1
    np.testing.assert_allclose(back, shares / np.maximum(counts, 1), atol=1e-12)


def test_averages_without_overlap_come_back() -> None:
    y = poolwise.avg_pool(X, (2, 3))
    again = poolwise.avg_unpool(y, (2, 3))
    np.testing.assert_array_equal(again, y.repeat(2, 2).repeat(3, 3))
    np.testing.assert_allclose(poolwise.avg_pool(again, (2, 3)), y, rtol=1e-14)
    layer = poolwise.torch.AvgUnpool2d((2, 3))
    torch.testing.assert_close(layer(torch.from_numpy(y)), F.interpolate(torch.from_numpy(y), scale_factor=(2, 3)))
    torch.testing.assert_close(layer(torch.from_numpy(y).half()).float(), torch.from_numpy(again).half().float())


# Space to depth


@pytest.mark.parametrize("block", [1, 2, 4])
def test_space_to_depth_is_pixel_unshuffle(block: int) -> None:
    expected = F.pixel_unshuffle(T, block)
    np.testing.assert_array_equal(poolwise.space_to_depth(X, (block, block)), expected)
    assert torch.equal(poolwise.torch.SpaceToDepth(block)(T), expected)
    assert torch.equal(poolwise.torch.DepthToSpace(block)(expected), T)
    assert torch.equal(F.pixel_shuffle(expected, block), poolwise.depth_to_space(expected, (block, block)))


def test_dcr_is_onnxs_and_tensorflows_order() -> None:
    """ONNX's SpaceToDepth, as its specification writes it in NumPy."""
    n, c, h, w = X.shape
    expected = X.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * 4, h // 2, w // 2)
    y = poolwise.space_to_depth(X, (2, 2), mode="DCR")
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(poolwise.depth_to_space(y, (2, 2), mode="DCR"), X)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
    st.sampled_from(["CRD", "DCR"]),
    st.booleans(),
)
def test_depth_to_space_undoes_it_in_any_number_of_axes(sizes: list[tuple[int, int]], mode: str, last: bool) -> None:
    block, counts = zip(*sizes, strict=True)
    outputs = [a * b for a, b in sizes]
    shape = (2, *outputs, 3) if last else (2, 3, *outputs)
    axes = tuple(range(1, 1 + len(block))) if last else tuple(range(2, 2 + len(block)))
    x = np.random.default_rng(0).standard_normal(shape)
    rules: dict[str, Any] = {"mode": mode, "axes": axes, "channel_axis": -1 if last else 1}
    y = poolwise.space_to_depth(x, block, **rules)
    assert y.shape[axes[0] : axes[-1] + 1] == counts
    assert sorted(y.ravel()) == sorted(x.ravel())
    np.testing.assert_array_equal(poolwise.depth_to_space(y, block, **rules), x)


# Gradients, layers


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (poolwise.torch.PolyphasePool2d(2), (2, 2, 4, 6)),
        (poolwise.torch.AvgMaxPool2d(2, 1, 1), (1, 2, 4, 5)),
        (poolwise.torch.CatAvgMaxPool1d(2), (2, 2, 6)),
        (poolwise.torch.AvgUnpool2d(3, 2), (1, 2, 3, 2)),
        (poolwise.torch.SpatialPyramidPool2d((1, 2)), (1, 2, 4, 5)),
        (poolwise.torch.PyramidPool2d((1, 2)), (1, 2, 4, 5)),
        (poolwise.torch.SpaceToDepth((2, 1, 2)), (1, 2, 2, 3, 4)),
        (poolwise.torch.DepthToSpace(2), (1, 8, 2, 3)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_gradients_are_finite_differences(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_polyphase_unpools_gradient_goes_where_the_numbers_went() -> None:
    y, indices = polyphase_pool(T, (2, 2), return_indices=True)
    y = y.requires_grad_()
    unpool = poolwise.torch.PolyphaseUnpool2d(2)
    assert torch.autograd.gradcheck(lambda y: unpool(y, indices), y)
    g = torch.randn(T.shape, dtype=torch.float64)
    unpool(y, indices).backward(g)
    assert torch.equal(y.grad, g[unpool(torch.ones_like(y), indices) > 0].reshape(y.shape))


@pytest.mark.parametrize("composition", COMPOSITIONS, ids=lambda each: each.function.__name__)
def test_every_composition_is_in_every_place(composition: Any) -> None:
    name = composition.function.__name__
    assert getattr(poolwise, name) is composition.function
    assert name in poolwise.__all__
    if composition.torch is None:
        return
    for rank in (1, 2, 3) if composition.ranked else (None,):
        layer = getattr(poolwise.torch, composed_name(composition, rank))
        function = getattr(poolwise.torch.functional, name if rank is None else f"{name}{rank}d")
        words = list(inspect.signature(layer).parameters)
        assert list(inspect.signature(function).parameters)[composition.inputs :] == words
        assert not {"axes", "channel_axis", "window"} & set(words)
        assert layer.__doc__
        assert "Raises" in layer.__doc__ or "what is raised" in layer.__doc__ or "arguments are" in layer.__doc__


def test_functions_take_pytorchs_order_of_arguments() -> None:
    function = poolwise.torch.functional.avgmax_pool2d
    torch.testing.assert_close(function(T, 3, 2, 1), poolwise.torch.AvgMaxPool2d(3, stride=2, padding=1)(T))
    one = poolwise.torch.functional.space_to_depth(T, block_size=2, mode="DCR")
    assert torch.equal(one, poolwise.torch.SpaceToDepth(2, "DCR")(T))


def test_layers_copy_and_pickle() -> None:
    layer = poolwise.torch.SpatialPyramidPool2d(((1, 2), (2, 2)), op="avg")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(T), layer(T))
        assert repr(twin) == repr(layer) == "SpatialPyramidPool2d(levels=((1, 2), (2, 2)), op='avg')"


@pytest.mark.parametrize(
    ("make", "fault", "text"),
    [
        (lambda: polyphase_pool(X, (3, 2)), InvalidValue, "polyphase_pool: stride must divide the input's 8 on axis 2"),
        (lambda: polyphase_pool(X, 2), InvalidType, "polyphase_pool: stride must be a tuple"),
        (lambda: polyphase_pool(X, (2, 0)), InvalidValue, "polyphase_pool: stride must be at least 1"),
        (lambda: polyphase_pool(X, (2, 2), p=0.5), InvalidValue, "polyphase_pool: p must be at least 1, got 0.5"),
        (lambda: polyphase_pool(X, (2, 2), p=np.nan), InvalidValue, "polyphase_pool: p must be at least 1, got nan"),
        (lambda: polyphase_pool(X, (2, 2), return_indices=1), InvalidType, "return_indices must be True or False"),
        (lambda: polyphase_pool(X, (2, 2), channel_axis=3), InvalidValue, "channel_axis must not be one of the pooled"),
        (lambda: polyphase_pool(X, (2, 2), channel_axis=7), InvalidValue, "must be between -4 and 3"),
        (lambda: polyphase_unpool(X, [0], (2, 2)), InvalidValue, "polyphase_unpool: indices must have the batch's"),
        (
            lambda: polyphase_unpool(X, [0, 4], (2, 2)),
            InvalidValue,
            "polyphase_unpool: indices must be between 0 and 3",
        ),
        (lambda: polyphase_unpool(X, [0, -1], (2, 2)), InvalidValue, "indices must be between 0 and 3"),
        (lambda: polyphase_unpool(X, [0.0, 1], (2, 2)), InvalidType, "indices must be integers, got float64"),
        (lambda: polyphase_unpool(T, [0, 1], (2, 2)), InvalidType, "indices must be an array of torch"),
        (lambda: polyphase_unpool(X, [0, 0], (2**40, 2**40)), InvalidValue, "stride must give sizes that"),
        (
            lambda: poolwise.avgmax_pool(X.astype(int), (2, 2)),
            InvalidType,
            "avgmax_pool: x must have one of the dtypes",
        ),
        (lambda: poolwise.avgmax_pool(X, (2, 0)), InvalidValue, "avgmax_pool: window must be at least 1"),
        (lambda: poolwise.catavgmax_pool(X, (1,) * 4), InvalidValue, "catavgmax_pool: channel_axis must be given"),
        (lambda: poolwise.avg_unpool(X, (2, 2), padding="same"), InvalidValue, "avg_unpool: padding must be given in"),
        (lambda: poolwise.avg_unpool(X, (2, 2), output_size=(99, 2)), InvalidValue, "avg_unpool: output_size must be"),
        (lambda: poolwise.avg_unpool(X.astype(int), (2, 2)), InvalidType, "avg_unpool: y must have one of the dtypes"),
        (lambda: poolwise.spatial_pyramid_pool(X), InvalidType, "spatial_pyramid_pool: levels must be a tuple"),
        (lambda: poolwise.pyramid_pool(X, ((1,),), op="best"), InvalidValue, "pyramid_pool: op must be one of"),
        (lambda: poolwise.pyramid_pool(X, ((1,),), op=3), InvalidType, "pyramid_pool: op must be an operation"),
        (lambda: poolwise.space_to_depth(X, (5, 2)), InvalidValue, "space_to_depth: block_size must divide"),
        (lambda: poolwise.space_to_depth(X, (2, 2), mode="X"), InvalidValue, "space_to_depth: mode must be one of"),
        (lambda: poolwise.space_to_depth(X, (2, 2), mode=1), InvalidType, "space_to_depth: mode must be one of"),
        (lambda: poolwise.space_to_depth(X[0, 0], (2, 2)), InvalidValue, "space_to_depth: channel_axis must be given"),
        (lambda: poolwise.depth_to_space(X, (2, 2)), InvalidValue, "block_size must divide the 3 channels"),
        (
            lambda: poolwise.torch.SpaceToDepth(2)(T[0, 0]),
            InvalidValue,
            "SpaceToDepth: input must have at least 3 axes",
        ),
        (
            lambda: poolwise.torch.PolyphaseUnpool2d(2)(T, [0, 1]),
            InvalidType,
            "PolyphaseUnpool2d: input must be 2 tensors",
        ),
        (lambda: poolwise.torch.AvgMaxPool2d(2)(X), InvalidType, "AvgMaxPool2d: input must be 1 tensors"),
        (lambda: poolwise.torch.PolyphasePool2d(2, colour=3), InvalidType, "unexpected argument colour=3"),
        (lambda: poolwise.torch.PolyphasePool2d(2, stride=3), InvalidType, "unexpected argument stride=3"),
        (lambda: poolwise.torch.SpaceToDepth(1, "CRD", 3), InvalidType, "at most 2 arguments may be given, got 3"),
    ],
)
def test_bad_input_gets_one_clear_error(make: Any, fault: type[Exception], text: str) -> None:
    with pytest.raises(fault) as caught:
        make()
    assert text in str(caught.value)


@pytest.mark.parametrize("function", [poolwise.spatial_pyramid_pool, poolwise.pyramid_pool])
@pytest.mark.parametrize(
    ("levels", "fault"),
    [
        *((each, InvalidValue) for each in ((), (0,), (1, -1), ((1,), (1, 2)), ((),))),
        *((each, InvalidType) for each in ("a", b"ab", (3, "x"), (1.5,), (None,), -1, 3, None)),
    ],
)
def test_levels_are_refused_in_one_way(function: Any, levels: Any, fault: type[Fault]) -> None:
    """With all of their value and what is allowed, whatever is wrong with them."""
    each = "an int of at least 1 or a tuple of them, one for each pooled axis"
    with pytest.raises(fault) as caught:
        function(X, levels, axes=(2, 3))
    assert str(caught.value) == (
        f"{function.__name__}: levels must be a tuple of at least one level, each {each}, got {levels!r}"
    )


def test_without_axes_levels_are_tuples() -> None:
    with pytest.raises(InvalidType, match=r"each a tuple of ints .* \(an int needs axes beside it\), got \(1, 2, 4\)"):
        poolwise.spatial_pyramid_pool(X)
    with pytest.raises(InvalidValue, match=r"levels .* gives an output of shape"):
        poolwise.spatial_pyramid_pool(X, (2**40,), axes=2)
    with pytest.raises(InvalidType, match=r"^spatial_pyramid_pool2d: levels must be .* got \(3, 'x'\)"):
        poolwise.torch.functional.spatial_pyramid_pool2d(T, (3, "x"))
