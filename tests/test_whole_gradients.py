"""The compiled gradients of whole windows against the reference, by every instruction set."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import poolwise
from poolwise import LIP, Blur, GeM, Geometry, LogSumExp, Lp, Median, Quantile, Soft, StochasticMean, TopKMean
from test_whole_windows import FLOATS, SETS, WINDOWS, _native, plan

OPS = {
    Lp(): ("float32", "float16"),
    Median(): FLOATS,
    Quantile(0.3): ("float32", "float64"),
    TopKMean(2): ("float32", "float16"),
    Soft(): ("float32", "float16"),
    Soft(20.0): ("float32",),
    LogSumExp(): ("float32", "float16"),
    StochasticMean(): ("float32", "float16"),
    LIP(): ("float32", "float16"),
    Blur(): FLOATS,
    GeM(): ("float32", "float16"),
    GeM(2.5, eps=0.5): ("float32", "float16"),
    Lp(3): ("float32", "float16"),
    Lp(1.5): ("float32", "float16"),
}
# Of 40,000 windows, which the reference takes one by one.
FAR = {Soft(): ("float32",), LIP(): ("float32",), Blur(): ("float32",)}
MORE = {
    "channels 3 at stride 4": ((5, 14), 3, (2, 3), {"stride": 4, "padding": 1}),
    "windows apart": ((9, 40), 1, (2, 2), {"stride": (3, 7)}),
    "dilated and strided": ((9, 41), 1, (3, 3), {"stride": 2, "dilation": 2, "padding": 1}),
    "dilated beyond the stride": ((9, 41), 2, (2, 3), {"stride": 3, "dilation": 4, "padding": 3}),
    "rows of many bands": ((150, 23), 1, (3, 3), {"stride": 1, "padding": 1}),
    "dilated far": ((1, 40), 1, (1, 2), {"stride": 1, "dilation": (1, 2_000), "padding": (0, 2_000)}),
    "dilated farther": ((1, 40), 1, (1, 2), {"stride": 1, "dilation": (1, 20_000), "padding": (0, 20_000)}),
    "planes that overlap": ((5, 6, 17), 2, (3, 2, 3), {"stride": (2, 1, 2), "padding": 1}),
}
SERVED = {name: case for name, case in (WINDOWS | MORE).items() if name != "a line in chunks"}
FOLDED = {name: case for name, case in SERVED.items() if "padding_mode" in case[3]}
GEOMETRIES = {name: case for name, case in SERVED.items() if name not in FOLDED}


def made(op, dtype, geometry):
    return plan(op, dtype, geometry, "norm" if op == Lp() else op.name)


@pytest.fixture(autouse=True)
def _best_set():
    yield
    _native.use_instruction_set(SETS[-1])


def run(made, x, g, threads, logits=None):
    """The gradients of the input and of the logits, in one row."""
    memories = [np.full(x.size + 8, 77).astype(dtype) for dtype in (x.dtype, "f4")]
    gx, to_logits = (memory[4:-4].reshape(x.shape) for memory in memories)
    kept = x if made.keeps_input else None
    made.backward(g, gx, kept, None, logits, None if logits is None else to_logits, threads=threads)
    for memory in memories:
        assert (memory[[0, 1, 2, 3, -4, -3, -2, -1]] == 77).all()
    return gx.ravel() if logits is None else np.concatenate([gx.ravel(), to_logits.ravel()])


def wanted_of(op, x, g, window, logits, **words):
    """The same by the reference, whose gradients have the dtypes of what they are for."""
    with np.errstate(all="ignore"):
        if logits is None:
            return poolwise.pool_backward(g, x, op, window, kernel="reference", **words).ravel()
        gx, own = poolwise.pool_backward(g, x, op, window, operands={"logits": logits}, kernel="reference", **words)
    return np.concatenate([gx.ravel(), own["logits"].ravel()])


def logits_of(op, shape, rng, rare=(np.inf, -np.inf, -1000)):
    if not op.operands:
        return None
    return np.where(rng.random(shape) < 0.05, rng.choice(rare, shape), rng.normal(0, 3, shape)).astype("f4")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_set_gives_what_the_reference_gives_and_the_same_bits(name):
    sizes, inner, window, words = GEOMETRIES[name]
    batch = 1 if name == "rows of many bands" else 2  # the reference takes its time
    shape, axes = (batch, *sizes, inner), tuple(range(1, 1 + len(sizes)))
    geometry = Geometry.of(shape, axes, window=window, **words)
    rng = np.random.default_rng(6)
    for op, dtypes in (FAR if name == "dilated farther" else OPS).items():
        for dtype in dtypes:
            x = rng.normal(0, 2, shape).astype(dtype)
            x[rng.random(shape) < 0.3] = 0
            g = rng.normal(0, 1, geometry.output_shape).astype(dtype)
            logits = logits_of(op, shape, rng)
            wanted = wanted_of(op, x, g, window, logits, axes=axes, **words)
            first = None
            for instructions, threads in itertools.product(SETS, (1, 2, 7)):
                _native.use_instruction_set(instructions)
                gx = run(made(op, dtype, geometry), x, g, threads, logits)
                tolerance = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}[dtype]
                np.testing.assert_allclose(
                    gx.astype("f8"), wanted.astype("f8"), rtol=tolerance, atol=10 * tolerance, err_msg=f"{op} {dtype}"
                )
                first = gx.tobytes() if first is None else first
                assert gx.tobytes() == first, (op, dtype, instructions, threads)


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_blur_of_folded_padding_gives_back_what_the_padding_received(name, dtype):
    sizes, inner, window, words = FOLDED[name]
    shape, axes = (2, *sizes, inner), tuple(range(1, 1 + len(sizes)))
    rng = np.random.default_rng(8)
    x = rng.normal(0, 2, shape).astype(dtype)
    g = rng.normal(0, 1, Geometry.of(shape, axes, window=window, **words).output_shape).astype(dtype)
    own, wanted = (
        poolwise.pool_backward(g, x, Blur(), window, axes=axes, kernel=kernel, **words)
        for kernel in ("native", "reference")
    )
    assert own.dtype == x.dtype and own.flags.c_contiguous
    tolerance = {"float16": 1e-3, "float32": 4e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(own.astype("f8"), wanted.astype("f8"), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("op", OPS, ids=repr)
def test_numbers_that_have_no_neighbours(op):
    """Infinities, NaN, sizes whose squares or exponentials overflow, and nothing but padding."""
    dtype = OPS[op][0]
    most, much = (
        (30, 10) if op.operands else (3e38, 1e4)
    )  # what a logit is sent errs by so much as the elements are large
    rare = np.array([np.inf, -np.inf, np.nan, most, -most, 1e-45, 0, much, -much], dtype)
    rng = np.random.default_rng(7)
    for padding in (0, 2):
        x = rng.choice(rare, (40, 3, 9)).astype(dtype)
        x[:20] = rng.choice(rare[3:], (20, 3, 9))
        geometry = Geometry.of(x.shape, (1, 2), window=(2, 2), stride=1, padding=padding)
        g = rng.normal(0, 1, geometry.output_shape).astype(dtype)
        logits = logits_of(op, x.shape, rng, rare=(np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 1e4))
        wanted = wanted_of(op, x, g, (2, 2), logits, axes=(1, 2), stride=1, padding=padding)
        got = run(made(op, dtype, geometry), x, g, 2, logits)
        with np.errstate(invalid="ignore"):
            near = np.abs(got - wanted) <= 1e-5 * (1 + np.abs(wanted))
        close = near | (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        assert close.all(), (got[~close], wanted[~close])


def test_an_empty_batch_has_a_gradient():
    geometry = Geometry.of((0, 4, 4), (1, 2), window=(2, 2))
    x, g = np.empty((0, 4, 4), "f4"), np.empty((0, 2, 2), "f4")
    made(Soft(), "float32", geometry).backward(g, np.empty_like(x), x)


def test_the_module_asks_for_the_input_and_takes_no_other():
    geometry = Geometry.of((1, 4, 4), (1, 2), window=(2, 2))
    x, g = np.ones((1, 4, 4), "f4"), np.ones((1, 2, 2), "f4")
    soft = made(Soft(), "float32", geometry)
    assert soft.keeps_input and soft.has_gradient and soft.kept_dtype == ""
    assert made(Blur(), "float32", geometry).has_gradient and not made(Blur(), "float32", geometry).keeps_input
    for kept, says in (
        (None, "kept must be the input"),
        (g, "must have the shape"),
        (x.astype("f8"), "must be float32"),
    ):
        with pytest.raises(ValueError, match=says):
            soft.backward(g, np.empty_like(x), kept)
    with pytest.raises(ValueError, match="mask must be none"):
        soft.backward(g, np.empty_like(x), x, np.ones(x.shape, bool))
    large = made(Lp(3), "float32", Geometry.of((1, 8, 8), (1, 2), window=(8, 8)))
    assert not large.has_gradient
    with pytest.raises(ValueError, match="no gradient of this operation"):
        large.backward(np.ones((1, 1, 1), "f4"), np.empty((1, 8, 8), "f4"))
