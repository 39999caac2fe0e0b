"""The compiled module against loops: every geometry, body, dtype and instruction set, one window at a time."""

from __future__ import annotations

import itertools
import math
import os
import threading

import numpy as np
import pytest

_native = pytest.importorskip("poolwise._native")

HUGE = 10**12

# name: (outer, axes, inner); an axis is (size, output, start, step, dilation, taps, low, high), and "absent" follows
CASES = {
    "1-D, touching windows": (5, [(13, 6, 0, 2, 1, 2, 0, 0)], 1),
    "1-D, many columns": (3, [(211, 105, 0, 2, 1, 2, 0, 0)], 1),
    "2/2": (3, [(14, 7, 0, 2, 1, 2, 0, 0), (150, 75, 0, 2, 1, 2, 0, 0)], 1),
    "2/2, odd": (2, [(7, 3, 0, 2, 1, 2, 0, 0), (113, 56, 0, 2, 1, 2, 0, 0)], 1),
    "3/2": (2, [(17, 8, 0, 2, 1, 3, 0, 0), (101, 50, 0, 2, 1, 3, 0, 0)], 1),
    "3/2, padded": (3, [(11, 6, -1, 2, 1, 3, 1, 1), (37, 19, -1, 2, 1, 3, 1, 1)], 1),
    "3/2, padded, wide": (1, [(6, 3, -1, 2, 1, 3, 1, 1), (160, 80, -1, 2, 1, 3, 1, 1)], 1),
    "3/1, padded": (2, [(13, 13, -1, 1, 1, 3, 1, 1), (53, 53, -1, 1, 1, 3, 1, 1)], 1),
    "3/1": (2, [(7, 5, 0, 1, 1, 3, 0, 0), (43, 41, 0, 1, 1, 3, 0, 0)], 1),
    "3/3": (2, [(9, 3, 0, 3, 1, 3, 0, 0), (149, 49, 0, 3, 1, 3, 0, 0)], 1),
    "3/4, gaps": (2, [(9, 2, 0, 4, 1, 3, 0, 0), (90, 22, 1, 4, 1, 3, 0, 0)], 1),
    "2/7, wide gaps": (2, [(11, 2, 1, 7, 1, 2, 0, 0), (101, 14, 2, 7, 1, 2, 0, 0)], 1),
    "5/1, padded": (2, [(13, 13, -2, 1, 1, 5, 2, 2), (13, 13, -2, 1, 1, 5, 2, 2)], 1),
    "5/1, five planes": (5, [(13, 13, -2, 1, 1, 5, 2, 2), (13, 13, -2, 1, 1, 5, 2, 2)], 1),
    "13/1, five planes": (5, [(12, 12, -6, 1, 1, 13, 6, 6), (20, 20, -6, 1, 1, 13, 6, 6)], 1),
    "3/2, rows of four packs": (2, [(9, 4, 0, 2, 1, 3, 0, 0), (56, 28, -1, 2, 1, 3, 1, 1)], 1),
    "4/1, rows of four packs, cropped": (2, [(9, 5, 1, 1, 1, 4, 0, 0), (56, 49, 2, 1, 1, 4, 0, 0)], 1),
    "far taps of short rows": (2, [(7, 3, -2, 2, 2, 4, 2, 2), (30, 30, -15, 1, 5, 7, 15, 15)], 1),
    "13/1, padded": (1, [(20, 20, -6, 1, 1, 13, 6, 6), (20, 20, -6, 1, 1, 13, 6, 6)], 1),
    "17 x 19, bytes are not enough": (1, [(23, 7, 0, 1, 1, 17, 0, 0), (23, 5, 0, 1, 1, 19, 0, 0)], 1),
    "1/1": (2, [(3, 3, 0, 1, 1, 1, 0, 0), (31, 31, 0, 1, 1, 1, 0, 0)], 1),
    "1/2": (2, [(5, 3, 0, 2, 1, 1, 0, 0), (61, 31, 0, 2, 1, 1, 0, 0)], 1),
    "channels 3": (2, [(7, 3, 0, 2, 1, 2, 0, 0), (11, 5, 0, 2, 1, 2, 0, 0)], 3),
    "channels 16": (2, [(7, 4, -1, 2, 1, 3, 1, 1), (11, 6, -1, 2, 1, 3, 1, 1)], 16),
    "channels 17": (1, [(7, 7, -1, 1, 1, 3, 1, 1), (5, 5, -1, 1, 1, 3, 1, 1)], 17),
    "channels 64": (1, [(5, 2, 0, 2, 1, 3, 0, 0), (5, 2, 0, 2, 1, 2, 0, 0)], 64),
    "channels 83, 9 x 7": (1, [(11, 11, -4, 1, 1, 9, 4, 4), (5, 5, -3, 1, 1, 7, 3, 3)], 83),
    "3-D": (2, [(5, 3, -1, 2, 1, 3, 1, 1), (6, 3, 0, 2, 1, 2, 0, 0), (37, 19, -1, 2, 1, 3, 1, 1)], 1),
    "3-D, stride 1, channels 5": (
        1,
        [(5, 4, 0, 1, 1, 2, 0, 0), (3, 3, -1, 1, 1, 3, 1, 1), (4, 3, 0, 1, 1, 2, 0, 0)],
        5,
    ),
    "dilated 2": (2, [(17, 9, 0, 1, 2, 5, 0, 0), (43, 39, 0, 1, 2, 3, 0, 0)], 1),
    "dilated 2, stride 2": (2, [(13, 5, 0, 2, 2, 3, 0, 0), (47, 22, -1, 2, 2, 3, 1, 1)], 1),
    "dilated 3, stride 2": (2, [(13, 4, -2, 2, 3, 4, 2, 2), (41, 18, -2, 2, 3, 4, 2, 2)], 1),
    "dilated 6, stride 4": (1, [(31, 5, -3, 4, 6, 4, 3, 3), (67, 13, -3, 4, 6, 4, 3, 3)], 1),
    "ceil's overhang": (2, [(7, 4, 0, 2, 1, 2, 0, 0), (36, 12, -1, 3, 1, 5, 1, 0)], 1),
    "empty windows, dilated over a hole": (1, [(2, 1, -1, 2, 3, 2, 1, 1), (2, 1, -1, 2, 3, 2, 1, 1)], 1),
    "empty windows beside full ones": (2, [(3, 6, -4, 2, 1, 2, 4, 4), (19, 20, -8, 2, 1, 2, 3, 3)], 1),
    "empty windows, channels 16": (2, [(3, 6, -4, 2, 1, 2, 4, 4), (3, 6, -4, 2, 1, 2, 3, 3)], 16),
    "window over everything": (3, [(7, 1, -3, 1, 1, 13, 3, 3), (5, 3, -5, 5, 1, 15, 5, 5)], 1),
    "global": (3, [(7, 1, 0, 7, 1, 7, 0, 0), (29, 1, 0, 29, 1, 29, 0, 0)], 1),
    "global, channels 35": (3, [(7, 1, 0, 7, 1, 7, 0, 0), (3, 1, 0, 3, 1, 3, 0, 0)], 35),
    "huge taps": (2, [(3, 3, -1, 1, 1, 3, 1, 1), (5, 2, -HUGE, 1, 1, 2 * HUGE, HUGE, HUGE)], 1),
    "huge steps and dilation": (2, [(5, 1, 0, 2**61, 1, 2, 0, 0), (5, 1, 1, HUGE, HUGE, 2, 0, 0)], 1),
    "windows far apart": (2, [(5, 3, -HUGE, HUGE, 1, 2, HUGE, HUGE), (37, 2, 2, 9, 1, 3, 0, 0)], 1),
    "a huge declared padding": (1, [(5, 3, 0, 2, 1, 2, 2**61, 2**61)], 2),
    "a single element under five taps": (2, [(1, 1, -2, 1, 1, 5, 2, 2)], 1),
    "a column of elements under five taps": (2, [(5, 3, 0, 1, 1, 3, 0, 0), (1, 1, -2, 1, 1, 5, 2, 2)], 1),
    "taps beyond both ends": (1, [(4, 4, -(2**40), 1, 2**40, 2, 2**40, 0)], 1),
    "taps beyond both ends of columns": (1, [(2, 2, -(2**59), 1, 2**59, 2, 2**59, 0), (16, 16, 0, 1, 1, 1, 0, 0)], 1),
    "huge steps of rows": (2, [(8, 1, 0, 2**61, 1, 2, 0, 0), (8, 4, 0, 2, 1, 2, 0, 0)], 1),
    "shifted far right": (1, [(9, 4, 3, 3, 1, 2, 0, 9)], 1),
    "no outer": (0, [(4, 2, 0, 2, 1, 2, 0, 0)], 1),
    "no inner": (2, [(4, 2, 0, 2, 1, 2, 0, 0)], 0),
}
DTYPES = ("float32", "float64")
SETS = _native.instruction_sets()


# ---- the oracle: one window at a time ----


def taps_of(axis, cell):
    """(tap, index) of every present tap, and how many count."""
    size, _, start, step, dilation, taps, low, high = axis
    base = start + cell * step

    def between(begin, end):
        first = max(0, -((base - begin) // dilation))
        return range(first, max(first, min(taps, (end - 1 - base) // dilation + 1)))

    return [(t, base + t * dilation) for t in between(0, size)], len_of(between(-low, size + high))


def len_of(taps):
    return max(0, taps.stop - taps.start)  # len() refuses what does not fit a C integer


def windows(case):
    """(output cell, flat input indices, offsets inside the window, counting taps) over the pooled axes."""
    _, axes, _ = CASES[case]
    for cell in itertools.product(*(range(axis[1]) for axis in axes)):
        indices, offsets, counting = [0], [0], 1
        for axis, i in zip(axes, cell, strict=True):
            present, count = taps_of(axis, i)
            indices = [index * axis[0] + position for index in indices for _, position in present]
            offsets = [offset * axis[5] + tap for offset in offsets for tap, _ in present]
            counting *= count
        yield np.ravel_multi_index(cell, [axis[1] for axis in axes]), np.array(indices, int), offsets, counting


def winner(values, body):
    """Position of the last NaN, else of the first best."""
    nans = np.flatnonzero(np.isnan(values))
    if nans.size:
        return nans[-1]
    return np.argmax(values) if body == "max" else np.argmin(values)


def divisor_of(present, counting, count_include_pad, divisor):
    return divisor or (counting if count_include_pad else present)


def expected(case, body, x, g, **words):
    """y, kept offsets, indices, gx in float64, of x shaped (outer, everything pooled, inner)."""
    outer, axes, inner = CASES[case]
    cells = math.prod(axis[1] for axis in axes)
    y, gx = np.zeros((outer, cells, inner)), np.zeros(x.shape)
    kept, flat = np.full((outer, cells, inner), -1), np.full((outer, cells, inner), -1)
    for cell, indices, offsets, counting in windows(case):
        if body in ("sum", "mean"):
            divisor = divisor_of(len(indices), counting, **words) if body == "mean" else 1
            with np.errstate(all="ignore"):
                y[:, cell] = x[:, indices].sum(1, dtype=np.float64) / np.float64(divisor)
                gx[:, indices] += (g[:, cell] / np.float64(divisor))[:, None]
            continue
        if not len(indices):
            y[:, cell] = -np.inf if body == "max" else np.inf
            continue
        for o, c in itertools.product(range(outer), range(inner)):
            best = winner(x[o, indices, c], body)
            y[o, cell, c] = x[o, indices[best], c]
            kept[o, cell, c], flat[o, cell, c] = offsets[best], indices[best]
            gx[o, indices[best], c] += g[o, cell, c]
    return y, kept, flat, gx


def same(actual, wanted, ulp=0):
    """Equal, NaN to NaN and zeros of either sign; or within ulp, where sums are compared."""
    if ulp:
        np.testing.assert_allclose(
            actual, wanted, rtol=ulp * np.finfo(actual.dtype).eps, atol=ulp * np.finfo(actual.dtype).eps
        )
    else:
        np.testing.assert_array_equal(actual, wanted)


# ---- inputs ----


def plan_of(body, dtype, outer, axes, inner, order=None, mode="absent", **words):
    """A plan for arrays of shape (outer, *sizes, inner)."""
    shape, numbers = (outer, *(axis[0] for axis in axes), inner), range(1, 1 + len(axes))
    tables = [(*axis[1:], mode) for axis in axes]
    return _native.Plan(body, dtype, shape, numbers, tables, order or range(len(shape)), **words)


def plan(case, body, dtype, **words):
    return plan_of(body, dtype, *CASES[case], **words)


def shaped(case, x, part):
    """x with the pooled axes apart: those of the input (0) or of the output (1)."""
    outer, axes, inner = CASES[case]
    return None if x is None else x.reshape(outer, *(axis[part] for axis in axes), inner)


def shapes(case):
    outer, axes, inner = CASES[case]
    return [(outer, math.prod(axis[part] for axis in axes), inner) for part in (0, 1)]


def arrays(case, dtype, special):
    """Small integers, so that ties are common and sums exact; with `special` also NaN, infinities and -0."""
    rng = np.random.default_rng(len(case))
    x_shape, y_shape = shapes(case)
    x = rng.integers(-4, 5, x_shape).astype(dtype)
    if special:
        odd = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0, 0.0], dtype), x_shape)
        x = np.where(rng.random(x_shape) < 0.3, odd, x)
    return x, rng.integers(-9, 10, y_shape).astype(dtype)


def forward(case, p, x, kept=None, threads=0):
    y = np.full(shapes(case)[1], 77, x.dtype)
    p.forward(shaped(case, x, 0), shaped(case, y, 1), shaped(case, kept, 1), threads=threads)
    return y


def run(case, p, x, g, threads=0):
    """Forward and backward, all that there is of them."""
    kept = np.full(g.shape, 77, p.kept_dtype) if p.kept_dtype else None
    y, gx = forward(case, p, x, kept, threads), np.full(x.shape, 77, x.dtype)
    p.backward(shaped(case, g, 1), shaped(case, gx, 0), shaped(case, kept, 1), threads=threads)
    return y, kept, gx


@pytest.fixture(autouse=True)
def as_it_was():
    before = _native.instruction_set()
    yield
    _native.use_instruction_set(before)


@pytest.fixture(params=SETS)
def instruction_set(request):
    _native.use_instruction_set(request.param)
    return request.param


# ---- values ----


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
@pytest.mark.parametrize("body", ["max", "min"])
@pytest.mark.parametrize("case", CASES)
def test_selections_are_those_of_the_loop(case, body, special):
    x, g = arrays(case, "float64", special)
    wanted_y, wanted_kept, wanted_flat, wanted_gx = expected(case, body, x, g)
    for name, dtype in itertools.product(SETS, DTYPES):
        _native.use_instruction_set(name)
        p = plan(case, body, dtype)
        assert (p.input_size, p.output_size) == (x.size, g.size)
        x_typed, g_typed = x.astype(dtype), g.astype(dtype)
        same(forward(case, p, x_typed), wanted_y)
        if p.kept_dtype == "":
            continue
        y, kept, gx = run(case, p, x_typed, g_typed)
        same(y, wanted_y)
        same(kept, wanted_kept.astype(p.kept_dtype))
        same(gx, wanted_gx)
        flat = np.full(g.shape, 77, np.int64)
        p.indices(shaped(case, kept, 1), shaped(case, flat, 1))
        same(flat, wanted_flat)


MEANS = {
    "present": {"count_include_pad": False, "divisor": 0.0},
    "padding counts": {"count_include_pad": True, "divisor": 0.0},
    "divisor": {"count_include_pad": False, "divisor": 3.0},
}


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
@pytest.mark.parametrize(("body", "words"), [("sum", MEANS["present"]), *(("mean", words) for words in MEANS.values())])
@pytest.mark.parametrize("case", CASES)
def test_sums_are_those_of_the_loop(case, body, words, special):
    x, g = arrays(case, "float64", special)
    wanted_y, _, _, wanted_gx = expected(case, body, x, g, **words)
    for name, dtype in itertools.product(SETS, DTYPES):
        _native.use_instruction_set(name)
        p = plan(case, body, dtype, **words)
        y, kept, gx = run(case, p, x.astype(dtype), g.astype(dtype))
        assert p.kept_dtype == "" and kept is None
        same(y, wanted_y.astype(dtype), ulp=1)
        same(gx, wanted_gx, ulp=64)


@pytest.mark.parametrize(
    "case", ["3/1, padded", "5/1, padded", "13/1, padded", "3/2, padded", "channels 83, 9 x 7", "global"]
)
def test_a_float32_mean_errs_by_at_most_four_ulp_of_the_magnitudes(case, instruction_set):
    x = np.random.default_rng(1).standard_normal(shapes(case)[0]).astype("float32")
    words = MEANS["present"]
    y = forward(case, plan(case, "mean", "float32", **words), x)
    g = np.zeros(shapes(case)[1])
    exact, magnitude = expected(case, "mean", x, g, **words)[0], expected(case, "mean", abs(x), g, **words)[0]
    assert np.all(abs(y - exact) <= 4 * np.spacing(magnitude.astype("float32")))


def test_a_float64_mean_over_a_long_window_errs_by_at_most_four_ulp(instruction_set):
    for n, value in [(144, -88.02686589168975), (174, 7.292352823416838), (100_000, 0.1)]:
        p = plan_of("mean", "float64", 1, [(n, 1, 0, n, 1, n, 0, 0)], 1)
        p.forward(np.full((1, n, 1), value), y := np.empty((1, 1, 1)))
        assert abs(y[0, 0, 0] - math.fsum([value] * n) / n) <= 4 * np.spacing(abs(value))


def test_a_long_float64_sum_of_infinities_is_theirs(instruction_set):
    for values, wanted in [([np.inf, 1.0] * 9, np.inf), ([np.inf, -np.inf] * 9, np.nan), ([1.0, np.nan] * 9, np.nan)]:
        p = plan_of("sum", "float64", 1, [(18, 1, 0, 18, 1, 18, 0, 0)], 1)
        p.forward(np.array(values).reshape(1, 18, 1), y := np.empty((1, 1, 1)))
        same(y[0, 0, 0], wanted)


def test_a_float32_gradient_that_many_windows_share_errs_by_at_most_four_ulp(instruction_set):
    p = plan_of("sum", "float32", 1, [(2, 4000, -2000, 1, 1, 2, 2000, 2000)], 1, mode="circular")
    g, gx = np.full((1, 4000, 1), 0.1, "f4"), np.empty((1, 2, 1), "f4")
    p.backward(g, gx)
    wanted = math.fsum([float(np.float32(0.1))] * 4000)
    assert np.all(abs(gx - wanted) <= 4 * np.spacing(np.float32(wanted)))


@pytest.mark.parametrize("odd", [np.inf, np.nan, 1e30])
def test_one_odd_value_reaches_only_the_windows_that_hold_it(odd, instruction_set):
    case = "13/1, padded"
    x, g = arrays(case, "float32", special=False)
    p = plan(case, "mean", "float32")
    plain = forward(case, p, x)
    x[0, 5] = odd
    y = forward(case, p, x)
    outside = np.ones(y.shape[1], bool)
    outside[[cell for cell, indices, _, _ in windows(case) if 5 in indices]] = False
    same(y[:, outside], plain[:, outside])
    assert outside.any() and (abs(y[:, ~outside]) > 1e20).all() | np.isnan(y[:, ~outside]).all()


@pytest.mark.parametrize("body", ["max", "min", "sum", "mean"])
@pytest.mark.parametrize(
    "case",
    [
        "2/2",
        "3/2, padded",
        "3/1, padded",
        "5/1, padded",
        "13/1, padded",
        "3/2, rows of four packs",
        "4/1, rows of four packs, cropped",
        "far taps of short rows",
        "channels 17",
        "channels 83, 9 x 7",
        "3-D",
    ],
)
def test_threads_and_instruction_sets_do_not_change_a_bit(case, body):
    _, axes, inner = CASES[case]
    outer, rng, sizes = 40 if inner == 1 else 9, np.random.default_rng(2), [[axis[i] for axis in axes] for i in (0, 1)]
    p = plan_of(body, "float32", outer, axes, inner)
    x, g = (rng.standard_normal((outer, *size, inner)).astype("float32") for size in sizes)
    results = []
    for name, threads in itertools.product(SETS, (1, 2, 7)):
        _native.use_instruction_set(name)
        y, gx, kept = np.empty_like(g), np.empty_like(x), np.empty(g.shape, p.kept_dtype) if p.kept_dtype else None
        p.forward(x, y, kept, threads=threads)
        p.backward(g, gx, kept, threads=threads)
        results.append([part.tobytes() for part in (y, gx, kept) if part is not None])
    assert all(result == results[0] for result in results)


def test_large_arrays_are_shared_among_threads_without_a_seam(instruction_set):
    x = np.random.default_rng(3).standard_normal((1, 1501, 1203, 1)).astype("float32")
    p = plan_of("max", "float32", 1, [(1501, 750, 0, 2, 1, 2, 0, 0), (1203, 601, 0, 2, 1, 2, 0, 0)], 1)
    y = np.empty((1, 750, 601, 1), "float32")
    p.forward(x, y, threads=7)
    same(y, x[:, :1500, :1202].reshape(1, 750, 2, 601, 2, 1).max((2, 4)))


# ---- kept offsets are not trusted ----


@pytest.mark.parametrize(
    "case",
    [
        "3/2, padded",
        "channels 16",
        "5/1, five planes",
        "17 x 19, bytes are not enough",
        "empty windows beside full ones",
    ],
)
def test_a_wrong_offset_sends_nothing_anywhere(case, instruction_set):
    x, g = arrays(case, "float32", special=False)
    p = plan(case, "max", "float32")
    limits = np.iinfo(p.kept_dtype)
    kept = np.random.default_rng(4).integers(limits.min, limits.max, g.shape, p.kept_dtype, endpoint=True)
    wanted_gx, wanted_flat = np.zeros(x.shape), np.full(g.shape, -1)
    for cell, indices, offsets, _ in windows(case):
        for index, offset in zip(indices, offsets, strict=True):
            hit = kept[:, cell] == offset
            wanted_gx[:, index] += np.where(hit, g[:, cell], 0)
            wanted_flat[:, cell][hit] = index
    gx, flat = np.full(x.shape, 77, "float32"), np.full(g.shape, 77, np.int64)
    p.backward(shaped(case, g, 1), shaped(case, gx, 0), shaped(case, kept, 1))
    p.indices(shaped(case, kept, 1), shaped(case, flat, 1))
    same(gx, wanted_gx)
    same(flat, wanted_flat)


# ---- refusals ----

GOOD = (4, 2, 0, 2, 1, 2, 0, 0)
TABLE = (*GOOD[1:], "absent")


def replaced(**fields):
    names = ("size", "output", "start", "step", "dilation", "taps", "low", "high")
    return tuple(fields.get(name, value) for name, value in zip(names, GOOD, strict=True))


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        (replaced(size=0), "pooled axis must be at least 1, got 0"),
        (replaced(size=-4), "size of shape must be at least 0, got -4"),
        (replaced(output=0), "output must be at least 1"),
        (replaced(step=0), "step must be at least 1"),
        (replaced(dilation=0), "dilation must be at least 1"),
        (replaced(taps=0), "taps must be at least 1"),
        (replaced(low=-1), "low must be at least 0"),
        (replaced(high=-1), "high must be at least 0"),
        (replaced(high=2**63 - 1), "64 bits"),
        (replaced(output=2**40, step=2**40), "64 bits"),
        (replaced(taps=2**40, dilation=2**40), "64 bits"),
        (replaced(start=2**63 - 1), "64 bits"),
        (replaced(size=2**60), "in bytes does not fit in 64 bits"),
        (replaced(output=2**60), "in bytes does not fit in 64 bits"),
    ],
)
def test_an_inconsistent_axis_is_refused(axis, says):
    with pytest.raises(ValueError, match=says):
        plan_of("max", "float32", 2, [axis], 1)


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (ValueError, {"body": "lowest"}),
        (ValueError, {"dtype": "float128"}),
        (ValueError, {"shape": (-1, 4)}),
        (ValueError, {"shape": ()}),
        (ValueError, {"shape": (2**62, 4)}),
        (ValueError, {"axes": [], "tables": []}),
        (ValueError, {"axes": [1, 1], "tables": [TABLE, TABLE]}),
        (ValueError, {"axes": [2]}),
        (ValueError, {"order": (0, 0)}),
        (ValueError, {"divisor": -1.0}),
        (ValueError, {"divisor": math.nan}),
        (ValueError, {"dtype": "bool"}),
        (ValueError, {"dtype": "int8", "divisor": 2.5}),
        (TypeError, {"shape": (2**64, 4)}),
        (TypeError, {"shape": (1.5, 4)}),
        (TypeError, {"tables": [TABLE[:7]]}),
    ],
)
def test_an_inconsistent_plan_is_refused(error, changes):
    good = {"body": "mean", "dtype": "float32", "shape": (2, 4), "axes": [1], "tables": [TABLE], "order": (0, 1)}
    assert _native.Plan(**good).output_size == 4
    with pytest.raises(error):
        _native.Plan(**{**good, **changes})


@pytest.mark.parametrize(
    ("taps", "dtype"),
    [(2, "uint8"), (255, "uint8"), (256, "int32"), (2**31 - 1, "int32"), (2**31, "int64"), (2**61, "int64")],
)
def test_offsets_take_the_least_room_that_holds_them(taps, dtype):
    assert plan_of("max", "float32", 1, [replaced(taps=taps)], 1).kept_dtype == dtype


def test_a_window_whose_offsets_fit_no_number_keeps_nothing_and_is_still_pooled():
    p = plan_of("max", "float32", 1, [replaced(taps=2**40), replaced(taps=2**40)], 1)
    y = np.zeros((1, 2, 2, 1), "f4")
    p.forward(np.arange(16, dtype="f4").reshape(1, 4, 4, 1), y)
    assert p.kept_dtype == "" and y.ravel().tolist() == [15, 15, 15, 15]


def test_arrays_that_do_not_fit_the_plan_are_refused():
    p = _native.Plan("max", "float32", (2, 4), [1], [TABLE], (0, 1))
    x, y, kept = np.zeros((2, 4), "f4"), np.zeros((2, 2), "f4"), np.zeros((2, 2), "u1")
    frozen = y.copy()
    frozen.flags.writeable = False
    wrong = [
        (x[:1], y, kept),
        (x.ravel(), y, kept),
        (x, np.zeros((2, 3), "f4"), kept),
        (x, y, kept[:1]),
        (x.astype("f8"), y, kept),
        (x.astype(">f4"), y, kept),
        (x, y.astype("f8"), kept),
        (x, y, kept.astype("i4")),
        (x, np.zeros((2, 4), "f4")[:, ::2], kept),
        (x, np.zeros((2, 2), "f4").T, kept),
        (x, frozen, kept),
        (None, y, kept),
    ]
    for arguments in wrong:
        with pytest.raises((ValueError, TypeError)):
            p.forward(*arguments)
    for arguments in [(y, x[:1], kept), (y[:1], x, kept), (y, x, kept[:1]), (y, x, None), (y, x, kept.astype("i4"))]:
        with pytest.raises((ValueError, TypeError)):
            p.backward(*arguments)
    for arguments in [(kept, y.astype("i4")), (kept, np.zeros((2, 3), "i8")), (kept[:1], np.zeros((2, 2), "i8"))]:
        with pytest.raises((ValueError, TypeError)):
            p.indices(*arguments)
    with pytest.raises(ValueError, match="threads"):
        p.forward(x, y, threads=-1)
    with pytest.raises(ValueError, match="kept"):
        _native.Plan("mean", "float32", (2, 4), [1], [TABLE], (0, 1)).forward(x, y, kept)


def test_addresses_serve_as_arrays_do_and_bad_ones_are_refused():
    p = _native.Plan("max", "float32", (2, 4), [1], [TABLE], (0, 1))
    x, y, kept, gx = np.arange(8, dtype="f4"), np.zeros(4, "f4"), np.zeros(4, "u1"), np.zeros(8, "f4")
    p.forward_at(x.ctypes.data, y.ctypes.data, kept.ctypes.data)
    p.backward_at(y.ctypes.data, gx.ctypes.data, kept.ctypes.data)
    same(y, [1, 3, 5, 7])
    same(gx, [0, 1, 0, 3, 0, 5, 0, 7])
    p.forward_at(x.ctypes.data + 28, y.ctypes.data, x_strides=(-16, -4))
    same(y, [7, 5, 3, 1])
    for bad in [(0, y.ctypes.data), (x.ctypes.data, 0), (x.ctypes.data, y.ctypes.data + 2)]:
        with pytest.raises(ValueError, match="address"):
            p.forward_at(*bad)
    for bad in [
        (0, gx.ctypes.data, kept.ctypes.data),
        (y.ctypes.data, 0, kept.ctypes.data),
        (y.ctypes.data, gx.ctypes.data, 0),
    ]:
        with pytest.raises(ValueError, match=r"address|kept"):
            p.backward_at(*bad)


# ---- dtypes ----

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def pooled(body, dtype, values, step=2, **words):
    """Windows of `step` over one row; bfloat16 as the bits of uint16."""
    x = np.array(values)
    p = _native.Plan(body, dtype, x.shape, [0], [(x.size // step, 0, step, 1, step, 0, 0, "absent")], [0], **words)
    y = np.empty(x.size // step, {"bfloat16": "uint16"}.get(p.result_dtype, p.result_dtype))
    p.forward(x, y)
    return y


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact_to_both_ends(dtype, instruction_set):
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([most, most, least, least, most, least, 0, 1, 1, 2], dtype)
    same(pooled("max", dtype, x), np.array([most, least, most, 1, 2], dtype))
    same(pooled("min", dtype, x), np.array([most, least, least, 0, 1], dtype))
    same(pooled("relumax", dtype, x), np.array([most, max(least, 0), most, 1, 2], dtype))
    middle = int(most) + int(least)  # -1 for signed ones, whose half rounds to the even 0; odd for unsigned ones
    nearest = [most, least, middle // 2 + (middle // 2) % 2, 0, 2]
    same(pooled("mean", dtype, x), np.array(nearest, dtype))
    same(
        pooled("mean", dtype, x, truncate=True),
        np.array([most, least, int(middle / 2) if least else most // 2, 0, 1], dtype),
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sums_of_integers_widen_and_wrap(dtype, instruction_set):
    wide, most = "uint64" if dtype.startswith("u") else "int64", np.iinfo(dtype).max
    y = pooled("sum", dtype, np.array([most, most, 1, 2], dtype))
    assert y.dtype == wide
    assert y.tolist() == [int(np.array([most, most], wide).sum()), 3]


def test_a_mean_of_integers_saturates_where_its_divisor_is_small(instruction_set):
    same(pooled("mean", "int8", np.array([127, 127, -128, -128], "int8"), divisor=1.0), [127, -128])
    same(pooled("mean", "int64", np.array([2**62, 2**62, -(2**63), -1]), divisor=1.0), [2**63 - 1, -(2**63)])


def test_bools_have_a_max_a_min_and_a_sum(instruction_set):
    x = np.array([True, False, False, False, True, True])
    same(pooled("max", "bool", x), [True, False, True])
    same(pooled("min", "bool", x), [False, False, True])
    same(pooled("sum", "bool", x), np.array([1, 0, 2]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_accumulates_in_float32(dtype, instruction_set):
    if dtype == "float16":
        values = np.array([2048, 1, 1, 1, 1, 0, 65504, 65504, -65504], dtype)
        same(pooled("sum", dtype, values, step=3), np.array([2050, 2, 65504], dtype))
    else:
        bits = lambda *numbers: (np.array(numbers, "float32").view("uint32") >> 16).astype("uint16")  # noqa: E731
        same(pooled("sum", dtype, bits(256, 1, 1, 1, 1, 0), step=3), bits(258, 2))
        same(pooled("max", dtype, bits(-2, -1, np.nan, 5, np.inf, 7), step=2), bits(-1, np.nan, np.inf))


# ---- masks, padding modes, uneven windows, strides ----


def loop(x, mask, rows, body):
    """One row pooled by the loop: y and the winner's tap (-1: nobody)."""
    y, at = [], []
    for row in rows:
        there = [(tap, x[place]) for tap, place in enumerate(row) if place >= 0 and mask[place]]
        values = np.array([value for _, value in there])
        if body in ("max", "min"):
            best = winner(values, body) if there else None
            y.append(-np.inf if body == "max" and not there else np.inf if not there else values[best])
            at.append(there[best][0] if there else -1)
        else:
            y.append(values.sum() if body == "sum" else values.mean() if there else np.nan)
    return y, at


FOLDS = {
    "circular": lambda place, n: place % n,
    "reflect": lambda place, n: -place if place < 0 else 2 * (n - 1) - place if place >= n else place,
    "replicate": lambda place, n: min(max(place, 0), n - 1),
    "absent": lambda place, n: place if 0 <= place < n else -1,
}


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("body", ["max", "min", "sum", "mean"])
@pytest.mark.parametrize("mode", FOLDS)
def test_padding_modes_and_masks_are_those_of_the_loop(mode, body, masked, instruction_set):
    n, rng = 13, np.random.default_rng(6)
    axis = (n, 8, -3, 2, 2, 3, 3, 3)
    rows = [[FOLDS[mode](-3 + 2 * cell + 2 * tap, n) for tap in range(3)] for cell in range(8)]
    x = rng.integers(-4, 5, (5, n, 3)).astype("float64")
    mask = rng.random(x.shape) < 0.6 if masked else np.ones(x.shape, bool)
    p = plan_of(body, "float64", 5, [axis], 3, mode=mode)
    y, g, gx = np.empty((5, 8, 3)), rng.standard_normal((5, 8, 3)), np.empty(x.shape)
    kept = np.empty(y.shape, "u1") if p.kept_dtype else None
    p.forward(x, y, kept, mask if masked else None)
    p.backward(g, gx, kept, mask if masked and kept is None else None)
    for o, c in itertools.product(range(5), range(3)):
        wanted, at = loop(x[o, :, c], mask[o, :, c], rows, body)
        np.testing.assert_allclose(y[o, :, c], wanted, rtol=1e-15)
        if kept is not None:
            assert kept[o, :, c].astype(int).tolist() == [tap % 256 for tap in at]
        wanted_gx = np.zeros(n)
        for cell, row in enumerate(rows):
            there = [place for place in row if place >= 0 and mask[o, place, c]]
            if kept is not None:
                wanted_gx[[row[at[cell]]] if at[cell] >= 0 else []] += g[o, cell, c]
                continue
            for place in there:
                wanted_gx[place] += g[o, cell, c] / (len(there) if body == "mean" else 1)
        np.testing.assert_allclose(gx[o, :, c], wanted_gx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("planes", [1, 6], ids=["shared", "per plane"])
@pytest.mark.parametrize("body", ["max", "mean"])
def test_uneven_windows_are_those_of_the_loop(body, planes, instruction_set):
    rng = np.random.default_rng(7)
    first = np.sort(rng.integers(0, 9, (planes, 7)), axis=1)
    end = np.maximum.accumulate(first + rng.integers(0, 5, (planes, 7)), axis=1)
    spans = np.stack([first, end - first], axis=-1)
    spans[..., 1] = np.minimum(spans[..., 1], 20 - spans[..., 0])
    x = rng.integers(-4, 5, (2, 20, 3)).astype("float64")
    taps = int(spans[..., 1].max())
    p = _native.Plan(body, "float64", x.shape, [1], [(taps, spans)], (0, 1, 2))
    y, g, gx = np.empty((2, 7, 3)), rng.standard_normal((2, 7, 3)), np.empty(x.shape)
    kept = np.empty(y.shape, p.kept_dtype) if p.kept_dtype else None
    p.forward(x, y, kept)
    p.backward(g, gx, kept)
    for o, c in itertools.product(range(2), range(3)):
        rows = [range(start, start + count) for start, count in spans[(o * 3 + c) % planes]]
        wanted, at = loop(x[o, :, c], np.ones(20, bool), rows, body)
        np.testing.assert_allclose(y[o, :, c], wanted, rtol=1e-15)
        wanted_gx = np.zeros(20)
        for cell, row in enumerate(rows):
            if body == "max":
                wanted_gx[[row[at[cell]]] if len(row) else []] += g[o, cell, c]
            elif len(row):
                wanted_gx[list(row)] += g[o, cell, c] / len(row)
        np.testing.assert_allclose(gx[o, :, c], wanted_gx, rtol=1e-13, atol=1e-13)


def test_windows_of_one_plane_alike_and_of_another_not():
    spans = np.array([[[0, 2], [2, 2]], [[0, 1], [1, 3]]])
    p = _native.Plan("mean", "float32", (2, 4), [1], [(3, spans)], (0, 1))
    p.forward(np.array([[1, 2, 3, 4]] * 2, "f4"), y := np.empty((2, 2), "f4"))
    same(y, np.array([[1.5, 3.5], [1, 3]], "f4"))


STRIDED = {
    "negative": lambda x: x[::-1, :, ::-1],
    "every second": lambda x: np.repeat(np.repeat(x, 2, 1), 2, 3)[:, ::2, :, ::2],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "broadcast": lambda x: np.broadcast_to(x[:1, :, :1], x.shape),
    "unaligned": lambda x: np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "float16"])
@pytest.mark.parametrize("body", ["max", "mean"])
@pytest.mark.parametrize("view", STRIDED)
@pytest.mark.parametrize("case", ["3/2, padded", "channels 17", "2/2, odd"])
def test_any_strides_are_read_where_they_stand(case, view, body, dtype, instruction_set):
    x = shaped(case, arrays(case, dtype, special=False)[0], 0)
    strided, p = STRIDED[view](x), plan(case, body, dtype)
    kept = [np.full(shaped(case, np.empty(shapes(case)[1]), 1).shape, 9, "u1") if p.kept_dtype else None for _ in "ab"]
    y = [np.full(shaped(case, np.empty(shapes(case)[1]), 1).shape, 77, dtype) for _ in "ab"]
    p.forward(strided, y[0], kept[0])
    p.forward(np.array(strided, order="C"), y[1], kept[1])
    same(*y)
    if p.kept_dtype:
        same(*kept)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_axes_may_lie_in_any_order(order):
    axes = [(7, 4, -1, 2, 1, 3, 1, 1), (11, 5, 0, 2, 1, 2, 0, 0)]
    rng, back = np.random.default_rng(8), np.argsort(order)
    x, g = (rng.integers(-9, 9, (2, *size, 5)).astype("f4") for size in ((7, 11), (4, 5)))

    def results(order, back):
        p = plan_of("max", "float32", 2, axes, 5, order=order)
        fresh = lambda like, dtype: np.empty([like.shape[axis] for axis in order], dtype).transpose(back)  # noqa: E731
        y, kept, gx, flat = fresh(g, "f4"), fresh(g, "u1"), fresh(x, "f4"), fresh(g, "i8")
        p.forward(x, y, kept)
        p.backward(np.ascontiguousarray(g.transpose(order)).transpose(back), gx, kept)
        p.indices(kept, flat)
        return y, kept, gx, flat

    for mine, plain in zip(results(list(order), back), results(list(range(4)), np.arange(4)), strict=True):
        same(mine, plain)


@pytest.mark.slow
def test_a_tap_two_to_the_31_elements_after_the_first():
    rows, columns, apart = 2**15 + 4, 2**16, 2**15
    down = (rows - apart, 0, 1, apart, 2, 0, 0, "absent")
    p = _native.Plan(
        "max", "float16", (1, rows, columns), [1, 2], [down, (columns // 2, 0, 2, 1, 2, 0, 0, "absent")], range(3)
    )
    g = np.ones((1, rows - apart, columns // 2), "f2")
    gx = np.empty((1, rows, columns), "f2")
    p.backward(g, gx, np.full(g.shape, 2, "u1"))  # the first column of the second row
    assert not gx[0, :apart].view("u2").any()
    assert (gx[0, apart:, ::2] == 1).all() and not gx[0, apart:, 1::2].any()


def test_more_than_two_to_the_31_elements():
    n, taps = 2**31 + 7, 2**16
    x = np.broadcast_to(np.zeros(1, "u1"), (n,))
    p = _native.Plan("max", "uint8", (n,), [0], [(n // taps, 0, taps, 1, taps, 0, 0, "absent")], [0])
    y = np.full(n // taps, 7, "u1")
    kept, flat = np.full(y.shape, 7, p.kept_dtype), np.empty(y.shape, "i8")
    p.forward(x, y, kept)
    p.indices(kept, flat)
    same(y, np.zeros_like(y))
    same(flat, np.arange(n // taps) * taps)
    far = _native.Plan("max", "uint8", (n,), [0], [(1, n - 3, 1, 1, 3, 0, 0, "absent")], [0])
    far.forward(x, y[:1], small := np.zeros(1, "u1"))
    far.indices(small, flat[:1])
    assert flat[0] == n - 3 > 2**31


def test_relumax_is_the_largest_above_zero_or_zero(instruction_set):
    case = "3/2, padded, wide"
    x, g = arrays(case, "float32", special=True)
    y, kept, gx = run(case, plan(case, "relumax", "float32"), x, g)
    wanted_y, wanted_kept, _, _ = expected(case, "max", x, g)
    nobody = wanted_y <= 0
    same(y, np.where(nobody, 0, wanted_y))
    same(kept.astype(int), np.where(nobody, 255, wanted_kept))
    same(gx, expected(case, "max", np.where(np.isnan(x) | (x > 0), x, -np.inf), np.where(nobody, 0, g))[3])


# ---- threads, fork, instruction sets ----


def a_large_max():
    p = plan_of("max", "float32", 64, [(64, 32, 0, 2, 1, 2, 0, 0), (64, 32, 0, 2, 1, 2, 0, 0)], 1)
    x = np.random.default_rng(5).standard_normal((64, 64, 64, 1)).astype("float32")
    y = np.empty((64, 32, 32, 1), "float32")
    p.forward(x, y, threads=4)
    return np.array_equal(y, x.reshape(64, 32, 2, 32, 2, 1).max((2, 4)))


def test_the_thread_count_is_at_least_one_and_remembered():
    before = _native.get_num_threads()
    _native.set_num_threads(3)
    assert before >= 1 and _native.get_num_threads() == 3
    _native.set_num_threads(before)
    for n in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            _native.set_num_threads(n)


def test_many_python_threads_at_once_get_right_answers():
    right = []
    callers = [threading.Thread(target=lambda: right.append(all(a_large_max() for _ in range(20)))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert right == [True] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    assert a_large_max()
    child = os.fork()
    if child == 0:
        os._exit(0 if a_large_max() and a_large_max() else 1)
    assert os.waitpid(child, 0)[1] == 0 and a_large_max()


def test_an_unknown_instruction_set_is_refused():
    assert _native.instruction_set() in SETS
    with pytest.raises(ValueError, match="z80"):
        _native.use_instruction_set("z80")
