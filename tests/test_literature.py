"""The operations of the literature: what their papers promise, their gradients, and the arrays that some take."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import poolwise
import poolwise.torch
from cases import CASES, OPERATIONS, WITH_ARRAYS, arrays_of, geometry_of, takes
from poolwise import GeM, InvalidType, InvalidValue, Lp, Max, Mean, Operation, Soft, Stochastic, StochasticMean
from poolwise.call import Call, shape_over
from poolwise.doors import NUMPY
from poolwise.op import INTEGERS, Selection
from poolwise.reference import Reference
from poolwise.torch import functional

EVERY = [op for op in [*OPERATIONS, *WITH_ARRAYS] if takes(op, "float64")]
SMOOTH = [op for op in EVERY if op not in (Mean(rounding="truncate"), poolwise.LogSumExp(300.0))]
GEOMETRIES = ["3/2 p1", "dilated", "3-D", "reflect", "channels last", "ceil p1"]


def distinct(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Numbers above 0 of which no two are near each other."""
    return np.random.default_rng(seed).permutation(math.prod(shape)).reshape(shape) / 16 + 0.5


# What the papers say


def test_lip_of_equal_logits_is_the_mean_and_of_the_input_softpool() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 8))
    rules: dict[str, Any] = {"stride": 2, "padding": 1}
    for logits in (0.0, np.full((8,), 7.0), np.zeros_like(x)):
        np.testing.assert_allclose(
            poolwise.lip_pool(x, (3, 3), logits=logits, **rules), poolwise.avg_pool(x, (3, 3), **rules), rtol=1e-12
        )
    np.testing.assert_allclose(
        poolwise.lip_pool(x, (3, 3), logits=x, **rules), poolwise.soft_pool(x, (3, 3), **rules), rtol=1e-12
    )
    logits = np.where(x > 0, x, -np.inf)  # takes its element away
    masked = poolwise.lip_pool(x, (3, 3), logits=x, where=x > 0, **rules)
    some = ~np.isnan(masked)
    np.testing.assert_allclose(poolwise.lip_pool(x, (3, 3), logits=logits, **rules)[some], masked[some])


def test_powers_go_from_the_mean_to_the_maximum() -> None:
    x = np.random.default_rng(0).uniform(0.1, 4, (3, 9, 8))
    largest = poolwise.max_pool(x, (3, 2))
    np.testing.assert_allclose(poolwise.lp_pool(-x, (3, 2), p=2000), largest, rtol=2e-3)
    np.testing.assert_array_equal(poolwise.lp_pool(-x, (3, 2), p=math.inf), largest)
    np.testing.assert_allclose(poolwise.gem_pool(x, (3, 2), p=1), poolwise.avg_pool(x, (3, 2)), rtol=1e-12)
    np.testing.assert_allclose(poolwise.gem_pool(x, (3, 2), p=2000), largest, rtol=2e-3)
    norm = poolwise.lp_pool(x, (3, 2), p=3) / 6 ** (1 / 3)
    np.testing.assert_allclose(poolwise.gem_pool(x, (3, 2)), norm, rtol=1e-12)
    np.testing.assert_allclose(poolwise.gem_pool(x, (3, 2), p=np.array(3.0)), norm, rtol=1e-12)


def test_softpool_is_the_mean_by_the_softmax_that_is_log_sum_exps_gradient() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for t in (0.25, 1.0, 5.0):
        share = torch.autograd.grad(functional.logsumexp_pool2d(x, 2, temperature=t).sum(), x)[0]
        soft = functional.sum_pool2d(share * x, 2)
        torch.testing.assert_close(soft, functional.soft_pool2d(x, 2, temperature=t))
        torch.testing.assert_close(functional.sum_pool2d(share, 2), torch.ones_like(soft))
    assert (functional.logsumexp_pool2d(x, 2) >= functional.max_pool2d(x, 2)).all()


def test_extremes_of_the_temperature_are_the_maximum_and_the_mean() -> None:
    x = np.random.default_rng(0).normal(size=(40, 40)).astype("float32") * 1e4
    for t in (1e4, 3e38):
        np.testing.assert_allclose(poolwise.soft_pool(x, (4, 4), temperature=t), poolwise.max_pool(x, (4, 4)))
        np.testing.assert_allclose(poolwise.logsumexp_pool(x, (4, 4), temperature=t), poolwise.max_pool(x, (4, 4)))
    np.testing.assert_allclose(
        poolwise.soft_pool(x, (4, 4), temperature=1e-12), poolwise.avg_pool(x, (4, 4)), rtol=1e-4, atol=0.1
    )


@settings(max_examples=150)
@given(st.sampled_from(["bool", *INTEGERS]), st.integers(0, 9999), st.integers(0, 2), st.booleans())
def test_mode_is_the_smallest_of_counters_most_common(dtype: str, seed: int, padding: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    limits = (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    labels = [limits[0], limits[1], limits[1] - 1, limits[0] + 1] if extreme else list(range(min(limits[1], 5) + 1))
    x = rng.choice(np.array(labels, dtype), (6, 7))
    y, index = poolwise.mode_pool(x, (3, 3), stride=2, padding=padding, return_indices=True)
    assert y.dtype == x.dtype
    for cell in np.ndindex(y.shape):
        rows, columns = (range(max(2 * at - padding, 0), 2 * at - padding + 3) for at in cell)
        window = [x[r, c].item() for r in rows for c in columns if r < 6 and c < 7]
        if not window:
            assert (y[cell], index[cell]) == (0, -1)
            continue
        counts = Counter(window)
        expected = min(label for label, times in counts.items() if times == max(counts.values()))
        assert y[cell].item() == expected
        assert x.reshape(-1)[index[cell]].item() == expected


@settings(max_examples=100)
@given(st.floats(0, 1), st.integers(1, 9), st.integers(0, 999), st.sampled_from(["float32", "float64"]))
def test_quantile_is_numpys(q: float, taps: int, seed: int, dtype: str) -> None:
    x = np.random.default_rng(seed).integers(-9, 9, (5, 4 * taps)).astype(dtype) / 4
    windows = x.reshape(5, 4, taps)
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(poolwise.quantile_pool(x, (taps,), q=q), np.quantile(windows, q, -1), rtol, rtol)
    np.testing.assert_array_equal(poolwise.median_pool(x, (taps,)), np.median(windows, -1))
    lower = np.sort(windows, -1)[..., (taps - 1) // 2]
    for whole in ("int8", "int64"):
        np.testing.assert_array_equal(
            poolwise.median_pool((4 * x).astype(whole), (taps,)), (4 * lower).astype(whole), strict=True
        )
    k = min(3, taps)
    np.testing.assert_allclose(
        poolwise.pool(x, poolwise.TopKMean(3), (taps,)), np.sort(windows, -1)[..., -k:].mean(-1), rtol
    )


@pytest.mark.parametrize("q", [-0.1, 1.5, math.nan])
def test_what_is_no_share_is_no_quantile(q: float) -> None:
    with pytest.raises(InvalidValue, match="q must be between 0 and 1"):
        poolwise.Quantile(q)


@pytest.mark.parametrize(
    "op", [poolwise.Median(), poolwise.Quantile(0.3), poolwise.TopKMean(2), Soft(), GeM(), StochasticMean()]
)
def test_nothing_and_nan_are_nan(op: Operation) -> None:
    x = np.array([1.0, np.nan, 3.0, 4.0])
    y = poolwise.pool(x, op, (2,), padding=2)
    assert np.isnan(y).tolist() == [True, True, False, True]
    assert poolwise.median_pool(np.array([5, 6], "uint8"), (2,), padding=2).tolist() == [0, 5, 0]


def test_mixed_and_gated_lie_between_mean_and_maximum() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    most, mean = functional.max_pool2d(x, 2), functional.avg_pool2d(x, 2)
    for a in (0.0, 0.25, 1.0):
        torch.testing.assert_close(functional.mixed_pool2d(x, 2, a=a), a * most + (1 - a) * mean)
    each = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(functional.mixed_pool2d(x, 2, a=each), each * most + (1 - each) * mean)
    gate = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    part = torch.sigmoid(torch.nn.functional.conv2d(x, gate.expand(3, 1, 2, 2), stride=2, groups=3))
    torch.testing.assert_close(functional.gated_pool2d(x, 2, gate=gate), part * most + (1 - part) * mean)


# Random draws


def test_what_is_drawn_is_there_as_often_as_it_weighs() -> None:
    window = np.array([0.0, 1.0, -2.0, 3.0, 4.0])
    x = np.tile(window, (20000, 1))
    y, index = poolwise.stochastic_pool(x, (5,), seed=1, return_indices=True)
    assert set(y.ravel()) == {1.0, 3.0, 4.0}
    np.testing.assert_array_equal(window[index], y)
    mean = float(poolwise.pool(window, StochasticMean(), (5,))[0])
    assert mean == pytest.approx((1 + 9 + 16) / 8)
    assert float(y.mean()) == pytest.approx(mean, abs=0.03)
    none = poolwise.stochastic_pool(-x, (5,), where=x > 0, seed=1)  # nothing above 0: all alike
    assert set(none.ravel()) == {-1.0, -3.0, -4.0}
    assert float(none.mean()) == pytest.approx(-8 / 3, abs=0.03)


def test_a_seed_repeats_and_a_generator_goes_on() -> None:
    x = np.random.default_rng(0).random((3, 20, 20))
    np.testing.assert_array_equal(
        poolwise.stochastic_pool(x, (2, 2), seed=4), poolwise.pool(x, Stochastic(), (2, 2), operands={"seed": 4})
    )
    rng = np.random.default_rng(4)
    first, second = (poolwise.stochastic_pool(x, (2, 2), seed=rng) for _ in range(2))
    np.testing.assert_array_equal(first, poolwise.stochastic_pool(x, (2, 2), seed=4))
    assert (first != second).any()
    t = torch.from_numpy(x)
    generator = torch.Generator().manual_seed(4)
    again = functional.stochastic_pool2d(t, 2, seed=generator)
    assert torch.equal(again, functional.stochastic_pool2d(t, 2, seed=4))
    assert not torch.equal(again, functional.stochastic_pool2d(t, 2, seed=generator))
    draws = np.random.default_rng(5).random((3, 10, 10))
    np.testing.assert_array_equal(
        functional.stochastic_pool2d(t, 2, draws=torch.from_numpy(draws)),
        poolwise.stochastic_pool(x, (2, 2), draws=draws),
    )


def test_a_module_draws_in_training_and_rests_in_evaluation() -> None:
    x = torch.rand(2, 3, 8, 8)
    module = poolwise.torch.StochasticPool2d(2)
    torch.manual_seed(0)
    first = module(x)
    torch.manual_seed(0)
    assert torch.equal(first, module(x))
    assert torch.equal(module.eval()(x), functional.stochasticmean_pool2d(x, 2))
    own = poolwise.torch.StochasticPool2d(2, seed=3)
    twin = copy.deepcopy(own)
    assert torch.equal(own(x), twin(x))


# What modules learn


def test_modules_hold_what_they_learn() -> None:
    made: dict[str, Any] = {
        "p": poolwise.torch.GeMPool2d(2, p=2.5),
        "a": poolwise.torch.MixedPool1d(3, a=torch.full((4, 1), 0.25)),
        "gate": poolwise.torch.GatedPool2d((2, 3)),
    }
    shapes = {name: [tuple(value.shape) for value in module.parameters()] for name, module in made.items()}
    assert shapes == {"p": [()], "a": [(4, 1)], "gate": [(2, 3)]}
    assert made["p"].p.item() == 2.5
    assert "p=2.5" in repr(made["p"])
    assert set(made["gate"].state_dict()) == {"gate"}
    x = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(made["p"](x), functional.gem_pool2d(x, 2, p=2.5))
    torch.testing.assert_close(made["gate"](x), functional.mixed_pool2d(x, (2, 3), a=0.5))
    for name, module in made.items():
        given = x[..., 0] if name == "a" else x
        module(given).square().sum().backward()
        assert getattr(module, name).grad.abs().sum() > 0
    with pytest.raises(InvalidValue, match=r"GeMPool2d: p must be at least 1, got 0"):
        poolwise.torch.GeMPool2d(2, p=0)
    with pytest.raises(InvalidType, match="LIPPool2d: logits must come with the input"):
        poolwise.torch.LIPPool2d(2, logits=x)
    lip = poolwise.torch.LIPPool2d(2)
    torch.testing.assert_close(lip(x, x), functional.soft_pool2d(x, 2))
    torch.testing.assert_close(lip(x, logits=x), functional.soft_pool2d(x, 2))
    with pytest.raises(InvalidType, match="LIPPool2d: logits must be given once"):
        lip(x, x, logits=x)
    with pytest.raises(InvalidType, match=r"unexpected argument logit=tensor.{1,80}$"):
        lip(x, x, logit=x)
    assert poolwise.torch.GeMPool2d(2, p=None).p == 3
    for start, fault in ((np.inf, InvalidValue), (torch.tensor(np.nan), InvalidValue), (object(), InvalidType)):
        with pytest.raises(fault, match="GeMPool2d: p must be "):
            poolwise.torch.GeMPool2d(2, p=start)


def test_a_learned_power_stays_positive() -> None:
    x = torch.rand(2, 3, 7, 7)
    wanted = poolwise.pool(x.double(), GeM(p=None), (7, 7), axes=(2, 3), operands={"p": torch.tensor(0.01)})
    for p in (0.01, 1e-6, 0.0, -3.0):
        y = poolwise.torch.functional.gem_pool2d(x, 7, p=torch.tensor(p))
        torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("make", "fault", "text"),
    [
        (lambda x: poolwise.lip_pool(x, (2, 2)), InvalidType, "lip_pool: logits must be given for LIP"),
        (lambda x: poolwise.lip_pool(x, (2, 2), logits=x[:3]), InvalidValue, r"logits must broadcast .* got \(3, 6\)"),
        (lambda x: poolwise.lip_pool(x, (2, 2), logits=x > 0), InvalidType, "logits must have one of the dtypes"),
        (lambda x: poolwise.pool(x, Max(), (2, 2), operands={"p": x}), InvalidType, "unexpected operand p"),
        (lambda x: poolwise.pool(x, Max(), (2, 2), operands=[x]), InvalidType, "operands must be a dictionary"),
        (lambda x: poolwise.stochastic_pool(x, (2, 2), seed=-1), InvalidType, "seed must be None, an int"),
        (
            lambda x: poolwise.stochastic_pool(x, (2, 2), seed=1, draws=x[:3, :3]),
            InvalidValue,
            "seed must be None where",
        ),
        (lambda x: poolwise.stochastic_pool(x, (2, 2), draws=x), InvalidValue, "draws must broadcast against"),
        (lambda x: poolwise.stochastic_pool(x, (2, 2), draws=x[:3, :3] + 2), InvalidValue, "draws must be at least 0"),
        (lambda x: poolwise.gem_pool(x, (2, 2), p=None), InvalidType, "p must be given"),
        (lambda x: poolwise.gem_pool(x, (2, 2), p=x), InvalidValue, "p must broadcast against"),
        (
            lambda x: poolwise.adaptive_pool(x, poolwise.Gated(), (4, 4), operands={"gate": 1.0}),
            InvalidValue,
            "fixed places",
        ),
        (lambda x: poolwise.pool(x, poolwise.TopKMean(2.0), (2, 2)), InvalidType, "k must be an int"),
        (lambda x: poolwise.soft_pool(x, (2, 2), temperature=0), InvalidValue, "temperature must be between"),
        (lambda x: poolwise.gem_pool(x, (2, 2), eps=0), InvalidValue, "eps must be between"),
        (lambda x: poolwise.mixed_pool(x, (2, 2), a=1.5), InvalidValue, "a must be between 0 and 1"),
    ],
)
def test_bad_arrays_and_parameters_are_refused(make: Any, fault: type[Exception], text: str) -> None:
    with pytest.raises(fault, match=text):
        make(np.random.default_rng(0).random((6, 6)))


# Gradients


@pytest.mark.parametrize("op", SMOOTH, ids=repr)
@pytest.mark.parametrize("case", GEOMETRIES)
def test_gradients_of_input_and_operands_are_slopes(case: str, op: Operation) -> None:
    geometry = geometry_of(case)
    arrays = {"input": distinct(geometry.shape), **arrays_of(op, geometry, "float64")}
    names = tuple(arrays)
    layout = tuple(range(len(geometry.shape)))
    call = Call(op, geometry, NUMPY.framework, ("float64",) * len(names), layout, "cpu", names, True)
    y, kept = Reference().forward(tuple(arrays.values()), call)
    g = np.random.default_rng(1).standard_normal(y.shape)
    grads = dict(zip(names, Reference().backward(g, kept, call), strict=True))
    for name, array in arrays.items():
        step = 1e-6 * np.random.default_rng(2).standard_normal(array.shape)
        if name == "draws":
            continue
        ends = [Reference().forward(tuple({**arrays, name: array + way * step}.values()), call)[0] for way in (1, -1)]
        slope = np.nansum((ends[0] - ends[1]) * g) / 2
        assert np.nansum(grads[name] * step) == pytest.approx(slope, rel=1e-4, abs=1e-9), name


@pytest.mark.parametrize("op", [op for op in SMOOTH if type(op) not in (Max, Mean)], ids=repr)
def test_pytorch_differentiates_twice(op: Operation) -> None:
    x = torch.from_numpy(distinct((2, 5, 4)) / 4).requires_grad_()
    geometry = poolwise.Geometry.of((2, 5, 4), window=(3, 2), stride=2)
    arrays = {name: torch.from_numpy(array) for name, array in arrays_of(op, geometry, "float64").items()}
    free = [name for name in arrays if name != "draws"]

    def pooled(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        operands = {**arrays, **dict(zip(free, given, strict=True))}
        return poolwise.pool(x, op, (3, 2), stride=2, operands=operands)

    inputs = (x, *(arrays[name].requires_grad_() for name in free))
    assert torch.autograd.gradcheck(pooled, inputs)
    assert torch.autograd.gradgradcheck(pooled, inputs)


@pytest.mark.parametrize("op", WITH_ARRAYS, ids=repr)
@pytest.mark.parametrize("case", ["3/2 p1", "dilated", "reflect", "channels last", "axes apart"])
def test_pytorchs_results_and_gradients_are_the_references(case: str, op: Operation) -> None:
    (shape, arguments), geometry = CASES[case], geometry_of(case)
    x, operands = distinct(shape), arrays_of(op, geometry, "float64")
    leaves = {name: torch.from_numpy(array).requires_grad_() for name, array in {"x": x, **operands}.items()}
    y = poolwise.pool(leaves["x"], op, **arguments, operands={name: leaves[name] for name in operands})
    exact = poolwise.pool(x, op, **arguments, operands=operands, kernel="reference")
    np.testing.assert_allclose(y.detach().numpy(), exact, rtol=1e-12)
    g = np.random.default_rng(1).standard_normal(exact.shape)
    y.backward(torch.from_numpy(g))
    gx, own = poolwise.pool_backward(g, x, op, **arguments, operands=operands, kernel="reference")
    fast, fast_own = poolwise.pool_backward(g, x, op, **arguments, operands=operands)
    for name, grad, twin in (("x", gx, fast), *((name, own[name], fast_own[name]) for name in operands)):
        found = leaves[name].grad
        assert found is not None or name == "draws"
        if found is not None:
            np.testing.assert_allclose(found.numpy(), grad, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(twin, grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "op", [poolwise.LogSumExp(), poolwise.TopKMean(3), poolwise.Median(), poolwise.Quantile(0.6), Soft()], ids=repr
)
@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_an_infinity_goes_to_no_absent_tap(op: Operation, infinite: float, masked: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((1, 9, 9), dtype=np.float32)
    x[0, :3], x[0, 4, 1:3], x[0, 6:, ::2] = infinite, infinite, infinite
    where = rng.random(x.shape) > 0.4 if masked else None
    rules: dict[str, Any] = {"axes": (1, 2), "stride": 2, "padding": 1}
    g = np.ones((1, 5, 5), np.float32)
    expected = poolwise.pool_backward(g, x, op, (3, 3), **rules, where=where, kernel="reference")
    t = torch.tensor(x, requires_grad=True)
    y = poolwise.pool(t, op, (3, 3), **rules, where=None if where is None else torch.tensor(where), kernel="gathered")
    (got,) = torch.autograd.grad(y, t, torch.tensor(g))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_operand_may_be_alike_along_any_axis() -> None:
    x = distinct((2, 3, 6, 6))
    for op in WITH_ARRAYS:
        geometry = poolwise.Geometry.of(x.shape, window=(2, 2))
        over = {each.name: shape_over(geometry, each.over) for each in op.arrays}
        for name, shape in over.items():
            for sizes in ((), shape[-1:], (shape[0], 1, 1, 1), (3, 1, 1), shape):
                small = np.random.default_rng(0).uniform(0.2, 0.9, sizes)
                whole = np.broadcast_to(small, shape).copy()
                y, spread = (poolwise.pool(x, op, (2, 2), operands={name: each}) for each in (small, whole))
                np.testing.assert_array_equal(y, spread)
                g = np.ones_like(y)
                grads = [poolwise.pool_backward(g, x, op, (2, 2), operands={name: each}) for each in (small, whole)]
                np.testing.assert_allclose(grads[0][0], grads[1][0])
                if not isinstance(op, Selection):
                    assert grads[0][1][name].shape == sizes
                    assert grads[0][1][name].sum() == pytest.approx(grads[1][1][name].sum())


def test_lps_gradient_at_zero_is_nothing() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for p in (1, 2, 3.5, math.inf):
        assert torch.equal(torch.autograd.grad(poolwise.pool(x, Lp(p), (2, 2)).sum(), x)[0].isnan(), x.isnan())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GeM", "Mixed", "Gated", "LIP", "Stochastic", "Soft", "Median", "Mode", "Quantile"])
def test_modules_compile_whole_and_export(name: str) -> None:
    module = getattr(poolwise.torch, f"{name}Pool2d")(3, 2, 1).double()
    x = torch.rand(2, 3, 7, 8, dtype=torch.float64)
    given = (x, torch.rand_like(x)) if name == "LIP" else (x,)
    torch._dynamo.reset()  # it compiles one `forward` for so many classes only
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    if name == "Stochastic":
        assert torch.isin(compiled(*given), x).all()
        module.eval()
    torch.testing.assert_close(compiled(*given), module(*given))
    torch.testing.assert_close(torch.export.export(module, given).module()(*given), module(*given))
