"""Spatially balanced pooling: every offset, what is drawn, evaluation, gradients, layers, refusals."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import poolwise
import poolwise.torch
from cases import same
from poolwise import InvalidType, InvalidValue, Lp, Max, Mean, Median, Operation, Soft, Sum, balanced_pool
from poolwise.compose.balanced import _cut, _geometry
from poolwise.doors import enter
from poolwise.geometry import Geometry

RANDOM = np.random.default_rng(5)
# sizes, and windows that leave something on an axis at least; of "ceil" and "ceil 3-D" some reach beyond the padding
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1-D": ((11,), {"window": (3,), "stride": 5}),
    "2/2": ((7, 8), {"window": (2, 2)}),
    "3/4 p1": ((13, 12), {"window": (3, 3), "stride": 4, "padding": 1}),
    "uneven padding": ((11, 12), {"window": (3, 2), "stride": (4, 5), "padding": ((2, 0), (1, 3))}),
    "dilated": ((12, 15), {"window": (3, 2), "stride": (4, 5), "dilation": (2, 3), "padding": (1, 2)}),
    "ceil": ((9, 7), {"window": (2, 3), "stride": (4, 3), "ceil_mode": True}),
    "ceil p1": ((12, 6), {"window": (4, 3), "stride": (5, 4), "padding": ((1, 0), (1, 1)), "ceil_mode": True}),
    "3-D": ((6, 7, 5), {"window": (2, 3, 2), "stride": (3, 3, 2)}),
    "ceil 3-D": ((6, 7, 5), {"window": (3, 3, 2), "stride": (4, 3, 2), "dilation": (1, 1, 2), "ceil_mode": True}),
}
OPERATIONS: tuple[Operation, ...] = (Max(), Mean(), Mean(count_include_pad=True), Sum(), Median(), Lp(3), Soft())
each_case = pytest.mark.parametrize("case", CASES)


def slacks(sizes: tuple[int, ...], rules: dict[str, Any]) -> list[int]:
    """What the windows leave on each axis, counted."""
    left = []
    for table in Geometry.of(sizes, **rules).tables:
        reach = max(i * table.step + t * table.dilation for i in range(table.output) for t in range(table.taps)) + 1
        left.append(table.low + table.size + table.high - reach)
    return left


def every_offset(sizes: tuple[int, ...], rules: dict[str, Any]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(min(u, 0), max(u, 0) + 1) for u in slacks(sizes, rules))))


def moved(x: Any, op: Operation, rules: dict[str, Any], offsets: tuple[int, ...]) -> Any:
    """`pool` with padding (low − r, high − u + r) on the last axes, a negative one being a crop."""
    rules = {**rules}
    rank, left = len(offsets), slacks(x.shape[-len(offsets) :], rules)
    declared = [(table.low, table.high) for table in Geometry.of(x.shape, **rules).tables]
    pads = [(low - r, high - u + r) for (low, high), u, r in zip(declared, left, offsets, strict=True)]
    for axis, (low, high) in enumerate(pads, x.ndim - rank):
        x = np.moveaxis(np.moveaxis(x, axis, 0)[max(-low, 0) : x.shape[axis] - max(-high, 0)], 0, axis)
    rules |= {"padding": tuple((max(low, 0), max(high, 0)) for low, high in pads), "ceil_mode": False}
    return poolwise.pool(x, op, **rules, kernel="reference")


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
@each_case
def test_every_offset_is_pool_with_its_padding_moved(case: str, op: Operation) -> None:
    sizes, rules = CASES[case]
    x = RANDOM.standard_normal((2, *sizes))
    offsets = every_offset(sizes, rules)
    assert len(offsets) > 1
    for each in offsets:
        y = balanced_pool(x, op, offsets=each, **rules)
        assert y.shape == poolwise.pool(x, op, **rules).shape
        if min(slacks(sizes, rules)) >= 0 or op != Mean(count_include_pad=True):
            np.testing.assert_allclose(y, moved(x, op, rules, each), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(y, balanced_pool(x, op, offsets=each, **rules, kernel="reference"), rtol=1e-12)


@each_case
def test_padding_counts_and_what_windows_reach_beyond_it_never_does(case: str) -> None:
    sizes, rules = CASES[case]
    tables = Geometry.of(sizes, **rules).tables
    for offsets in every_offset(sizes, rules):
        y = balanced_pool(np.ones(sizes), Mean(count_include_pad=True), offsets=offsets, **rules)
        shares = np.ones(())
        for table, r in zip(tables, offsets, strict=True):
            cells = (
                r - table.low + np.arange(table.output)[:, None] * table.step + np.arange(table.taps) * table.dilation
            )
            held = ((cells >= 0) & (cells < table.size)).sum(1)
            counted = ((cells >= -table.low) & (cells < table.size + table.high)).sum(1)
            shares = shares[..., None] * held / counted
        np.testing.assert_allclose(y, shares, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64", "bool"])
@pytest.mark.parametrize("op", [Max(), Mean(), Sum()], ids=repr)
def test_without_slack_and_from_the_start_it_is_pool_bit_for_bit(op: Operation, dtype: str) -> None:
    if (op, dtype) == (Mean(), "bool"):
        return
    x = (RANDOM.standard_normal((2, 3, 8, 9)) * 9).astype(dtype)
    for rules in ({"window": (2, 3)}, {"window": (2, 3), "stride": 1, "padding": 1}):
        for how in ({}, {"seed": 3}, {"offsets": 0}, {"offsets": "middle"}, {"offsets": "end"}):
            same(balanced_pool(x, op, **rules, **how), poolwise.pool(x, op, **rules))
            np.testing.assert_array_equal(balanced_pool(x, op, **rules, **how), poolwise.pool(x, op, **rules))
    odd = {"window": (3, 4), "ceil_mode": True}
    np.testing.assert_array_equal(balanced_pool(x, op, offsets="start", **odd), poolwise.pool(x, op, **odd))


@each_case
def test_named_offsets(case: str) -> None:
    sizes, rules = CASES[case]
    x, left = RANDOM.standard_normal(sizes), slacks(sizes, rules)
    for name, places in (("start", [0] * len(left)), ("middle", [int(u / 2) for u in left]), ("end", left)):
        np.testing.assert_array_equal(
            balanced_pool(x, "max", offsets=name, **rules), balanced_pool(x, "max", offsets=tuple(places), **rules)
        )


def test_masks_axes_and_padding_modes() -> None:
    x = RANDOM.standard_normal((7, 2, 11))
    where = RANDOM.random((7, 1, 11)) < 0.7
    for down, right in itertools.product(range(2), range(2)):
        y = balanced_pool(x, Mean(), (3, 2), stride=(3, 4), axes=(0, 2), where=where, offsets=(down, right))
        cut = (slice(down, 6 + down), slice(None), slice(right, 10 + right))
        expected = poolwise.pool(x[cut], Mean(), (3, 2), stride=(3, 4), axes=(0, 2), where=where[cut])
        np.testing.assert_allclose(y, expected, rtol=1e-12)
    line = RANDOM.standard_normal(9)
    for mode, name in (("circular", "wrap"), ("reflect", "reflect"), ("replicate", "edge")):
        whole = np.pad(line, 2, mode=name)
        for r in range(3):
            y = balanced_pool(line, Max(), (3,), stride=4, padding=2, padding_mode=mode, offsets=r)
            np.testing.assert_array_equal(y, poolwise.max_pool(whole[r:], (3,), stride=4)[: len(y)])


def test_every_offset_is_drawn_as_often() -> None:
    rng, times = np.random.default_rng(1), 3000
    x = np.arange(12.0)[:, None] * 100 + np.arange(12.0)  # the first maximum tells both offsets
    drawn = Counter(float(balanced_pool(x, Max(), (3, 2), stride=4, seed=rng)[0, 0]) for _ in range(times))
    places = every_offset((12, 12), {"window": (3, 2), "stride": 4})
    assert set(drawn) == {float((2 + r) * 100 + 1 + c) for r, c in places}
    expected = times / len(drawn)
    assert len(drawn) == 6
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 20.5  # χ², 5 degrees, p = 0.001


def test_draws_are_the_part_of_the_slack() -> None:
    x = np.arange(11.0)
    for v, r in ((0.0, 0), (0.33, 0), (0.34, 1), (0.67, 2), (1 - 2**-53, 2)):  # a slack of 2
        assert balanced_pool(x, Max(), (1,), stride=4, draws=[v])[0] == r
        t = balanced_pool(torch.from_numpy(x), Max(), (1,), stride=4, draws=torch.tensor([v], dtype=torch.float64))
        assert t[0] == r
    ceil = {"window": (2,), "stride": 4, "ceil_mode": True}
    line = np.arange(9.0)  # a slack of −1
    assert balanced_pool(line, "sum", **ceil, draws=[0.4]).tolist() == [1, 9, 8]
    assert balanced_pool(line, "sum", **ceil, draws=[0.6]).tolist() == [0, 7, 15]


def test_a_seed_repeats_exactly_and_another_one_does_not() -> None:
    x = RANDOM.standard_normal((30, 31))
    for array in (x, torch.from_numpy(x)):
        first, again, other = (balanced_pool(array, "max", (2, 2), stride=17, seed=seed) for seed in (1, 1, 4))
        assert (first == again).all()
        assert not (first == other).all()
    one, two = (np.random.default_rng(2) for _ in range(2))
    for _ in range(4):
        np.testing.assert_array_equal(*(balanced_pool(x, "max", (2, 2), stride=17, seed=rng) for rng in (one, two)))


# PyTorch


@pytest.mark.parametrize("op", [*OPERATIONS, Mean(rounding="truncate", count_include_pad=True)], ids=repr)
@each_case
def test_offsets_that_only_a_graph_knows_give_the_same(case: str, op: Operation) -> None:
    """The way of compiled graphs, of other devices and of TensorFlow and JAX: cut out, then pooled."""
    sizes, rules = CASES[case]
    axes = tuple(range(1, 1 + len(sizes)))
    for x in (torch.from_numpy(RANDOM.standard_normal((2, *sizes))), torch.randint(-9, 9, (2, *sizes))):
        if not x.is_floating_point() and type(op) in (Lp, Soft):
            continue
        door, _ = enter(x)
        whole = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "padding_mode": "absent"} | rules
        geometry = _geometry(door, x, {**whole, "axes": axes}, None)
        where = torch.rand(x.shape) < 0.8
        for offsets in every_offset(sizes, rules):
            for mask in (None, where):
                expected = balanced_pool(x, op, offsets=offsets, axes=axes, where=mask, **rules)
                for starts in (list(offsets), [torch.tensor(r) for r in offsets]):
                    y = _cut(door, x, op, {**whole, "axes": axes}, geometry, starts, mask, None)
                    torch.testing.assert_close(y, expected, equal_nan=True)


def test_layers_draw_in_training_and_rest_in_evaluation() -> None:
    x = torch.arange(121.0).reshape(1, 1, 11, 11)
    layer = poolwise.torch.BalancedPool2d("max", 3)
    torch.manual_seed(0)
    assert len({float(layer(x)[0, 0, 0, 0]) for _ in range(200)}) == 9
    layer.eval()
    assert {float(layer(x)[0, 0, 0, 0]) for _ in range(20)} == {3 * 11 + 3}  # a slack of 2: 1
    for offsets, first in (("start", 24), ("end", 48), (2, 48), ((0, 1), 25)):
        at = poolwise.torch.BalancedPool2d("max", 3, offsets=offsets)
        assert at.eval()(x)[0, 0, 0, 0] == first
        torch.manual_seed(0)
        assert len({float(at.train()(x)[0, 0, 0, 0]) for _ in range(200)}) == 9
    plain = torch.nn.functional.max_pool2d(x[..., :9, :9], 3)
    assert torch.equal(layer.train()(x[..., :9, :9]), plain)


def test_a_layers_seed_repeats_and_copies() -> None:
    x = torch.randn(1, 1, 40, 40)
    layer, twin = (poolwise.torch.BalancedPool2d(Mean(), 2, 15, seed=3) for _ in range(2))
    ours = [layer(x) for _ in range(6)]
    assert all(torch.equal(y, twin(x)) for y in ours)
    assert any(not torch.equal(ours[0], y) for y in ours)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert again(x).shape == ours[0].shape
    torch.manual_seed(1)
    first = poolwise.torch.functional.balanced_pool2d(x, "max", 2, 15)
    torch.manual_seed(1)
    assert torch.equal(first, poolwise.torch.functional.balanced_pool2d(x, "max", 2, 15))


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
@pytest.mark.parametrize("case", ["1-D", "3/4 p1", "ceil p1", "3-D"])
def test_gradients_are_finite_differences(case: str, op: Operation) -> None:
    sizes, rules = CASES[case]
    numbers = torch.randperm(2 * int(np.prod(sizes)), generator=torch.Generator().manual_seed(0))
    x = ((numbers.reshape(2, *sizes) + 1) / 16).double().requires_grad_()
    draws = torch.full((len(sizes),), 0.9, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: balanced_pool(x, op, draws=draws, **rules), x)
    door, axes = enter(x)[0], tuple(range(1, 1 + len(sizes)))
    whole = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "padding_mode": "absent"} | rules
    geometry = _geometry(door, x, {**whole, "axes": axes}, None)
    starts = [torch.tensor(u) for u in slacks(sizes, rules)]
    assert torch.autograd.gradcheck(
        lambda x: _cut(door, x, op, {**whole, "axes": axes}, geometry, starts, None, None), x
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "rules"),
    [
        ("max", {"kernel_size": 3}),
        (Mean(count_include_pad=True), {"kernel_size": (2, 3), "stride": (4, 3), "padding": 1, "ceil_mode": True}),
        (Median(), {"kernel_size": 2, "stride": 4, "ceil_mode": True}),
        ("mean", {"kernel_size": 3, "stride": 4, "padding": 1, "padding_mode": "circular"}),
    ],
    ids=str,
)
def test_a_compiled_layer_draws_anew_at_every_call(op: Any, rules: dict[str, Any]) -> None:
    torch._dynamo.reset()
    layer = poolwise.torch.BalancedPool2d(op, **rules)
    x = torch.randn(1, 2, 11, 13, dtype=torch.float64, requires_grad=True)
    window = {"window" if key == "kernel_size" else key: value for key, value in rules.items()}
    window["window"] = window["window"] if isinstance(window["window"], tuple) else (window["window"],) * 2
    expected = {each: balanced_pool(x, layer.op, offsets=each, **window) for each in every_offset((11, 13), window)}
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    seen = set()
    for _ in range(80):
        y = compiled(x)
        (each,) = [each for each, value in expected.items() if torch.allclose(value, y)]
        if each not in seen:
            got, slopes = (
                torch.autograd.grad(out.square().sum(), x, retain_graph=True)[0] for out in (y, expected[each])
            )
            torch.testing.assert_close(got, slopes)
        seen.add(each)
    assert seen == set(expected)
    with pytest.raises(Exception, match="seed must be None where PyTorch records"):
        torch.compile(poolwise.torch.BalancedPool2d(op, **rules, seed=1), backend="eager", fullgraph=True)(x)


def test_half_precision_meta_tensors_and_batches_of_none() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.rand(2, 3, 11, 11).to(dtype)
        y = balanced_pool(x, Mean(), (3, 3), stride=4, padding=1, seed=1)
        assert y.dtype == dtype
        torch.testing.assert_close(y, balanced_pool(x.float(), Mean(), (3, 3), stride=4, padding=1, seed=1).to(dtype))
    layer = poolwise.torch.BalancedPool2d("avg", 3, 4, 1)
    assert layer(torch.zeros(2, 3, 12, 11, device="meta")).shape == (2, 3, 3, 3)
    assert balanced_pool(np.zeros((0, 3, 7)), "max", (2,)).shape == (0, 3, 3)


X = RANDOM.standard_normal((2, 7, 9))


@pytest.mark.parametrize(
    ("fault", "text", "arguments"),
    [
        (InvalidValue, r"offsets must be between 0 and 1 on axis 1, got \(2, 0\)", {"offsets": (2, 0)}),
        (InvalidValue, "offsets must be between 0 and 1 on axis 1, got -1", {"offsets": -1}),
        (InvalidValue, "offsets must be between -1 and 0 on axis 1, got 1", {"offsets": 1, "ceil_mode": True}),
        (InvalidValue, "offsets must have 2 entries, one per pooled axis, got", {"offsets": (0, 0, 0)}),
        (InvalidValue, "offsets must be one of 'start', 'middle', 'end', got 'centre'", {"offsets": "centre"}),
        (InvalidType, "offsets must be an int or a tuple of 2 ints, got 0.5", {"offsets": 0.5}),
        (InvalidType, "offsets must be an int or a tuple of 2 ints, got True", {"offsets": True}),
        (InvalidValue, "offsets must be None where draws or a seed are given, got 0", {"offsets": 0, "seed": 1}),
        (InvalidValue, "seed must be None where draws are given, got 1", {"draws": [0.5, 0.5], "seed": 1}),
        (InvalidValue, r"draws must have the shape \(2,\), got \(3,\)", {"draws": np.zeros(3)}),
        (InvalidValue, "draws must be at least 0 and less than 1", {"draws": [0.5, 1.0]}),
        (InvalidValue, "draws must be at least 0 and less than 1", {"draws": [0.5, np.nan]}),
        (InvalidType, "draws must be floats, got int64", {"draws": [0, 0]}),
        (InvalidType, r"draws must be an array of floats, got \(\(1,\), 2\)", {"draws": ((1,), 2)}),
        (InvalidType, "draws must be an array of floats, got 'a'", {"draws": "a"}),
        (InvalidType, "draws must be an array of numpy", {"draws": torch.zeros(2)}),
        (InvalidType, "seed must be None, an int of at least 0 or", {"seed": 1.5}),
        (InvalidValue, "window must fit the padded input", {"window": (8, 2)}),
        (InvalidType, "window must be a tuple with one entry", {"window": 2}),
        (InvalidValue, "stride must be at least 1", {"stride": 0}),
        (InvalidValue, "where must broadcast against x", {"where": np.ones(3, bool)}),
        (InvalidValue, "op must be one of", {"op": "best"}),
        (InvalidType, "op must be an operation", {"op": 3}),
        (InvalidType, "logits must be given", {"op": poolwise.LIP()}),
    ],
)
def test_bad_input_gets_one_clear_error(fault: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    if "ceil_mode" in arguments:
        arguments = {**arguments, "window": (2, 2)}
    with pytest.raises(fault, match=f"^balanced_pool: {text}"):
        balanced_pool(**{"x": X, "op": Max(), "window": (2, 2), "stride": (2, 2), **arguments})


@pytest.mark.parametrize("seed", [-1, 1.5, True, "a"])
def test_a_layer_refuses_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(InvalidType, match=r"^BalancedPool2d: seed must be None, an int of at least 0 or"):
        poolwise.torch.BalancedPool2d("max", 2, seed=seed)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_a_fake_tensor_has_its_shape(ceil_mode: bool) -> None:
    """Nobody knows the numbers that are drawn for it."""
    with FakeTensorMode():
        x = torch.rand(1, 2, 9, 9)
        assert poolwise.torch.BalancedPool2d("max", 2, ceil_mode=ceil_mode)(x).shape == (
            1,
            2,
            4 + ceil_mode,
            4 + ceil_mode,
        )
        assert balanced_pool(x, "avg", (2, 2), draws=torch.rand(2)).shape == (1, 2, 4, 4)


def test_a_recorded_call_draws_anew() -> None:
    """The numbers drawn while it was recorded are not part of it."""
    x = torch.arange(19.0).reshape(1, 1, 19)
    graph = make_fx(lambda x: poolwise.torch.functional.balanced_pool1d(x, "max", 10))(x)
    assert len({graph(x).item() for _ in range(40)}) > 1


def test_a_geometry_says_where_its_windows_start() -> None:
    geometry = Geometry.of((3, 11), window=(3,), stride=4, padding=1, offsets="end")
    assert [(table.start, table.offset, table.slack) for table in geometry.tables] == [(1, 2, 2)]  # type: ignore[union-attr]
    assert "1+1 offset 2" in str(geometry)
    assert "offset" not in str(Geometry.of((3, 11), window=(3,), stride=4, padding=1))
    plain = poolwise.explain(np.ones((3, 11)), Max(), (3,), stride=4, padding=1)
    assert plain.call.geometry == Geometry.of((3, 11), window=(3,), stride=4, padding=1, offsets="start")
