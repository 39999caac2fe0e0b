"""The compiled engine of whole windows against the reference, by every instruction set."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

import poolwise
from poolwise import LIP, Blur, GeM, Geometry, LogSumExp, Lp, Median, Mode, Quantile, Soft, StochasticMean, TopKMean
from poolwise.kernels.native import PARAMETERS, _table

_native = pytest.importorskip("poolwise._native")
SETS = _native.instruction_sets()
FLOATS = ("float32", "float16", "float64")
DTYPES = {
    Median(): (*FLOATS, "uint8", "int16", "int32", "uint64"),
    Mode(): ("uint8", "uint16", "uint32", "uint64", "int8", "int64", "bool", "float32"),
    Quantile(0.3): FLOATS,
    Quantile(1): ("float32",),
    TopKMean(2): FLOATS,
    TopKMean(5): ("float32",),
    LogSumExp(): ("float32", "float16"),
    LogSumExp(20.0): ("float32",),
    StochasticMean(): ("float32", "float16"),
    Soft(): ("float32", "float16"),
    Soft(30.0): ("float32",),
    LIP(): ("float32", "float16"),
    Blur(): FLOATS,
    GeM(): ("float32", "float16"),
    GeM(2.5): ("float32", "float16"),
    Lp(3): ("float32", "float16"),
    Lp(1.5): ("float32", "float16"),
}
WINDOWS = {  # sizes, inner, window and the rest
    "2/2": ((7, 37), 1, (2, 2), {}),
    "2/2 of rows beyond a pack": ((4, 139), 1, (2, 2), {}),
    "3/1 padded": ((5, 71), 1, (3, 3), {"stride": 1, "padding": 1}),
    "3/2 padded": ((6, 35), 1, (3, 3), {"stride": 2, "padding": 1}),
    "3/3 padded unevenly": ((6, 50), 1, (3, 3), {"stride": 3, "padding": ((0, 2), (1, 0))}),
    "2x3 at stride 5": ((9, 83), 1, (2, 3), {"stride": 5, "padding": ((0, 0), (1, 1))}),
    "dilated": ((9, 41), 1, (3, 2), {"stride": 1, "dilation": (2, 3), "padding": 2}),
    "empty windows": ((3, 11), 1, (2, 2), {"stride": 1, "padding": ((2, 0), (3, 2))}),
    "5/1 padded": ((7, 19), 1, (5, 5), {"stride": 1, "padding": 2}),
    "7x7": ((9, 9), 1, (7, 7), {"stride": 1}),
    "one axis": ((97,), 1, (4,), {"stride": 1, "padding": 3}),
    "three axes": ((4, 5, 19), 1, (2, 2, 2), {}),
    "three axes padded": ((3, 4, 17), 1, (2, 3, 2), {"stride": 1, "padding": 1}),
    "channels 3": ((5, 9), 3, (2, 2), {"stride": 1, "padding": 1}),
    "channels 3 at stride 2": ((6, 9), 3, (3, 3), {"stride": 2, "padding": 1}),
    "channels 17 at stride 2": ((4, 7), 17, (2, 2), {}),
    "channels 70": ((3, 5), 70, (3, 3), {"stride": 1, "padding": 1}),
    "reflected": ((7, 40), 1, (3, 3), {"stride": 2, "padding": ((1, 1), (1, 2)), "padding_mode": "reflect"}),
    "circular": ((5, 19), 1, (3, 5), {"stride": 1, "padding": 2, "padding_mode": "circular"}),
    "replicated and dilated": (
        (9, 23),
        3,
        (2, 3),
        {"stride": 3, "dilation": (3, 2), "padding": 3, "padding_mode": "replicate"},
    ),
    "reflected more than once": ((3, 5), 1, (2, 2), {"stride": 1, "padding": 9, "padding_mode": "reflect"}),
    "reflected, channels 70": ((4, 5), 70, (2, 3), {"stride": 2, "padding": 1, "padding_mode": "reflect"}),
    "three axes, circular": ((4, 5, 17), 1, (2, 2, 2), {"padding": 1, "padding_mode": "circular"}),
    "an axis of one, strided": ((1, 13), 1, (1, 2), {"stride": 2}),
    "planes and rows of one": ((1, 1, 21), 1, (1, 1, 3), {"stride": (3, 2, 2), "padding": (0, 0, 1)}),
    "a line in chunks": ((3, 20_011), 1, (3, 3), {"stride": 2, "padding": 1}),
}


def numbers(op, dtype, shape):
    """Few labels for a mode; for others, some NaN and infinities among the floats."""
    rng = np.random.default_rng(5)
    if isinstance(op, Mode):
        return rng.integers(0, 2 if dtype == "bool" else 4, shape).astype(dtype)
    if not dtype.startswith("float"):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    x = rng.normal(0, 3, shape)
    rare = [np.nan, -0.0, *([] if isinstance(op, Blur) else [np.inf, -np.inf])]
    return np.where(rng.random(shape) < 0.02, rng.choice(rare, shape), x).astype(dtype)


def logits_of(op, shape):
    """None, or what stands beside the input: some infinite, some NaN, and rows that exponentials do not reach."""
    if not op.operands:
        return None
    rng = np.random.default_rng(9)
    rows = rng.choice([0, 0, 0, -1000, 1000], (*shape[:2], *(1,) * (len(shape) - 2)))
    logits = rng.normal(rows, 3, shape)
    rare = rng.choice([np.nan, np.inf, -np.inf, -np.inf], shape)
    return np.where(rng.random(shape) < 0.02, rare, logits).astype("f4")


def pooled(x, op, window, **words):
    logits = logits_of(op, x.shape)
    return poolwise.pool(x, op, window, operands=None if logits is None else {"logits": logits}, **words)


def plan(op, dtype, geometry, body=None):
    weights = [op.weights(taps) for taps in geometry.window]
    return _native.Plan(
        body or op.name,
        dtype,
        geometry.shape,
        geometry.axes,
        [_table(table) for table in geometry.tables],
        tuple(range(len(geometry.shape))),
        parameter=float(getattr(op, PARAMETERS.get(op.name, ""), 1.0)),
        least=float(getattr(op, "eps", 0.0)),
        weights=[each.tolist() for each in weights if each is not None],
    )


@pytest.mark.parametrize("name", WINDOWS)
def test_every_set_gives_what_the_reference_gives_and_the_same_bits(name):
    sizes, inner, window, words = WINDOWS[name]
    shape, axes = (2, *sizes, inner), tuple(range(1, 1 + len(sizes)))
    geometry = Geometry.of(shape, axes, window=window, **words)
    kernel = "gathered" if np.prod(shape) > 9_999 else "reference"  # the reference takes minutes for so many
    for op, dtypes in DTYPES.items():
        for dtype in dtypes:
            x = numbers(op, dtype, shape)
            with np.errstate(all="ignore"):
                wanted = pooled(x, op, window, axes=axes, kernel=kernel, **words)
            made = plan(op, dtype, geometry)
            first = None
            for instructions, threads in itertools.product(SETS, (1, 2, 7)):
                _native.use_instruction_set(instructions)
                memory = np.full(wanted.size + 8, 77).astype(dtype)
                y = memory[4:-4].reshape(wanted.shape)
                made.forward(x, y, beside=logits_of(op, shape), threads=threads)
                assert (memory[[0, 1, 2, 3, -4, -3, -2, -1]] == np.array(77).astype(dtype)).all()
                tolerance = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}.get(dtype, 0)
                np.testing.assert_allclose(
                    y.astype("f8"), wanted.astype("f8"), rtol=tolerance, atol=8 * tolerance, err_msg=f"{op} {dtype}"
                ) if tolerance else np.testing.assert_array_equal(y, wanted, err_msg=f"{op} {dtype}")
                first = y.tobytes() if first is None else first
                assert y.tobytes() == first


@pytest.fixture(autouse=True)
def _best_set():
    yield
    _native.use_instruction_set(SETS[-1])


def test_nothing_overflows_or_vanishes_on_the_way():
    large, tiny = np.full((1, 4), 3e38, "f4"), np.full((1, 4), 1e-45, "f4")
    for sign in (1, -1):
        assert (poolwise.pool(sign * large, Soft(), (1, 4), kernel="native") == sign * large[0, 0]).all()
        for op in (Quantile(0.3), StochasticMean(), LogSumExp(1e3)):
            assert (poolwise.pool(sign * large, op, (1, 4), kernel="native") == sign * large[0, 0]).all()
    for op in (Median(), Quantile(0.3), TopKMean(), StochasticMean()):
        assert (poolwise.pool(tiny, op, (1, 4), kernel="native") == tiny[0, 0]).all()
    for logits in (0, -1e30, 3e38, np.inf, -np.inf):
        given = {"logits": np.full((1, 4), logits, "f4")}
        for x in (large, tiny):
            assert poolwise.pool(x, LIP(), (1, 4), operands=given, kernel="native") == x[0, 0]
    far = np.array([[3e38, -3e38]], "f4")
    np.testing.assert_allclose(poolwise.pool(far, Quantile(0.25), (1, 2), kernel="native"), -1.5e38, rtol=1e-6)
    for weight in (1e-25, 1e15, 1e-200, 1e200):
        for dtype in ("f4", "f8"):
            x = np.array([1e10, 3e10], dtype)
            y = poolwise.pool(x, Blur(taps=(weight, weight)), (2,), kernel="native")
            np.testing.assert_allclose(y, [2e10])
            np.testing.assert_allclose(poolwise.pool(x, Blur(taps=(weight, weight)), (2,), kernel="reference"), [2e10])


def test_zeros_stay_zeros_whatever_lacks():
    zeros = np.zeros((2, 5, 21), "f4")
    for op in (Soft(), Soft(1e-29), Blur()):
        y = poolwise.pool(zeros, op, (3, 3), axes=(1, 2), stride=1, padding=1, kernel="native")
        assert (y == 0).all()
    for op in (Quantile(0.3), TopKMean(3), StochasticMean()):
        assert (poolwise.pool(zeros, op, (3, 3), axes=(1, 2), stride=1, padding=1, kernel="native") == 0).all()
    ones = np.ones((1, 4), "f4")
    y = poolwise.pool(ones, Soft(1e-29), (1, 3), stride=1, padding=((0, 0), (1, 1)), kernel="native")
    assert (y == 1).all()


def test_signs_of_zeros_do_not_depend_on_the_threads():
    x, bits = np.full((1, 3001, 47), -0.0, "f4"), set()
    before = poolwise.get_num_threads()
    for threads in (1, 3, 5, 8):
        poolwise.set_num_threads(threads)
        bits.add(poolwise.pool(x, Blur(), (3, 3), axes=(1, 2), stride=1, padding=1, kernel="native").tobytes())
    poolwise.set_num_threads(before)
    assert len(bits) == 1


def test_weights_that_float32_cannot_add_are_left_to_others():
    with pytest.raises(poolwise.InvalidValue, match="must not differ by more than"):
        poolwise.pool(np.ones(4, "f4"), Blur(taps=(1e-50, 1.0)), (2,), kernel="native")
    assert poolwise.pool([1.0, 2, 3], Blur(taps=(1e-50, 1.0)), (2,), stride=1, padding=1)[-1] == 3


def test_an_empty_batch_is_served():
    empty = np.empty((0, 4, 4), "f4")
    for op, operands in ((Median(), None), (LIP(), {"logits": empty})):
        assert poolwise.pool(empty, op, (2, 2), operands=operands, kernel="native").shape == (0, 2, 2)


def test_logits_are_asked_for_and_taken_as_they_should_be():
    lip = plan(LIP(), "float16", Geometry.of((1, 9, 9), (1, 2), window=(3, 3)))
    assert lip.paired and lip.keeps_input
    x, y, logits = np.ones((1, 9, 9), "f2"), np.ones((1, 3, 3), "f2"), np.ones((1, 9, 9), "f4")
    for given, says in (
        (None, "beside must be given"),
        (x, "beside: must be float32"),
        (logits[:, :3, :3], "beside: must have the shape"),
        (np.ones((1, 9, 18), "f4")[..., ::2], "beside: must be aligned and dense"),
    ):
        with pytest.raises(ValueError, match=says):
            lip.forward(x, y, beside=given)
        with pytest.raises(ValueError, match=says.replace("beside must", "beside and to_beside must")):
            lip.backward(y, x, x.copy(), None, given, np.empty_like(logits))
        with pytest.raises(ValueError, match="beside"):
            lip.backward(y, x, x.copy(), None, logits, given)
    held = logits.copy()
    held.flags.writeable = False
    with pytest.raises(ValueError, match=r"to_beside: .* can be written to"):
        lip.backward(y, x, x.copy(), None, logits, held)
    at = [each.ctypes.data for each in (x, y, logits)]
    for beside, says in ((0, "beside must be given"), (at[2] + 2, "beside: the address must be a multiple of 4")):
        with pytest.raises(ValueError, match=says):
            lip.forward_at(at[0], at[1], beside=beside)
    with pytest.raises(ValueError, match="to_beside must be given"):
        lip.backward_at(at[1], at[0], at[0], beside=at[2])


def test_logits_of_float64_and_folded_gradients_are_left_to_others():
    x, logits = np.ones((9, 9), "f4"), np.ones((9, 9))
    with pytest.raises(poolwise.InvalidValue, match="exponentials are float32's, and logits are float64"):
        poolwise.pool(x, LIP(), (3, 3), operands={"logits": logits}, kernel="native")
    words = {"padding": 1, "padding_mode": "circular", "operands": {"logits": x}}
    assert (poolwise.pool(x, LIP(), (3, 3), kernel="native", **words) == 1).all()
    with pytest.raises(poolwise.InvalidValue, match="no gradient of lip on such windows"):
        poolwise.pool_backward(np.ones((3, 3), "f4"), x, LIP(), (3, 3), kernel="native", **words)


@pytest.mark.parametrize("op", DTYPES, ids=repr)
def test_the_doors_take_it_where_nothing_is_kept_and_any_strides(op):
    dtype = DTYPES[op][0]
    x = numbers(op, dtype, (2, 9, 8, 3))
    swapped = (x.transpose(0, 2, 1, 3), None)  # whose pooled axes memory holds in another order: others serve
    broadcast = np.broadcast_to(x[:, :1], x.shape)
    for view, kernel in (
        (x, "native"),
        (x[:, ::-1], "native"),
        (x[..., ::2], "native"),
        (broadcast, "native"),
        swapped,
    ):
        y = pooled(view, op, (3, 2), axes=(1, 2), stride=1, padding=1, kernel=kernel)
        wanted = pooled(view, op, (3, 2), axes=(1, 2), stride=1, padding=1, kernel="reference")
        np.testing.assert_allclose(y.astype("f8"), wanted.astype("f8"), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"window": (8, 8)}, "at most 49 taps"),
        ({"window": (3, 3), "where": np.ones((9, 9), bool)}, "no masks"),
    ],
)
@pytest.mark.parametrize("op", [Median(), Blur()], ids=repr)
def test_what_it_does_not_do_it_says(words, says, op):
    with pytest.raises(poolwise.InvalidValue, match=says):
        poolwise.pool(np.ones((9, 9), "f4"), op, kernel="native", **words)


def test_long_sums_of_the_largest_are_left_to_others():
    with pytest.raises(poolwise.InvalidValue, match="at most 9 of the largest"):
        poolwise.pool(np.ones((7, 7), "f4"), TopKMean(49), (7, 7), kernel="native")


@pytest.mark.parametrize("op", [*DTYPES], ids=repr)
def test_strides_far_beyond_the_array_cost_nothing(op):
    x = numbers(op, "uint8" if isinstance(op, Mode) else "float32", (4, 4))
    for stride in (64, 2**20, 2**31):
        y = pooled(x, op, (2, 2), stride=stride, kernel="native")
        wanted = pooled(x, op, (2, 2), stride=stride, kernel="reference")
        np.testing.assert_allclose(y.astype("f8"), wanted.astype("f8"), rtol=2e-6)


def test_softs_of_equal_elements_are_that_and_others_are_between_them():
    rng = np.random.default_rng(3)
    for value in (1.7, -20.3, 60.0, 200.0):
        x = np.full((1, 40, 41), value, "f4")
        assert (poolwise.pool(x, Soft(), (3, 3), axes=(1, 2), stride=2, padding=1, kernel="native") == x[0, 0, 0]).all()
        x += rng.random(x.shape, dtype="f4") * np.float32(1e-6 * abs(value))
        y, low, high = (
            poolwise.pool(x, op, (3, 3), axes=(1, 2), stride=1, padding=1, kernel="native")
            for op in (Soft(), poolwise.Min(), poolwise.Max())
        )
        assert ((low <= y) & (y <= high)).all()


@pytest.mark.parametrize("kind", [partial(GeM, eps=1e-37), Lp], ids=("mean", "norm"))
def test_roots_of_powers_are_rounded_once_whatever_the_size(kind):
    rng = np.random.default_rng(4)
    for power, scale in ((2.5, 1), (3, 1e-5), (6.8, 1e34), (1.001, 1e-36)):
        op = kind(power)
        x = (rng.random((1, 40, 41)) * scale).astype("f4")
        for window in ((2, 2), (13, 13), (40, 41)):
            wanted = poolwise.pool(x.astype("f8"), op, window, axes=(1, 2), stride=1, kernel="gathered")
            y = poolwise.pool(x, op, window, axes=(1, 2), stride=1, kernel="native")
            np.testing.assert_allclose(y, wanted, rtol=0.501 * np.finfo("f4").eps)
        x[:] = x.max()
        window = (3, 3) if isinstance(op, GeM) else (1, 1)
        assert (poolwise.pool(x, op, window, axes=(1, 2), padding=window[0] // 2, kernel="native") == x[0, 0, 0]).all()


def test_sums_of_powers_that_float64_does_not_hold_are_left_to_others():
    x = np.full((1, 7200), np.finfo("f4").max, "f4")
    assert poolwise.explain(x, GeM(7.9), (1, 7000)).forward_kernel == "native"
    assert poolwise.explain(x, GeM(7.9), (1, 7200)).forward_kernel == "gathered"
    np.testing.assert_allclose(poolwise.pool(x, GeM(7.9), (1, 7200)), x[:, :1], rtol=1e-5)
    np.testing.assert_allclose(poolwise.pool(x, GeM(7.9), (1, 7000), kernel="native"), x[:, :1])


def test_a_number_in_an_array_is_a_parameter():
    x = np.random.default_rng(0).random((1, 1, 4, 4), "f4")
    wanted = poolwise.gem_pool(x, (2, 2), p=2.5)
    for p in (np.array(2.5), np.array([2.5]), np.full((1, 1, 1, 1), 2.5), np.array([[2.5]], "f4")):
        np.testing.assert_array_equal(poolwise.gem_pool(x, (2, 2), p=p), wanted)


@pytest.mark.parametrize("op", [Soft(), LogSumExp(), StochasticMean(), GeM(), Lp(3)], ids=repr)
def test_what_would_need_more_than_float64_is_left_to_others(op):
    with pytest.raises(poolwise.InvalidValue, match="float64"):
        poolwise.pool(np.ones((4, 4)), op, (2, 2), kernel="native")


def test_the_module_itself_refuses_what_it_could_not_compute():
    geometry = Geometry.of((1, 9, 9), (1, 2), window=(3, 3))
    table = [_table(each) for each in geometry.tables]
    order = (0, 1, 2)
    make = _native.Plan
    for words, says in (
        ({"body": "blur", "weights": [[1.0] * 3]}, "weights must be for 2 axes, got them for 1"),
        ({"body": "blur", "weights": [[1.0] * 3, [1.0] * 2]}, "weights must be 3 along axis 1, got 2"),
        ({"body": "blur", "weights": [[-1.0] * 3] * 2}, "weights must be at least 0"),
        ({"body": "blur", "weights": [[float("nan")] * 3] * 2}, "weights must be at least 0"),
        ({"body": "median", "weights": [[1.0] * 3] * 2}, "weights must be for 0 axes, got them for 2"),
        ({"body": "soft", "parameter": float("nan")}, "parameter must be at least 1e-30"),
        ({"body": "logsumexp", "parameter": 0.0}, "parameter must be at least 1e-30"),
        ({"body": "quantile", "parameter": 1.5}, "parameter must be between 0 and 1"),
        ({"body": "topkmean", "parameter": 1.5}, "parameter must be a whole number of at least 1"),
        ({"body": "gem", "parameter": 8.0, "least": 1e-6}, "parameter must be at least 1, and its powers"),
        ({"body": "gem", "parameter": float("nan"), "least": 1e-6}, "parameter must be at least 1, and its powers"),
        ({"body": "lp", "parameter": 7.0}, "parameter must be at least 1, and its powers"),
        ({"body": "gem", "parameter": 3.0}, "least must be a normal float32 above 0"),
    ):
        with pytest.raises(ValueError, match=says):
            make(words.pop("body"), "float32", (1, 9, 9), (1, 2), table, order, **words)
    median = make("median", "float32", (1, 9, 9), (1, 2), table, order)
    x, y = np.ones((1, 9, 9), "f4"), np.empty((1, 3, 3), "f4")
    with pytest.raises(ValueError, match="mask must be none"):
        median.forward(x, y, None, np.ones(x.shape, bool))
    with pytest.raises(ValueError, match="must be dense"):
        median.forward(x[:, ::-1], y)
    with pytest.raises(ValueError, match="beside: this operation has no second input"):
        median.forward(x, y, beside=x)
    with pytest.raises(ValueError, match="beside: this operation has no second input"):
        median.forward_at(x.ctypes.data, y.ctypes.data, beside=x.ctypes.data)
    mode = make("mode", "float32", (1, 9, 9), (1, 2), table, order)
    with pytest.raises(ValueError, match="no gradient of this"):
        mode.backward(y, x)
