"""The operations and the NumPy door: literals, dtypes, refusals, the text of errors."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any, cast

import numpy as np
import pytest

import poolwise
from cases import OPERATIONS
from poolwise import InvalidType, InvalidValue, Max, Mean, Min, Sum

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("op", "expected"),
    [(Max(), 4), (Min(), 1), (Sum(), 10), (Mean(), 2.5), (Mean(divisor=5), 2), (Mean(divisor=2.5), 4)],
)
def test_the_tutorials_window(op: poolwise.Operation, expected: float) -> None:
    assert poolwise.pool([[1, 3], [2, 4]], op, (2, 2)).tolist() == [[expected]]


def test_a_short_name_is_pool_with_its_operation() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(poolwise.max_pool(x, (2, 2)), poolwise.pool(x, Max(), (2, 2)))
    np.testing.assert_array_equal(
        poolwise.avg_pool(x, (2, 2), padding=1, count_include_pad=True),
        poolwise.pool(x, Mean(count_include_pad=True), (2, 2), padding=1),
    )
    assert list(inspect.signature(poolwise.avg_pool).parameters)[:5] == [
        "x",
        "window",
        "count_include_pad",
        "divisor",
        "rounding",
    ]
    assert "return_indices" in inspect.signature(poolwise.min_pool).parameters


@pytest.mark.parametrize(
    ("op", "window", "expected", "index"),
    [
        (Max(), [1.0, 3.0, 3.0], 3.0, 1),
        (Max(), [1.0, NAN, 3.0], NAN, 1),
        (Max(), [NAN, 1.0, NAN], NAN, 2),
        (Max(), [-INF, -INF, -INF], -INF, 0),
        (Max(), [-0.0, 0.0, -1.0], 0.0, 0),
        (Min(), [1.0, 1.0, 3.0], 1.0, 0),
        (Min(), [INF, NAN, -INF], NAN, 1),
        (Min(), [INF, INF, INF], INF, 0),
    ],
)
@pytest.mark.parametrize("kernel", ["native", "gathered", "reference"])
def test_nan_wins_and_ties_go_to_the_first(
    op: poolwise.Operation, window: list[float], expected: float, index: int, kernel: str
) -> None:
    function = {"max": poolwise.max_pool, "min": poolwise.min_pool}[op.name]
    y, indices = function(np.array(window), (3,), return_indices=True, kernel=kernel)
    np.testing.assert_array_equal(y, [expected])
    assert indices.dtype == np.int64
    assert indices.tolist() == [index]


@pytest.mark.parametrize(
    ("op", "dtype", "expected"),
    [
        (Max(), "float32", -INF),
        (Min(), "float64", INF),
        (Sum(), "float32", 0),
        (Mean(), "float32", NAN),
        (Mean(count_include_pad=True), "float32", 0),
        (Mean(divisor=2), "float32", 0),
        (Max(), "int8", -128),
        (Min(), "uint16", 65535),
        (Sum(), "int8", 0),
        (Mean(), "int32", 0),
    ],
)
def test_an_empty_window(op: poolwise.Operation, dtype: str, expected: float) -> None:
    y = poolwise.pool(np.ones(2, dtype), op, (2,), padding=2)
    np.testing.assert_array_equal(y[[0, 2]], np.array([expected] * 2, y.dtype))


def test_the_index_of_an_empty_window_is_minus_one() -> None:
    assert poolwise.max_pool(np.ones(2), (2,), padding=2, return_indices=True)[1].tolist() == [-1, 0, -1]


def test_indices_count_over_the_pooled_axes_in_their_order() -> None:
    x = np.zeros((3, 2, 4))
    x[2, :, 1] = 1
    assert poolwise.max_pool(x, (3, 4), axes=(0, 2), return_indices=True)[1].tolist() == [[[9], [9]]]
    assert poolwise.max_pool(x, (4, 3), axes=(2, 0), return_indices=True)[1].tolist() == [[[5], [5]]]


@pytest.mark.parametrize(
    ("op", "given", "result"),
    [
        (Max(), "uint8", "uint8"),
        (Max(), "bool", "bool"),
        (Min(), "int64", "int64"),
        (Sum(), "int8", "int64"),
        (Sum(), "uint16", "uint64"),
        (Sum(), "bool", "int64"),
        (Sum(), "float16", "float16"),
        (Mean(), "int16", "int16"),
        (Mean(), "float32", "float32"),
    ],
)
def test_result_dtype(op: poolwise.Operation, given: str, result: str) -> None:
    assert poolwise.pool(np.ones((4, 4), given), op, (2, 2)).dtype == result


def test_bfloat16_is_pooled_in_float32_and_stays_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    y = poolwise.sum_pool(np.ones(512, ml_dtypes.bfloat16), (512,))
    assert y.dtype == ml_dtypes.bfloat16
    assert float(y[0]) == 512  # ones added one by one in bfloat16 stop at 256
    assert float(poolwise.avg_pool(np.full(1000, 3.0, ml_dtypes.bfloat16), (1000,))[0]) == 3


@pytest.mark.parametrize(
    ("values", "rounding", "expected"),
    [
        ([1, 2], "nearest", 2),
        ([2, 3], "nearest", 2),
        ([-1, -2], "nearest", -2),
        ([-1, -2], "truncate", -1),
        ([1, 2], "truncate", 1),
        ([2**62, 2**62 + 2], "nearest", 2**62 + 1),
        ([2**63 - 1, 2**63 - 1], "nearest", 2**63 - 1),
        ([-(2**63), -(2**63)], "truncate", -(2**63)),
    ],
)
def test_integer_means_are_exact(values: list[int], rounding: str, expected: int) -> None:
    assert poolwise.avg_pool(np.array(values), (2,), rounding=rounding).tolist() == [expected]


def test_where_takes_elements_away() -> None:
    x = np.array([[1.0, 9.0], [2.0, 3.0]])
    mask = np.array([[True, False], [True, True]])
    assert poolwise.max_pool(x, (2, 2), where=mask).tolist() == [[3]]
    assert poolwise.avg_pool(x, (2, 2), where=mask).tolist() == [[2]]
    assert poolwise.avg_pool(x, (2, 2), where=mask, count_include_pad=True).tolist() == [[1.5]]
    assert poolwise.max_pool(x, (2, 2), where=mask, return_indices=True)[1].tolist() == [[3]]
    assert poolwise.global_pool(x, Sum(), axes=(0, 1), where=[[True, False]]).tolist() == 3


def test_adaptive_and_global() -> None:
    x = np.arange(14.0).reshape(2, 7)
    assert poolwise.adaptive_pool(x, Max(), (3,)).tolist() == [[2, 4, 6], [9, 11, 13]]
    assert poolwise.adaptive_pool(x, Mean(), (3,), bins="disjoint").tolist() == [[1, 3.5, 5.5], [8, 10.5, 12.5]]
    assert poolwise.adaptive_pool(x, Max(), (3,), return_indices=True)[1].tolist() == [[2, 4, 6]] * 2
    assert poolwise.global_pool(x, Max(), axes=1, keepdims=True).tolist() == [[6], [13]]
    assert poolwise.global_pool(x, Mean(), axes=(0, 1)) == 6.5


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2, ::-1],
        lambda x: x.T,
        np.asfortranarray,
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.astype(">f8"),
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64).reshape(x.shape),
        lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    ],
    ids=["stepped", "transposed", "Fortran", "broadcast", "big-endian", "unaligned", "read-only"],
)
@pytest.mark.parametrize("kernel", ["native", "gathered"])
def test_arrays_of_any_strides(view: object, kernel: str) -> None:
    x = view(np.random.default_rng(0).standard_normal((8, 10)))
    plain = np.array(x.tolist())
    np.testing.assert_array_equal(
        poolwise.max_pool(x, (3, 2), stride=1, kernel=kernel), poolwise.max_pool(plain, (3, 2), stride=1)
    )


def test_memory_order_is_kept() -> None:
    x = np.asfortranarray(np.random.default_rng(0).standard_normal((2, 6, 8)))
    assert poolwise.avg_pool(x, (2, 2), kernel="native").flags.f_contiguous


@pytest.mark.parametrize(
    ("make", "fault", "text"),
    [
        (lambda: Mean(divisor=0), InvalidValue, "divisor must be between 1 and"),
        (lambda: Mean(divisor=-3), InvalidValue, "divisor must be between 1 and"),
        (lambda: Mean(divisor=NAN), InvalidValue, "divisor must be between 1 and"),
        (lambda: Mean(divisor="2"), InvalidType, "divisor must be a number, got '2'"),
        (lambda: Mean(count_include_pad=1), InvalidType, "count_include_pad must be True or False, got 1"),
        (lambda: Mean(rounding="up"), InvalidValue, 'rounding must be "nearest" or "truncate", got \'up\''),
        (lambda: poolwise.avg_pool([1.0], (1,), divisor=0), InvalidValue, "avg_pool: divisor must be between 1 and"),
        (lambda: poolwise.max_pool([1.0], (1,), p=2), InvalidType, "max_pool: unexpected argument p=2"),
        (
            lambda: poolwise.max_pool(np.ones((3, 3)), (2, 2), stride=(0, 2)),
            InvalidValue,
            "max_pool: stride must be at",
        ),
        (lambda: poolwise.max_pool(np.ones(3), (2,), kernel="triton9"), InvalidValue, "kernel must be None or one of"),
        (
            lambda: poolwise.avg_pool(np.ones(3, "i2"), (2,), divisor=2.5, kernel="native"),
            InvalidValue,
            "divisor is 2.5",
        ),
        (lambda: poolwise.max_pool(np.float64(3), (1,)), InvalidValue, "0-d array"),
        (lambda: poolwise.max_pool(np.ones(3, complex), (1,)), InvalidType, "got complex128"),
        (lambda: poolwise.max_pool(np.array(["a"]), (1,)), InvalidType, "got <U1"),
        (lambda: poolwise.max_pool(np.array([object()]), (1,)), InvalidType, "got object"),
        (lambda: poolwise.avg_pool(np.ones(3, bool), (1,)), InvalidType, "avg_pool: x must not be bool"),
        (lambda: poolwise.max_pool(np.ones((3, 0)), (1,)), InvalidValue, "at least 1 element on each pooled axis"),
        (
            lambda: poolwise.max_pool(np.ones((3, 4)), (1,), where=np.ones(3, bool)),
            InvalidValue,
            "where must broadcast",
        ),
        (lambda: poolwise.max_pool(np.ones((3, 4)), (1,), where=np.ones(4)), InvalidType, "where must be boolean"),
        (lambda: poolwise.max_pool(np.ma.ones(3), (1,)), InvalidType, "where=~mask"),
        (lambda: poolwise.pool(np.ones(3), Max, (1,)), InvalidType, "op must be an operation such as Max()"),
        (
            lambda: poolwise.pool(np.ones(3), "max", (1,)),
            InvalidType,
            "op must be an operation such as Max(), got 'max'",
        ),
        (
            lambda: poolwise.adaptive_pool(np.ones(3), Sum(), (1,), return_indices=True),
            InvalidValue,
            "picks no element",
        ),
        (lambda: poolwise.set_num_threads(0), InvalidValue, "count must be between 1"),
    ],
)
def test_bad_input_gets_one_clear_error(make: object, fault: type[Exception], text: str) -> None:
    with pytest.raises(fault) as caught:
        make()
    assert text in str(caught.value)


def test_a_remembered_plan_does_not_let_a_look_alike_pass() -> None:
    x = np.ones((1, 4))
    poolwise.max_pool(x, (1, 1), stride=1, axes=(0, 1))
    for bad in ({"stride": True}, {"stride": 1.0}, {"stride": (1, 1.0)}, {"stride": (True, 1)}, {"ceil_mode": 0}):
        with pytest.raises(InvalidType):
            poolwise.max_pool(x, (1, 1), **{"axes": (0, 1), **bad})


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
def test_operations_are_values(op: poolwise.Operation) -> None:
    for twin in (copy.copy(op), copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert twin == op
        assert hash(twin) == hash(op)
    with pytest.raises(AttributeError):
        op.name_of_something_else = 1


def test_faults_survive_pickling() -> None:
    try:
        poolwise.max_pool(np.ones(3), (0,))
    except InvalidValue as fault:
        assert str(pickle.loads(pickle.dumps(fault))) == str(fault) == "max_pool: window must be at least 1, got (0,)"


def test_explain_names_the_kernel_and_why_each_other_one_refused() -> None:
    x = np.ones((2, 3, 8, 8), np.float32)
    served = poolwise.explain(x, Max(), (3, 3))
    assert served.forward_kernel == served.kernel and "without" not in str(served)
    labels = poolwise.explain(x.astype("float32"), poolwise.Mode(), (3, 3))
    assert (labels.kernel, labels.forward_kernel) == ("gathered", "native")
    assert "kernel: gathered (without a gradient: native)" in str(labels)
    assert served.kernel == "native"
    assert served.kept_bytes == 2 * 3 * 2 * 2
    assert set(served.refusals) == {"vendor", "gathered", "reference"}
    assert served.refusals["vendor"] == "NumPy has no pooling of its own"
    assert poolwise.explain(x.astype("float16"), Max(), (3, 3), where=x > 0).kernel == "native"
    fraction = poolwise.explain(x.astype("int32"), Mean(divisor=2.5), (3, 3))
    assert fraction.kernel == "gathered"
    assert fraction.refusals["native"] == "it divides integers by whole numbers, and the divisor is 2.5"
    assert "kernel: native" in str(served)
    with pytest.raises(InvalidType, match="explain: op must be an operation such as Max"):
        poolwise.explain(x, cast("Any", Max), (3, 3))
    assert all(name in str(served) for name in served.refusals)
