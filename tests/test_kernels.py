"""op × kernel × case: every kernel that serves a call gives what the reference gives, forward, backward and index."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from cases import CASES, DTYPES, FLOATS, NATIVE, OPERATIONS, WITH_ARRAYS, call_of, operands_of, same, takes
from poolwise import Operation
from poolwise.call import Kernel
from poolwise.choose import ALL
from poolwise.kernels.table import KERNELS
from poolwise.op import Selection
from poolwise.reference import Reference

LARGEST = 8 * 30  # |value| × taps: the scale of a sum's rounding


def serving(case: str, op: Operation, dtype: str, *, masked: bool = False) -> list[Kernel]:
    call = call_of(case, op, dtype, masked=masked)
    return [kernel for kernel in KERNELS if kernel.refusal(call) is None]


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("op", [*OPERATIONS, *WITH_ARRAYS], ids=repr)
@pytest.mark.parametrize("case", CASES)
def test_every_kernel_gives_what_the_reference_gives(case: str, op: Operation, masked: bool) -> None:
    for dtype in filter(partial(takes, op), DTYPES):
        call, operands = call_of(case, op, dtype, masked=masked), operands_of(case, dtype, masked=masked, op=op)
        expected, kept = Reference().forward(operands, call)
        g = np.random.default_rng(2).standard_normal(expected.shape).astype(dtype if dtype in FLOATS else "float64")
        gradients = Reference().backward(g, kept, call)
        for kernel in serving(case, op, dtype, masked=masked):
            y, mine = kernel.forward(operands, call)
            same(y, expected, scale=LARGEST)
            if dtype in FLOATS:
                for got, gradient in zip(kernel.backward(g, mine, call), gradients, strict=True):
                    if got is not None:
                        same(got, gradient, scale=16)
            if isinstance(op, Selection):
                same(kernel.indices(mine, call), Reference().indices(kept, call))


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
@pytest.mark.parametrize("case", CASES)
def test_what_is_not_asked_for_is_not_kept_and_changes_nothing(case: str, op: Operation) -> None:
    operands = operands_of(case, "float32")
    asked, spared = call_of(case, op, "float32"), call_of(case, op, "float32", keep=False)
    for kernel in serving(case, op, "float32"):
        y, kept = kernel.forward(operands, spared)
        assert kept is None
        np.testing.assert_array_equal(y, kernel.forward(operands, asked)[0])


@pytest.mark.parametrize("case", ["2/2", "3/2 p1", "channels last", "3-D"])
def test_native_keeps_one_byte_per_output_of_a_max_and_nothing_of_a_mean(case: str) -> None:
    native = KERNELS[0]
    for op in NATIVE:
        call = call_of(case, op, "float32")
        kept = native.forward(operands_of(case, "float32"), call)[1]
        if isinstance(op, Selection):
            assert kept.dtype == np.uint8
            assert kept.nbytes == native.kept_bytes(call) == np.prod(call.geometry.output_shape)
        else:
            assert kept is None
            assert native.kept_bytes(call) == 0


def test_every_kernel_of_the_table_is_reached_or_says_why_not() -> None:
    reached: set[str] = set()
    for case in CASES:
        for op in OPERATIONS:
            reached.update(kernel.name for kernel in serving(case, op, "float32"))
    silent = {kernel.name for kernel in ALL} - reached - {"reference"}
    assert silent == {"vendor"}
    assert "no pooling of its own" in str(KERNELS[1].refusal(call_of("2/2", OPERATIONS[0], "float32")))


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_native_serves_every_operation_dtype_and_case(masked: bool) -> None:
    for case, op, dtype in itertools.product(CASES, NATIVE, DTYPES):
        if takes(op, dtype):
            assert "native" in [kernel.name for kernel in serving(case, op, dtype, masked=masked)]
