"""Laws that hold for any input, tried on many: against the reference, NumPy, PyTorch, and against each other."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray

import poolwise
from cases import OPERATIONS, same, takes, values
from poolwise import Geometry, Max, Mean, Min, Operation, Sum
from poolwise.reference import Reference
from poolwise.torch import functional

DTYPES = ["float16", "float32", "float64", "int8", "uint8", "uint16", "int64", "uint64", "bool"]
MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}
Arguments = dict[str, Any]


@st.composite
def axis(draw: st.DrawFn, *, most: int = 7) -> dict[str, Any]:
    """One pooled axis on which at least one window fits."""
    window, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    low, high = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    span = (window - 1) * dilation + 1
    size = draw(st.integers(max(1, span - low - high), max(span, most)))
    return {
        "size": size,
        "window": window,
        "stride": draw(st.integers(1, 4)),
        "dilation": dilation,
        "padding": (low, high),
    }


@st.composite
def pooling(draw: st.DrawFn, *, ranks: int = 3) -> tuple[tuple[int, ...], Arguments]:
    """A shape and `pool`'s arguments: pooled axes anywhere, in any order, among up to two batch axes."""
    pooled = draw(st.lists(axis(most=7), min_size=1, max_size=ranks))
    batch = draw(st.lists(st.integers(0, 3), max_size=2))
    places = draw(st.permutations(range(len(pooled) + len(batch))))
    shape = [0] * len(places)
    for place, size in zip(places, [*(entry["size"] for entry in pooled), *batch], strict=True):
        shape[place] = size
    arguments = {name: tuple(entry[name] for entry in pooled) for name in ("window", "stride", "dilation", "padding")}
    arguments["padding"] = draw(st.sampled_from([arguments["padding"], arguments["padding"], "same", "same_lower"]))
    arguments["ceil_mode"] = draw(st.booleans())
    arguments["axes"] = tuple(places[: len(pooled)])
    return tuple(shape), arguments


def viewed(x: NDArray[Any], view: str) -> NDArray[Any]:
    """The same numbers in another place of memory."""
    if view == "F-order":
        return np.asfortranarray(x)
    if view == "negative strides":
        return np.flip(np.ascontiguousarray(np.flip(x)))
    if view == "every second":
        wide = np.repeat(x, 2, axis=-1)
        return wide[..., ::2]
    if view == "unaligned":
        raw = np.empty(x.nbytes + 1, np.uint8)
        view_of_raw = raw[1:].view(x.dtype).reshape(x.shape)
        view_of_raw[...] = x
        return view_of_raw
    return x


VIEWS = ["C-order", "F-order", "negative strides", "every second", "unaligned"]


@settings(max_examples=250)
@given(
    pooling(), st.sampled_from(OPERATIONS), st.sampled_from(DTYPES), st.sampled_from(VIEWS), st.booleans(), st.data()
)
def test_the_default_kernel_gives_what_the_reference_gives(
    drawn: tuple[tuple[int, ...], Arguments], op: Operation, dtype: str, view: str, masked: bool, data: st.DataObject
) -> None:
    shape, arguments = drawn
    if not takes(op, dtype):
        dtype = "int8" if takes(op, "int8") else "float32"
    x = values(shape, dtype, seed=data.draw(st.integers(0, 99)))
    if masked:
        arguments["where"] = np.random.default_rng(0).random(x.shape[-1:]) < 0.6
    arguments["padding_mode"] = data.draw(st.sampled_from(["absent", "absent", *MODES]))
    same(
        poolwise.pool(viewed(x, view), op, **arguments),
        poolwise.pool(x, op, **arguments, kernel="reference"),
        scale=prod(arguments["window"]) * 8,
    )


@settings(max_examples=100)
@given(pooling(), st.sampled_from([Max(), Min()]), st.sampled_from(DTYPES), st.sampled_from(VIEWS))
def test_indices_name_the_element_that_won(
    drawn: tuple[tuple[int, ...], Arguments], op: Operation, dtype: str, view: str
) -> None:
    shape, arguments = drawn
    x, axes = values(shape, dtype), arguments["axes"]
    function = poolwise.max_pool if isinstance(op, Max) else poolwise.min_pool
    y, index = function(viewed(x, view), return_indices=True, **arguments)
    _, expected = function(x, return_indices=True, kernel="reference", **arguments)
    np.testing.assert_array_equal(index, expected)
    last = tuple(range(-len(axes), 0))
    batch = prod(np.delete(shape, axes).tolist())
    flat = np.moveaxis(x, axes, last).reshape(batch, prod(shape[axis] for axis in axes))
    at = np.moveaxis(index, axes, last).reshape(batch, prod(y.shape[axis] for axis in axes))
    won = np.take_along_axis(flat, np.maximum(at, 0), axis=-1)
    got = np.moveaxis(y, axes, last).reshape(at.shape)
    np.testing.assert_array_equal(got[at >= 0], won[at >= 0])


@settings(max_examples=100)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6),
    st.sampled_from(["nearest", "truncate"]),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_integer_means_are_those_of_unbounded_integers(numbers: list[int], rounding: str, divisor: int | None) -> None:
    held = len(numbers) + divisor if divisor else len(numbers)  # no less than the count: the mean fits 64 bits
    total, half = sum(numbers), 2 * (sum(numbers) % held)
    floor = total // held
    nearest = floor + (half > held or (half == held and floor % 2 == 1))
    expected = nearest if rounding == "nearest" else floor + (floor < 0 and half > 0)
    mean = poolwise.avg_pool(np.array(numbers, np.int64), (len(numbers),), divisor=divisor and held, rounding=rounding)
    assert mean.tolist() == [expected]


def enumerated(shape: tuple[int, ...], arguments: Arguments) -> list[list[list[int]]]:
    """Per pooled axis and output cell, the elements read: by walking window starts one by one, no formula."""
    return [
        _walk(shape[where], window, stride, dilation, padding, arguments["ceil_mode"])
        for where, window, stride, dilation, padding in zip(
            arguments["axes"], *(arguments[name] for name in ("window", "stride", "dilation", "padding")), strict=True
        )
    ]


def _walk(size: int, window: int, stride: int, dilation: int, padding: tuple[int, int], up: bool) -> list[list[int]]:
    """Windows while one fits, and the first does; rounding up, until one reaches the end; none starts beyond."""
    low, high = padding
    starts = [-low]
    reach = (window - 1) * dilation
    while starts[-1] + stride + reach < size + high:
        starts.append(starts[-1] + stride)
    if up and starts[-1] + reach < size + high - 1:
        starts.append(starts[-1] + stride)
    if up and starts[-1] >= size:
        starts.pop()
    return [[tap for tap in range(start, start + reach + 1, dilation) if 0 <= tap < size] for start in starts]


@settings(max_examples=250)
@given(pooling().filter(lambda drawn: not isinstance(drawn[1]["padding"], str)))
def test_a_geometry_reads_what_walking_the_windows_reads(drawn: tuple[tuple[int, ...], Arguments]) -> None:
    shape, arguments = drawn
    geometry = Geometry.of(shape, **arguments)
    walked = enumerated(shape, arguments)
    assert geometry.outputs == tuple(map(len, walked))
    for table, cells in zip(geometry.tables, walked, strict=True):
        rows = table.table()
        assert [index[here].tolist() for index, here in zip(rows.index, rows.mask, strict=True)] == cells
    assert [coverage.sum() for coverage in geometry.coverage()] == [sum(map(len, cells)) for cells in walked]
    assert geometry.has_empty_windows == any(cell == [] for cells in walked for cell in cells)


@given(st.integers(1, 40), st.integers(1, 50))
def test_adaptive_bins_start_and_end_where_pytorch_says(size: int, output: int) -> None:
    rows = Geometry.adaptive((size,), output_size=(output,)).tables[0].table()
    expected = [list(range(i * size // output, ceil((i + 1) * size / output))) for i in range(output)]
    assert [index[here].tolist() for index, here in zip(rows.index, rows.mask, strict=True)] == expected


@given(st.integers(1, 40), st.integers(1, 50))
def test_disjoint_bins_are_those_of_array_split(size: int, output: int) -> None:
    output = min(size, output)
    rows = Geometry.adaptive((size,), output_size=(output,), bins="disjoint").tables[0].table()
    expected = [part.tolist() for part in np.array_split(np.arange(size), output)]
    assert [index[here].tolist() for index, here in zip(rows.index, rows.mask, strict=True)] == expected


@given(axis(most=30))
def test_same_is_tensorflows_published_rule(entry: dict[str, Any]) -> None:
    """https://www.tensorflow.org/api_docs/python/tf/nn: the notes on padding."""
    size, stride = entry["size"], entry["stride"]
    effective = (entry["window"] - 1) * entry["dilation"] + 1
    along = max(effective - stride, 0) if size % stride == 0 else max(effective - size % stride, 0)
    rule = {name: entry[name] for name in ("window", "stride", "dilation")}
    geometry = Geometry.of((size,), (0,), **rule, padding="same")
    assert geometry.output_shape == (ceil(size / stride),)
    assert (geometry.tables[0].low, geometry.tables[0].high) == (along // 2, along - along // 2)
    lower = Geometry.of((size,), (0,), **rule, padding="same_lower").tables[0]
    assert (lower.low, lower.high) == (along - along // 2, along // 2)


@settings(max_examples=100)
@given(pooling(ranks=2), st.sampled_from(OPERATIONS), st.sampled_from(sorted(MODES)))
def test_a_padding_mode_reads_what_numpy_pads_with(
    drawn: tuple[tuple[int, ...], Arguments], op: Operation, mode: str
) -> None:
    shape, arguments = drawn
    arguments["ceil_mode"] = False
    geometry = Geometry.of(shape, **arguments)
    x, axes = values(shape, "float64"), arguments["axes"]
    pads = [(0, 0)] * x.ndim
    for place, table in zip(axes, geometry.tables, strict=True):
        pads[place] = (table.low, table.high)
    padded = np.pad(x, pads, mode=MODES[mode])
    same(
        poolwise.pool(x, op, **arguments, padding_mode=mode),
        poolwise.pool(padded, op, **{**arguments, "padding": 0}),
        scale=64,
    )


@settings(max_examples=100)
@given(pooling(ranks=2), st.integers(0, 99))
def test_max_is_at_least_the_mean_is_at_least_min(drawn: tuple[tuple[int, ...], Arguments], seed: int) -> None:
    shape, arguments = drawn
    x = np.random.default_rng(seed).normal(size=shape)
    low, mean, high = (poolwise.pool(x, op, **arguments) for op in (Min(), Mean(), Max()))
    empty = np.isnan(mean)
    assert ((low <= mean + 1e-12) | empty).all()
    assert ((mean <= high + 1e-12) | empty).all()
    assert (empty == np.isneginf(high)).all()


@settings(max_examples=100)
@given(pooling(), st.sampled_from(["float32", "float64", "int8", "int64"]))
def test_min_is_minus_the_max_of_minus(drawn: tuple[tuple[int, ...], Arguments], dtype: str) -> None:
    shape, arguments = drawn
    x = values(shape, dtype)
    least, most = poolwise.min_pool(x, **arguments), poolwise.max_pool(-x, **arguments)
    some = poolwise.sum_pool(np.ones(shape), **arguments) > 0
    np.testing.assert_array_equal(least[some], -most[some])


@settings(max_examples=100)
@given(pooling(ranks=2), st.booleans())
def test_sum_is_mean_times_count(drawn: tuple[tuple[int, ...], Arguments], masked: bool) -> None:
    shape, arguments = drawn
    x = np.random.default_rng(0).integers(-99, 99, shape).astype(float)
    where = np.random.default_rng(1).random(shape) < 0.7 if masked else None
    total, mean = (poolwise.pool(x, op, where=where, **arguments) for op in (Sum(), Mean()))
    count = poolwise.sum_pool(np.ones(shape), where=where, **arguments)
    np.testing.assert_allclose(np.where(count == 0, 0.0, mean) * count, total, rtol=1e-12, atol=1e-9)


@settings(max_examples=100)
@given(axis(most=20), st.integers(1, 3), st.sampled_from([Max(), Min(), Sum(), Mean()]))
def test_pooling_commutes_with_a_shift_by_whole_strides(entry: dict[str, Any], steps: int, op: Operation) -> None:
    rule = {name: (entry[name],) for name in ("window", "stride", "dilation")}
    x = np.random.default_rng(0).integers(-9, 9, entry["size"] + 3 * entry["stride"] + 12).astype("float32")
    y, shifted = poolwise.pool(x, op, **rule), poolwise.pool(x[steps * entry["stride"] :], op, **rule)
    np.testing.assert_array_equal(y[steps:], shifted)


def _torch_arguments(drawn: dict[str, Any], mean: bool) -> tuple[tuple[int, ...], Arguments]:
    """What PyTorch accepts: padding alike on both sides and at most half the window, no dilation of a mean."""
    entries = drawn["axes"]
    window = tuple(entry["window"] for entry in entries)
    arguments: Arguments = {
        "kernel_size": window,
        "stride": tuple(entry["stride"] for entry in entries),
        "padding": tuple(min(entry["padding"][0], taps // 2) for entry, taps in zip(entries, window, strict=True)),
        "ceil_mode": drawn["ceil_mode"],
    }
    if mean:
        arguments["count_include_pad"] = drawn["flag"]
    else:
        arguments["dilation"] = tuple(entry["dilation"] for entry in entries)
    # PyTorch aborts on windows without elements, so the input is never shorter than a window spans
    sizes = [max(entry["size"], (entry["window"] - 1) * entry["dilation"] + 1) for entry in entries]
    return (2, 3, *sizes), arguments


TORCH_CASES = st.fixed_dictionaries(
    {
        "axes": st.lists(axis(), min_size=1, max_size=3),
        "ceil_mode": st.booleans(),
        "flag": st.booleans(),
        "format": st.sampled_from([torch.contiguous_format, torch.channels_last]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),  # PyTorch has no 3-D mean of halves
    }
)


def _leaf(drawn: dict[str, Any], shape: tuple[int, ...], *, special: bool) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(0).integers(-8, 9, shape).astype("float64"))
    if special:
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.03] = torch.nan
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.03] = -torch.inf
    x = x.to(drawn["dtype"])
    if drawn["format"] is torch.channels_last:  # for any rank: channels last in memory
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.requires_grad_()


def _agree(ours: Any, theirs: Any, x: torch.Tensor, *arguments: Any, **named: Any) -> None:
    """Values, indices where asked for, and gradients, bit for bit or to the dtype's precision."""
    results = []
    # theirs in plain order: in channels-last volumes PyTorch 2.13 loses the index of a −inf that wins
    for function, order in ((ours, torch.preserve_format), (theirs, torch.contiguous_format)):
        leaf = x.detach().clone(memory_format=order).requires_grad_()
        y = function(leaf, *arguments, **named)
        y, index = y if isinstance(y, tuple) else (y, torch.zeros(0))
        g = torch.arange(1.0, y.numel() + 1).reshape(y.shape).to(y.dtype) / 8
        results.append((y.detach(), index, torch.autograd.grad(y, leaf, g)[0]))
    (y, index, grad), (y2, index2, grad2) = results
    torch.testing.assert_close(y, y2, equal_nan=True)
    assert torch.equal(index, index2)
    torch.testing.assert_close(grad, grad2, equal_nan=True)


@settings(max_examples=80)
@given(TORCH_CASES)
def test_max_pools_are_pytorchs_in_values_indices_and_gradients(drawn: dict[str, Any]) -> None:
    shape, arguments = _torch_arguments(drawn, mean=False)
    name = f"max_pool{len(drawn['axes'])}d"
    x = _leaf(drawn, shape, special=True)
    theirs = getattr(torch.nn.functional, name)
    _agree(getattr(functional, name), theirs, x, **arguments, return_indices=drawn["flag"])


@settings(max_examples=80)
@given(TORCH_CASES)
def test_avg_pools_are_pytorchs_in_values_and_gradients(drawn: dict[str, Any]) -> None:
    shape, arguments = _torch_arguments(drawn, mean=True)
    name = f"avg_pool{len(drawn['axes'])}d"
    x = _leaf(drawn, shape, special=False)
    _agree(getattr(functional, name), getattr(torch.nn.functional, name), x, **arguments)


@settings(max_examples=100)
@given(TORCH_CASES, st.lists(st.integers(1, 9), min_size=3, max_size=3), st.sampled_from(["max", "avg"]))
def test_adaptive_pools_are_pytorchs(drawn: dict[str, Any], outputs: list[int], kind: str) -> None:
    shape, _ = _torch_arguments(drawn, mean=True)
    rank = len(drawn["axes"])
    name = f"adaptive_{kind}_pool{rank}d"
    more = {"return_indices": drawn["flag"]} if kind == "max" else {}
    x = _leaf(drawn, shape, special=False)
    _agree(getattr(functional, name), getattr(torch.nn.functional, name), x, tuple(outputs[:rank]), **more)


@settings(max_examples=100)
@given(
    pooling(ranks=2).filter(lambda drawn: prod(drawn[0]) > 0),
    st.sampled_from([Max(), Min(), Sum(), Mean(), Mean(count_include_pad=True)]),
    st.booleans(),
)
def test_gradients_are_the_references(drawn: tuple[tuple[int, ...], Arguments], op: Operation, masked: bool) -> None:
    shape, arguments = drawn
    x = values(shape, "float64")
    where = np.random.default_rng(1).random(shape) < 0.7 if masked else None
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    y = poolwise.pool(leaf, op, where=where, **arguments)
    g = np.random.default_rng(2).integers(1, 9, tuple(y.shape)).astype(float)
    y.backward(torch.from_numpy(g))
    call = poolwise.explain(x, op, where=where, kernel="reference", **arguments).call
    operands = (x,) if where is None else (x, where)
    expected = Reference().backward(g, operands, call)[0]
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("law", [poolwise.max_pool, poolwise.min_pool, poolwise.sum_pool, poolwise.avg_pool])
def test_the_comparison_with_the_reference_can_fail(law: Any) -> None:
    x = values((5, 7), "float64", seed=3)
    moved = np.roll(x, 1, axis=0)
    with pytest.raises(AssertionError):
        same(law(moved, (2, 2)), law(x, (2, 2), kernel="reference"), scale=32)
